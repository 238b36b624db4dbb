//! A table's rules and sets, as the kernel lists them.

use std::collections::HashMap;

use netlink_packet_core::NLM_F_DUMP;

use super::{
    super::message::{Attributes, Message, Write as _},
    Chain, GET_RULE, NEW_RULE, Nftables, RULE_CHAIN, RULE_EXPRESSIONS, RULE_HANDLE, SUBSYSTEM,
    expression::{Expression, Verdict},
    is_absent, of_chain,
};
use crate::dataplane::Error;

// `enum nf_tables_msg_types`.
const NEW_SET: u16 = SUBSYSTEM << 8 | 9;
const GET_SET: u16 = SUBSYSTEM << 8 | 0xa;
const NEW_ELEMENTS: u16 = SUBSYSTEM << 8 | 0xc;
const GET_ELEMENTS: u16 = SUBSYSTEM << 8 | 0xd;
// `enum nft_rule_attributes`, `nft_set_attributes`, `nft_set_elem_list_attributes`, `nft_set_elem_attributes`,
// `nft_set_elem_flags`, `nft_data_attributes`.
const SET_TABLE: u16 = 1;
const SET_NAME: u16 = 2;
const SET_FLAGS: u16 = 3;
const SET_TIMEOUT: u16 = 11;
const LIST_TABLE: u16 = 1;
const LIST_SET: u16 = 2;
const LIST_ELEMENTS: u16 = 3;
const ELEMENT_KEY: u16 = 1;
const ELEMENT_DATA: u16 = 2;
const ELEMENT_FLAGS: u16 = 3;
const ELEMENT_NOTES: u16 = 6;
const INTERVAL_END: u32 = 1;
const DATA_VALUE: u16 = 1;
/// `NFT_SET_INTERVAL`.
const INTERVAL: u32 = 4;
/// How much of a set or a chain is read: several times what a hundred thousand Services need.
const MOST: usize = 1 << 22;

/// Rules and sets of a table. There may be hundreds of thousands of rules, so what matters of each is kept, an `R`.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub(crate) struct Ruleset<R> {
    /// The rules of each chain, in order.
    pub(crate) rules: HashMap<String, Vec<R>>,
    /// Sets and maps.
    pub(crate) sets: HashMap<String, Set>,
}

/// A rule.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Rule {
    /// Its number in its table.
    pub(crate) handle: u64,
    /// What it says.
    pub(crate) expressions: Vec<Expression>,
}

/// A set or a map.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub(crate) struct Set {
    /// Whether its elements are the ends of ranges.
    pub(crate) is_interval: bool,
    /// After how many seconds it forgets an element. Such sets are filled by packets; their elements are not read.
    pub(crate) seconds: Option<u64>,
    /// Its elements, in no order.
    pub(crate) elements: Vec<Element>,
}

/// An element of a set or a map.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Element {
    /// Its key: fields padded to four bytes.
    pub(crate) key: Vec<u8>,
    /// A map's value, if it is a verdict.
    pub(crate) verdict: Option<Verdict>,
    /// Its comment.
    pub(crate) comment: Option<String>,
    /// Whether it is the first address after a range.
    pub(crate) is_end: bool,
}

/// What a listed message has.
enum Listed<R> {
    Rule(String, R),
    Set(String, Set),
    Elements(String, Vec<Element>),
}

impl<R: Default> Ruleset<R> {
    /// Takes what a message lists; nothing from one that is something else, or is cut off.
    fn take(&mut self, listed: Listed<R>) {
        match listed {
            Listed::Rule(chain, rule) => self.rules.entry(chain).or_default().push(rule),
            Listed::Set(name, set) => drop(self.sets.insert(name, set)),
            Listed::Elements(name, elements) => self.sets.entry(name).or_default().elements.extend(elements),
        }
    }

    /// What the messages list, as the kernel sent them.
    #[cfg(test)]
    pub(crate) fn of<'a>(
        messages: impl IntoIterator<Item = (u16, &'a [u8])>,
        family: u8,
        table: &str,
        keep: impl Fn(&Rule) -> R,
    ) -> Self {
        let mut all = Self::default();
        for (kind, body) in messages {
            let message = Message { kind, body: body.to_vec() };
            // A rule, a set and a list of elements name their table alike.
            let is_wanted = message.attributes().text(SET_TABLE).as_deref() == Some(table);
            if message.family() == family
                && is_wanted
                && let Some(listed) = read(&message, &keep)
            {
                all.take(listed);
            }
        }
        all
    }
}

