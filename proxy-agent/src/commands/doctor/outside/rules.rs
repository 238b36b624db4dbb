//! What netfilter's forward chains do with the first packet of a north-south connection: a pure function.
//!
//! To netfilter such a packet is new, untranslated and without kube-proxy's mark, so rules that let kube-proxy's
//! packets pass do not apply. A rule that may or may not match (a set, a port, a rate) gets the benefit of the doubt:
//! only a certain drop is a finding.

use std::{collections::BTreeMap, net::IpAddr};

use crate::dataplane::Families;

/// All chains of one table.
#[derive(Debug)]
pub(super) struct Ruleset {
    /// For people, such as `nftables, table inet firewalld`.
    pub(super) table: String,
    /// The families whose packets pass it.
    pub(super) families: Families,
    /// By name.
    pub(super) chains: BTreeMap<String, Chain>,
}

/// A chain.
#[derive(Default, Debug)]
pub(super) struct Chain {
    /// What becomes of packets at its end, if it is a base chain of filters at the forward hook.
    pub(super) policy: Option<Policy>,
    pub(super) rules: Vec<Rule>,
}

/// The end of a base chain.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Policy {
    Accept,
    Drop,
}

/// A rule: the target is for packets that meet every match.
#[derive(Debug)]
pub(super) struct Rule {
    /// For people.
    pub(super) text: String,
    pub(super) matches: Vec<Match>,
    pub(super) target: Target,
}

/// A condition on a packet.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Match {
    /// The answer is the same for the first packet of every north-south connection: its conntrack state, its NAT.
    Always(bool),
    /// One of these devices, of which a name may end in `*`.
    In(Vec<String>),
    Out(Vec<String>),
    From(Vec<Prefix>),
    To(Vec<Prefix>),
    Protocol(Vec<String>),
    /// Whether it bears a mark.
    Marked,
    /// The opposite.
    Not(Box<Self>),
    /// Something else.
    Unknown,
}

impl Match {
    /// This, or its opposite.
    pub(super) fn inverted(self, inverted: bool) -> Self {
        if inverted { Self::Not(Box::new(self)) } else { self }
    }
}

/// The action on a packet.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Target {
    Accept,
    /// Dropped or rejected.
    Drop,
    Jump(String),
    Goto(String),
    Return,
    SetMark,
    /// Counted, logged and the like.
    Continue,
    /// A target of unknown effect, which may end the packet's path.
    Unknown,
}

/// A range of addresses.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Prefix {
    pub(super) address: IpAddr,
    pub(super) length: u8,
}

impl Prefix {
    /// `10.244.0.0/16`, or an address.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (address, length) = text.split_once('/').unwrap_or((text, ""));
        let address: IpAddr = address.parse().ok()?;
        let whole = if address.is_ipv4() { 32 } else { 128 };
        let length = if length.is_empty() { whole } else { length.parse().ok()? };
        (length <= whole).then_some(Self { address, length })
    }

    fn holds(self, other: IpAddr) -> bool {
        let bits = |address: IpAddr| match address {
            IpAddr::V4(v4) => (u128::from(u32::from(v4)) << 96, 32),
            IpAddr::V6(v6) => (u128::from(v6), 128),
        };
        let ((own, width), (other, other_width)) = (bits(self.address), bits(other));
        let differ = own ^ other;
        width == other_width && (self.length == 0 || differ >> (128 - u32::from(self.length)) == 0)
    }

    /// Whether it is so wide that it contains other networks than the pods', such as 10.0.0.0/8.
    fn is_wide(self) -> bool {
        self.length < if self.address.is_ipv4() { 12 } else { 16 }
    }
}

/// The first packet of a north-south TCP connection, on its way to an endpoint.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Packet {
    pub(super) v6: bool,
    /// The device that it came in by.
    pub(super) device: String,
    /// The device that it leaves by, if known.
    pub(super) leaves_by: Option<String>,
    /// The endpoint, if there is one already.
    pub(super) to: Option<IpAddr>,
}

/// Where a packet is dropped.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct Finding {
    pub(super) table: String,
    pub(super) chain: String,
    /// The rule, or the policy.
    pub(super) rule: String,
}

/// The chains that certainly drop a packet, each base chain apart: one is enough.
pub(super) fn findings(rulesets: &[Ruleset], packet: &Packet) -> Vec<Finding> {
    let passed =
        rulesets.iter().filter(|rules| if packet.v6 { rules.families.v6 } else { rules.families.v4 });
    let found = passed.flat_map(|rules| {
        let bases = rules.chains.iter().filter_map(|(name, chain)| Some((name, chain.policy?)));
        bases.filter_map(|(name, policy)| {
            let mut walk = Walk { rules, packet, marked: false, depth: 0, seen: 0 };
            let place = |chain: &str, rule: &str| Finding {
                table: rules.table.clone(),
                chain: chain.to_owned(),
                rule: rule.to_owned(),
            };
            match walk.chain(name) {
                End::Dropped(chain, rule) => Some(place(&chain, &rule)),
                End::Fell if policy == Policy::Drop => Some(place(name, "policy drop")),
                End::Accepted | End::Fell | End::Unknown => None,
            }
        })
    });
    found.collect()
}

