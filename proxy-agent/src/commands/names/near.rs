//! What somebody may have meant who wrote a name that nothing has.

use std::cmp::Reverse;

/// How many names are suggested.
const SHOWN: usize = 3;
/// How alike two names have to be, of 1,000.
const ALIKE: u32 = 600;

/// The names that are most like this one, as the end of a sentence; empty if none is. It may be the namespace that is wrong.
pub(in crate::commands) fn near(wanted: &str, names: impl IntoIterator<Item = String>) -> String {
    let wanted = last(wanted);
    let mut found: Vec<(Reverse<u32>, String)> =
        names.into_iter().map(|name| (Reverse(likeness(wanted, last(&name))), name)).collect();
    found.retain(|(Reverse(likeness), _)| *likeness >= ALIKE);
    found.sort_unstable();
    found.dedup();
    found.truncate(SHOWN);
    match found.iter().map(|(_, name)| format!("`{name}`")).collect::<Vec<_>>() {
        names if names.is_empty() => String::new(),
        names => format!("; is it {}?", names.join(" or ")),
    }
}

/// A name without its namespace.
fn last(name: &str) -> &str {
    name.rsplit('/').next().unwrap_or_default()
}

/// Of 1,000.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a likeness is between 0 and 1")]
fn likeness(wanted: &str, name: &str) -> u32 {
    let likeness = (strsim::normalized_damerau_levenshtein(wanted, name) * 1000.0) as u32;
    if name.contains(wanted) { likeness.max(ALIKE) } else { likeness }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_most_alike_are_named_first() {
        let names =
            ["default/web", "default/wbe-2", "shop/web", "kube-system/kube-dns", "default/frontend-web-1"];
        let told = |wanted: &str| near(wanted, names.map(str::to_owned));
        assert_eq!(told("default/wbeb"), "; is it `default/web` or `shop/web` or `default/wbe-2`?");
        assert_eq!(told("kubedns"), "; is it `kube-system/kube-dns`?");
        assert_eq!(told("frontend"), "; is it `default/frontend-web-1`?");
        assert_eq!(told("payments"), "");
    }
}