impl Nftables {
    /// Reads the sets of a table, but for the elements of those that packets fill. `keep` says what is kept of a rule.
    pub(crate) fn sets<R: Default>(
        &self,
        family: u8,
        table: &str,
        keep: &impl Fn(&Rule) -> R,
    ) -> Result<Ruleset<R>, Error> {
        let mut all = Ruleset::default();
        let question = Message::new(GET_SET, family).text(SET_TABLE, table);
        self.gather(("NFT_MSG_GETSET", table), &question, &mut all, keep)?;
        let sets: Vec<String> =
            all.sets.iter().filter(|(_, set)| set.seconds.is_none()).map(|(name, _)| name.clone()).collect();
        for set in sets {
            let question = Message::new(GET_ELEMENTS, family).text(LIST_TABLE, table).text(LIST_SET, &set);
            self.gather(("NFT_MSG_GETSETELEM", table), &question, &mut all, keep)?;
        }
        Ok(all)
    }

    /// Adds the rules of a chain. One chain after the other: the kernel begins to count at a table's first rule for each
    /// part of a list, which took minutes for all rules of ten thousand Services at once.
    pub(crate) fn add_rules<R: Default>(
        &self,
        chain: &Chain,
        all: &mut Ruleset<R>,
        keep: &impl Fn(&Rule) -> R,
    ) -> Result<(), Error> {
        self.gather(("NFT_MSG_GETRULE", &chain.table), &of_chain(GET_RULE, chain), all, keep)?;
        // Most chains have two rules, and a vector begins with room for four.
        if let Some(rules) = all.rules.get_mut(&chain.name) {
            rules.shrink_to_fit();
        }
        Ok(())
    }

    fn gather<R: Default>(
        &self,
        (call, table): (&'static str, &str),
        question: &Message,
        all: &mut Ruleset<R>,
        keep: &impl Fn(&Rule) -> R,
    ) -> Result<(), Error> {
        let mut count = 0;
        let listed = self.conversation.collect((call, table), question, NLM_F_DUMP, |message| {
            count += 1;
            if count > MOST { None } else { read(&message, keep) }
        });
        let listed = match listed {
            Err(Error::System { error, .. }) if is_absent(&error) => Vec::new(),
            listed => listed?,
        };
        if count > MOST {
            return Err(Error::Missing(format!(
                "table {table} of nftables has more than {MOST} rules: kube-proxy makes fewer; see `nft list table`"
            )));
        }
        for one in listed {
            all.take(one);
        }
        Ok(())
    }
}

fn read<R>(message: &Message, keep: &impl Fn(&Rule) -> R) -> Option<Listed<R>> {
    let attributes = message.attributes();
    match message.kind {
        NEW_RULE => {
            let rule = Rule {
                handle: u64::from_be_bytes(attributes.number(RULE_HANDLE)?),
                expressions: attributes.nested(RULE_EXPRESSIONS).map(expressions).unwrap_or_default(),
            };
            Some(Listed::Rule(attributes.text(RULE_CHAIN)?, keep(&rule)))
        }
        NEW_SET => {
            let flags = attributes.number(SET_FLAGS).map_or(0, u32::from_be_bytes);
            let milliseconds = attributes.number(SET_TIMEOUT).map(u64::from_be_bytes);
            let set = Set {
                is_interval: flags & INTERVAL != 0,
                seconds: milliseconds.map(|milliseconds| milliseconds / 1000),
                elements: Vec::new(),
            };
            Some(Listed::Set(attributes.text(SET_NAME)?, set))
        }
        NEW_ELEMENTS => {
            let elements = attributes.nested(LIST_ELEMENTS).into_iter().flat_map(Attributes::iter);
            let elements = elements.filter_map(|(_, element)| self::element(Attributes(element))).collect();
            Some(Listed::Elements(attributes.text(LIST_SET)?, elements))
        }
        _ => None,
    }
}

fn expressions(list: Attributes<'_>) -> Vec<Expression> {
    list.iter().map(|(_, expression)| Expression::read(Attributes(expression))).collect()
}

fn element(element: Attributes<'_>) -> Option<Element> {
    let flags = element.number(ELEMENT_FLAGS).map_or(0, u32::from_be_bytes);
    Some(Element {
        key: element.nested(ELEMENT_KEY)?.get(DATA_VALUE)?.to_vec(),
        verdict: element.nested(ELEMENT_DATA).and_then(Verdict::read),
        comment: element.get(ELEMENT_NOTES).and_then(comment),
        is_end: flags & INTERVAL_END != 0,
    })
}

/// The comment in what programs note: type, length and value, each type one byte, and 0 is the comment's.
fn comment(mut notes: &[u8]) -> Option<String> {
    while let [kind, length, rest @ ..] = notes {
        let (value, after) = rest.split_at_checked(usize::from(*length))?;
        if *kind == 0 {
            let text = value.strip_suffix(&[0]).unwrap_or(value);
            return String::from_utf8(text.to_vec()).ok();
        }
        notes = after;
    }
    None
}
