//! Tables, chains and rules of nftables (`NETLINK_NETFILTER`, subsystem nftables), which are also those of the iptables
//! that most distributions have. The kernel's side is `net/netfilter/nf_tables_api.c`.
//!
//! What is deleted is found by which chains there are and where their rules jump. What rules say is read to compare.
//!
//! | file | concept |
//! |---|---|
//! | `ruleset` | a table's rules and sets |
//! | `expression` | what a rule says |

mod expression;
mod ruleset;

use std::{collections::BTreeSet, io};

use netlink_packet_core::{NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP};
use netlink_sys::protocols::NETLINK_NETFILTER;

pub(crate) use self::{
    expression::{Expression, Extension, REDIRECTING, Verdict},
    ruleset::{Rule, Ruleset},
};
use super::{
    conversation::Conversation,
    message::{Attributes, Message, Write as _},
};
use crate::dataplane::Error;

/// `NFNL_SUBSYS_NFTABLES`.
const SUBSYSTEM: u16 = 10;
// `enum nf_tables_msg_types`.
const NEW_TABLE: u16 = SUBSYSTEM << 8;
const GET_TABLE: u16 = SUBSYSTEM << 8 | 1;
const DELETE_TABLE: u16 = SUBSYSTEM << 8 | 2;
const NEW_CHAIN: u16 = SUBSYSTEM << 8 | 3;
const GET_CHAIN: u16 = SUBSYSTEM << 8 | 4;
const DELETE_CHAIN: u16 = SUBSYSTEM << 8 | 5;
const NEW_RULE: u16 = SUBSYSTEM << 8 | 6;
const GET_RULE: u16 = SUBSYSTEM << 8 | 7;
const DELETE_RULE: u16 = SUBSYSTEM << 8 | 8;
// `NFNL_MSG_BATCH_BEGIN`, `NFNL_MSG_BATCH_END`.
const BEGIN: u16 = 16;
const END: u16 = 17;
// `enum nft_table_attributes`, `nft_chain_attributes`, `nft_hook_attributes`, `nft_rule_attributes`.
const TABLE_NAME: u16 = 1;
const CHAIN_TABLE: u16 = 1;
const CHAIN_NAME: u16 = 3;
const CHAIN_HOOK: u16 = 4;
const CHAIN_TYPE: u16 = 7;
const HOOK_NUMBER: u16 = 1;
const HOOK_PRIORITY: u16 = 2;
const RULE_TABLE: u16 = 1;
const RULE_CHAIN: u16 = 2;
const RULE_HANDLE: u16 = 3;
const RULE_EXPRESSIONS: u16 = 4;
// `enum nft_expr_attributes`, `nft_immediate_attributes`, `nft_data_attributes`, `nft_verdict_attributes`.
const EXPRESSION_NAME: u16 = 1;
const EXPRESSION_DATA: u16 = 2;
const IMMEDIATE_DATA: u16 = 2;
const DATA_VERDICT: u16 = 2;
const VERDICT_CHAIN: u16 = 2;
// `NFTA_LIST_ELEM`; `enum nft_ct_attributes`, `nft_registers`, `nft_ct_keys`.
const ELEMENT: u16 = 1;
const CT_REGISTER: u16 = 1;
const CT_KEY: u16 = 2;
const REGISTER: u32 = 1;
const CT_STATE: u32 = 0;
/// The chain of [`Change::HoldNat`].
const HELD: &str = "known-connections";
/// `NF_INET_LOCAL_OUT`, `NF_INET_POST_ROUTING`.
const OUTPUT: u32 = 3;
const POSTROUTING: u32 = 4;

/// How many chains are followed from those at the hook `output`: a mesh has a dozen.
const MOST_CHAINS: usize = 1_024;

/// An nftables socket.
#[derive(Debug)]
pub(crate) struct Nftables {
    conversation: Conversation<Message>,
}

/// A chain.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct Chain {
    /// `enum nfproto`.
    pub(crate) family: u8,
    /// Its table.
    pub(crate) table: String,
    /// Its name.
    pub(crate) name: String,
    /// Whether packets enter it by a hook, and not by a jump alone.
    pub(crate) is_base: bool,
}

/// A rule that jumps.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Jump {
    /// The rule's number in its table.
    pub(crate) handle: u64,
    /// The chain that it jumps to.
    pub(crate) to: String,
}