/// How a packet left a chain.
#[derive(Clone, PartialEq, Eq, Debug)]
enum End {
    Accepted,
    /// By this rule of this chain.
    Dropped(String, String),
    /// Back to the calling chain, or to the policy.
    Fell,
    /// It depends.
    Unknown,
}

/// An answer about a packet of which not everything is known.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Answer {
    No,
    Maybe,
    Yes,
}

/// The greatest depth of chain calls (`NFT_JUMP_STACK_SIZE`).
const DEEPEST: usize = 16;
/// How many rules are looked at for one packet: chains that call each other by several ways multiply.
const MOST: usize = 1 << 20;

struct Walk<'a> {
    rules: &'a Ruleset,
    packet: &'a Packet,
    /// Whether a rule on the way may have set a mark.
    marked: bool,
    depth: usize,
    /// How many rules it has come by.
    seen: usize,
}

impl Walk<'_> {
    fn chain(&mut self, name: &str) -> End {
        let Some(chain) = self.rules.chains.get(name).filter(|_| self.depth < DEEPEST) else {
            return End::Unknown;
        };
        self.depth += 1;
        let end = chain.rules.iter().find_map(|rule| self.rule(name, rule)).unwrap_or(End::Fell);
        self.depth -= 1;
        end
    }

    /// How the packet leaves the chain by this rule, if it does.
    fn rule(&mut self, chain: &str, rule: &Rule) -> Option<End> {
        self.seen += 1;
        if self.seen > MOST {
            return Some(End::Unknown);
        }
        let answer = rule.matches.iter().map(|asked| self.asked(asked)).min().unwrap_or(Answer::Yes);
        if answer == Answer::No {
            return None;
        }
        let certain = answer == Answer::Yes;
        match &rule.target {
            Target::Continue => None,
            Target::SetMark => {
                self.marked = true;
                None
            }
            Target::Drop => certain.then(|| End::Dropped(chain.to_owned(), rule.text.clone())),
            Target::Accept if certain => Some(End::Accepted),
            Target::Return if certain => Some(End::Fell),
            Target::Accept | Target::Return | Target::Unknown => Some(End::Unknown),
            Target::Jump(to) => match self.chain(to) {
                End::Fell => None,
                End::Dropped(..) if !certain => None,
                end => Some(if certain { end } else { End::Unknown }),
            },
            Target::Goto(to) => match self.chain(to) {
                End::Dropped(..) if !certain => None,
                end => Some(if certain { end } else { End::Unknown }),
            },
        }
    }

    fn asked(&self, asked: &Match) -> Answer {
        let Packet { v6, device, leaves_by, to } = self.packet;
        let answer = |known: bool| if known { Answer::Yes } else { Answer::No };
        match asked {
            Match::Always(known) => answer(*known),
            Match::In(names) => answer(is_one_of(device, names)),
            Match::Out(names) => {
                leaves_by.as_ref().map_or(Answer::Maybe, |device| answer(is_one_of(device, names)))
            }
            Match::Protocol(names) => {
                answer(names.iter().any(|name| ["tcp", "6", "all", "0"].contains(&name.as_str())))
            }
            Match::Marked => {
                if self.marked {
                    Answer::Maybe
                } else {
                    Answer::No
                }
            }
            Match::To(ranges) => {
                let mut ranges = ranges.iter().filter(|range| range.address.is_ipv6() == *v6).peekable();
                match to {
                    _ if ranges.peek().is_none() => Answer::No,
                    Some(to) => answer(ranges.any(|range| range.holds(*to))),
                    None => Answer::Maybe,
                }
            }
            Match::From(ranges) => ranges
                .iter()
                .filter(|range| range.address.is_ipv6() == *v6)
                .map(|range| match to {
                    _ if range.length == 0 => Answer::Yes,
                    // The range of the pods, to which the client does not belong.
                    Some(to) if range.holds(*to) && !range.is_wide() => Answer::No,
                    _ if range.address.is_loopback() => Answer::No,
                    _ => Answer::Maybe,
                })
                .max()
                .unwrap_or(Answer::No),
            Match::Not(other) => match self.asked(other) {
                Answer::Yes => Answer::No,
                Answer::Maybe => Answer::Maybe,
                Answer::No => Answer::Yes,
            },
            Match::Unknown => Answer::Maybe,
        }
    }
}

fn is_one_of(device: &str, names: &[String]) -> bool {
    names.iter().any(|name| match name.strip_suffix('*') {
        Some(beginning) => device.starts_with(beginning),
        None => device == name,
    })
}
