//! Row ids, such as `EP-7`, and where a text names them.

use std::fmt;

/// The groups of rows.
const GROUPS: [&str; 7] = ["IN", "FE", "EP", "PO", "ST", "HE", "CF"];

/// A row's id. Ordered as the groups are, then by number.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct Id {
    group: usize,
    /// Its number within the group.
    pub(super) number: u32,
}

impl Id {
    /// The group's letters.
    pub(super) fn group(self) -> &'static str {
        GROUPS[self.group]
    }

    /// `EP-7`, and nothing else.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (group, number) = text.split_once('-')?;
        Self::of(GROUPS.iter().position(|known| *known == group)?, number)
    }

    /// Every id that a text names, in order; `EP-1..EP-3` names three.
    pub(super) fn all_in(text: &str) -> Vec<Self> {
        let belongs = |character: char| character.is_ascii_alphanumeric() || character == '-';
        let (mut ids, mut previous, mut rest) = (Vec::new(), None::<Self>, text);
        while let Some(start) = rest.find(belongs) {
            let (between, word) = rest.split_at(start);
            let (word, after) = word.split_at(word.find(|next| !belongs(next)).unwrap_or(word.len()));
            let found = Self::parse(word);
            if let (Some(first), Some(last), "..") = (previous, found, between)
                && first.group == last.group
            {
                ids.extend((first.number + 1..last.number).map(|number| Self { number, ..last }));
            }
            ids.extend(found);
            (previous, rest) = (found, after);
        }
        ids
    }

    /// The ids with which a function's name begins: `ep_7_po_3_…`. Later in a name, `in_2` is a word and a number.
    pub(super) fn leading(name: &str) -> Vec<Self> {
        let words: Vec<&str> = name.split('_').collect();
        words
            .chunks_exact(2)
            .map_while(|pair| {
                Self::of(GROUPS.iter().position(|known| known.to_ascii_lowercase() == pair[0])?, pair[1])
            })
            .collect()
    }

    fn of(group: usize, number: &str) -> Option<Self> {
        let digits = number.bytes().all(|byte| byte.is_ascii_digit());
        Some(Self { group, number: number.parse().ok().filter(|_| digits)? })
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.group(), self.number)
    }
}

#[cfg(test)]
mod tests {
    use super::Id;

    fn all_in(text: &str) -> String {
        Id::all_in(text).iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn ids_are_found_between_other_words() {
        assert_eq!(all_in("/// EP-5, EP-9: only these (see PO-19)."), "EP-5 EP-9 PO-19");
        assert_eq!(all_in(r#".expect("ST-4: it goes on")"#), "ST-4");
        assert_eq!(all_in("RFC-7, EP-x, EP-, XEP-7, EP-7a, ep-7, UTF-8"), "");
    }

    #[test]
    fn a_range_names_everything_between() {
        assert_eq!(all_in("FE-1..FE-4, EP-10..EP-11"), "FE-1 FE-2 FE-3 FE-4 EP-10 EP-11");
        assert_eq!(all_in("FE-1..EP-3, FE-7 .. FE-9"), "FE-1 EP-3 FE-7 FE-9");
    }

    #[test]
    fn a_name_carries_the_ids_that_it_begins_with() {
        let leading = |name| Id::leading(name).iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(leading("ep_7_in_order"), ["EP-7"]);
        assert_eq!(leading("ep_7_po_13_both"), ["EP-7", "PO-13"]);
        assert_eq!(leading("fits_in_64_bytes"), [""; 0]);
        assert_eq!(leading("in_order"), [""; 0]);
    }
}