/// A change of the rules.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Change {
    /// Makes a table with a chain of type `nat`, and a rule in it that reads a connection's state and changes nothing.
    /// The kernel translates known connections while a family has such a chain, and knows connections while a rule asks
    /// for them.
    HoldNat {
        /// `NFPROTO_IPV4` or `NFPROTO_IPV6`.
        family: u8,
        /// The table.
        table: &'static str,
    },
    /// Deletes a table and all that is in it.
    DeleteTable {
        /// Its family.
        family: u8,
        /// Its name.
        table: String,
    },
    /// Deletes a rule.
    DeleteRule(Chain, u64),
    /// Deletes all rules of a chain.
    DeleteRules(Chain),
    /// Deletes a chain without rules that no rule jumps to.
    DeleteChain(Chain),
}

impl Change {
    /// The family of what changes.
    pub(crate) const fn family(&self) -> u8 {
        match self {
            Self::HoldNat { family, .. } | Self::DeleteTable { family, .. } => *family,
            Self::DeleteRule(chain, _) | Self::DeleteRules(chain) | Self::DeleteChain(chain) => chain.family,
        }
    }
}

impl Nftables {
    /// A socket in the namespace of the calling thread; an error where the kernel has no netfilter.
    pub(crate) fn new() -> Result<Self, Error> {
        Ok(Self { conversation: Conversation::new(NETLINK_NETFILTER)? })
    }

    /// Whether the kernel has nftables.
    pub(crate) fn is_there(&self) -> bool {
        let question = Message::new(GET_TABLE, 0);
        self.conversation.list::<Message>(("NFT_MSG_GETTABLE", "(netlink)"), &question, NLM_F_DUMP).is_ok()
    }

    /// The tables of all families: family and name.
    pub(crate) fn tables(&self) -> Result<Vec<(u8, String)>, Error> {
        let all = self.list("NFT_MSG_GETTABLE", &Message::new(GET_TABLE, 0))?;
        Ok(all
            .iter()
            .filter_map(|table| Some((table.family(), table.attributes().text(TABLE_NAME)?)))
            .collect())
    }

    /// The chains of all tables.
    pub(crate) fn chains(&self) -> Result<Vec<Chain>, Error> {
        let all = self.list("NFT_MSG_GETCHAIN", &Message::new(GET_CHAIN, 0))?;
        Ok(all.iter().filter_map(chain).collect())
    }

    /// Whether there is a chain of this name.
    pub(crate) fn has_chain(&self, family: u8, table: &str, name: &str) -> bool {
        let question = Message::new(GET_CHAIN, family).text(CHAIN_TABLE, table).text(CHAIN_NAME, name);
        self.conversation.ask(("NFT_MSG_GETCHAIN", "(netlink)"), question, NLM_F_ACK, drop).is_ok()
    }

    /// Whether rules give another destination to what processes of this namespace send: in a chain of type `nat` at the
    /// hook `output`, or in one that its rules jump to.
    pub(crate) fn redirects_output(&self) -> Result<bool, Error> {
        let all = self.list("NFT_MSG_GETCHAIN", &Message::new(GET_CHAIN, 0))?;
        let mut open: Vec<Chain> =
            all.iter().filter(|chain| is_nat_output(chain)).filter_map(chain).collect();
        let mut met: BTreeSet<Chain> = open.iter().cloned().collect();
        while let Some(next) = open.pop() {
            let mut rules = Ruleset::<Vec<Expression>>::default();
            self.add_rules(&next, &mut rules, &|rule| rule.expressions.clone())?;
            for expression in rules.rules.into_values().flatten().flatten() {
                // A map of verdicts in such a chain leads to chains that do, as in kube-proxy's rules.
                if expression.redirects() || matches!(expression, Expression::Decide { .. }) {
                    return Ok(true);
                }
                if let Expression::Verdict(Verdict::To(name)) = expression {
                    let chain = Chain { name, is_base: false, ..next.clone() };
                    if met.insert(chain.clone()) {
                        open.push(chain);
                    }
                }
            }
            if met.len() > MOST_CHAINS {
                return Err(Error::Missing(format!(
                    "rules lead from an output chain to more than {MOST_CHAINS} others"
                )));
            }
        }
        Ok(false)
    }

    /// The rules of a chain that jump. A rule that picks its chain from a map is not among them.
    pub(crate) fn jumps(&self, chain: &Chain) -> Result<Vec<Jump>, Error> {
        let question = of_chain(GET_RULE, chain);
        let all = self.list("NFT_MSG_GETRULE", &question)?;
        Ok(all.iter().filter_map(|rule| jump(rule.attributes())).collect())
    }

    /// Makes all changes at once, or after an error none.
    pub(crate) fn commit(&self, changes: &[Change]) -> Result<(), Error> {
        if changes.is_empty() {
            return Ok(());
        }
        let mut messages: Vec<(Message, u16)> = changes.iter().flat_map(messages).collect();
        if let Some((_, flags)) = messages.last_mut() {
            *flags |= NLM_F_ACK;
        }
        let frame = |kind| {
            let mut message = Message::new(kind, 0);
            // `res_id`, in network byte order.
            message.body[2..].copy_from_slice(&SUBSYSTEM.to_be_bytes());
            (message, 0)
        };
        let all = [frame(BEGIN)].into_iter().chain(messages).chain([frame(END)]);
        self.conversation.transact(("NFNL_MSG_BATCH_BEGIN", "(netlink)"), all)
    }

    /// All objects of a kind; none where the kernel has no nftables.
    fn list(&self, call: &'static str, question: &Message) -> Result<Vec<Message>, Error> {
        match self.conversation.list((call, "(netlink)"), question, NLM_F_DUMP) {
            Err(Error::System { error, .. }) if is_absent(&error) => Ok(Vec::new()),
            listed => listed,
        }
    }
}

/// The kernel has no nftables, or the table or chain is gone.
fn is_absent(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOENT | libc::EINVAL | libc::EOPNOTSUPP))
}

/// Whether packets that processes of this namespace send are translated there.
fn is_nat_output(message: &Message) -> bool {
    let chain = message.attributes();
    let hook = chain.nested(CHAIN_HOOK).and_then(|hook| hook.number(HOOK_NUMBER));
    hook.map(u32::from_be_bytes) == Some(OUTPUT) && chain.text(CHAIN_TYPE).as_deref() == Some("nat")
}

/// A chain, as the kernel lists it.
pub(super) fn chain(message: &Message) -> Option<Chain> {
    let chain = message.attributes();
    Some(Chain {
        family: message.family(),
        table: chain.text(CHAIN_TABLE)?,
        name: chain.text(CHAIN_NAME)?,
        is_base: chain.get(CHAIN_HOOK).is_some(),
    })
}

/// Where a rule jumps, if it does.
pub(super) fn jump(rule: Attributes<'_>) -> Option<Jump> {
    let handle = u64::from_be_bytes(rule.number(RULE_HANDLE)?);
    let target = |expression: Attributes<'_>| {
        (expression.text(EXPRESSION_NAME)? == "immediate").then_some(())?;
        let data = expression.nested(EXPRESSION_DATA)?.nested(IMMEDIATE_DATA)?;
        data.nested(DATA_VERDICT)?.text(VERDICT_CHAIN)
    };
    let to = rule.nested(RULE_EXPRESSIONS)?.iter().find_map(|(_, expression)| target(Attributes(expression)));
    Some(Jump { handle, to: to? })
}

/// The messages of a change, with their flags.
fn messages(change: &Change) -> Vec<(Message, u16)> {
    match change {
        Change::HoldNat { family, table } => {
            let table_message = Message::new(NEW_TABLE, *family).text(TABLE_NAME, table);
            let hook = Vec::new()
                .attribute(HOOK_NUMBER, &POSTROUTING.to_be_bytes())
                // After all others.
                .attribute(HOOK_PRIORITY, &i32::from(i16::MAX).to_be_bytes());
            let chain = Message::new(NEW_CHAIN, *family)
                .text(CHAIN_TABLE, table)
                .text(CHAIN_NAME, HELD)
                .nested(CHAIN_HOOK, &hook)
                .text(CHAIN_TYPE, "nat");
            let state = Vec::new()
                .attribute(CT_REGISTER, &REGISTER.to_be_bytes())
                .attribute(CT_KEY, &CT_STATE.to_be_bytes());
            let expression = Vec::new().text(EXPRESSION_NAME, "ct").nested(EXPRESSION_DATA, &state);
            let rule = Message::new(NEW_RULE, *family)
                .text(RULE_TABLE, table)
                .text(RULE_CHAIN, HELD)
                .nested(RULE_EXPRESSIONS, &Vec::new().nested(ELEMENT, &expression));
            [table_message, chain, rule].map(|message| (message, NLM_F_CREATE)).into()
        }
        Change::DeleteTable { family, table } => {
            vec![(Message::new(DELETE_TABLE, *family).text(TABLE_NAME, table), 0)]
        }
        Change::DeleteRule(chain, handle) => {
            vec![(of_chain(DELETE_RULE, chain).attribute(RULE_HANDLE, &handle.to_be_bytes()), 0)]
        }
        Change::DeleteRules(chain) => vec![(of_chain(DELETE_RULE, chain), 0)],
        Change::DeleteChain(chain) => {
            let message = Message::new(DELETE_CHAIN, chain.family);
            vec![(message.text(CHAIN_TABLE, &chain.table).text(CHAIN_NAME, &chain.name), 0)]
        }
    }
}

/// A message about rules of a chain.
fn of_chain(kind: u16, chain: &Chain) -> Message {
    let Chain { family, table, name, is_base: _ } = chain;
    Message::new(kind, *family).text(RULE_TABLE, table).text(RULE_CHAIN, name)
}
