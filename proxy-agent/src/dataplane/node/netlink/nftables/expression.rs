//! What a rule says, as the kernel lists it: one expression after the other. What is not known here keeps its name.

use super::super::message::Attributes;

// `enum nft_expr_attributes`, `nft_data_attributes`, `nft_verdict_attributes`.
const NAME: u16 = 1;
const DATA: u16 = 2;
const DATA_VALUE: u16 = 1;
const DATA_VERDICT: u16 = 2;
const VERDICT_CODE: u16 = 1;
const VERDICT_CHAIN: u16 = 2;
// `enum nft_registers`: four of sixteen bytes, or sixteen of four from the eighth number on.
const WIDE: std::ops::RangeInclusive<u32> = 1..=4;
const NARROW: u32 = 8;

/// Targets of iptables that give a packet another destination.
pub(crate) const REDIRECTING: [&str; 2] = ["DNAT", "REDIRECT"];

/// An expression.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Expression {
    /// `immediate`: a register gets these bytes.
    Value {
        /// The register.
        register: u32,
        /// What it gets.
        bytes: Vec<u8>,
    },
    /// `immediate`: what happens with the packet.
    Verdict(Verdict),
    /// `payload`: a register gets a part of the packet.
    Payload {
        /// The register.
        register: u32,
        /// `enum nft_payload_bases`.
        base: u32,
        /// From which byte.
        offset: u32,
        /// How many bytes.
        length: u32,
    },
    /// `meta`: a register gets something about the packet.
    Meta {
        /// The register.
        register: u32,
        /// `enum nft_meta_keys`.
        key: u32,
    },
    /// `fib`: a register gets something about an address.
    Fib {
        /// The register.
        register: u32,
        /// `enum nft_fib_result`.
        result: u32,
        /// `enum nft_fib_flags`.
        flags: u32,
    },
    /// `bitwise`: a register keeps these bits.
    Mask {
        /// The register.
        register: u32,
        /// The bits.
        mask: Vec<u8>,
    },
    /// `cmp`: the rule ends unless a register begins with these bytes.
    Compare {
        /// The register.
        register: u32,
        /// Whether it must be so, or must not; `None` for less and greater.
        equal: Option<bool>,
        /// The bytes.
        bytes: Vec<u8>,
    },
    /// `lookup` in a set: the rule ends unless a register is in it.
    Lookup {
        /// The register.
        register: u32,
        /// The set.
        set: String,
        /// Whether it must not be in it.
        inverted: bool,
    },
    /// `lookup` in a map whose values are verdicts.
    Decide {
        /// The map.
        map: String,
    },
    /// `nat` of the destination to what these registers have.
    Destination {
        /// The address.
        address: Option<u32>,
        /// The port.
        port: Option<u32>,
    },
    /// `reject`.
    Reject,
    /// `match` of iptables.
    Match(Extension),
    /// `target` of iptables.
    Target(Extension),
    /// It decides nothing: it counts, chooses at random, or remembers.
    Nothing,
    /// Anything else, by name.
    Other(String),
}

/// An extension of iptables with its parameters.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Extension {
    /// Its name.
    pub(crate) name: String,
    /// The version of its parameters.
    pub(crate) revision: u32,
    /// Its parameters, in a layout of its own.
    pub(crate) info: Vec<u8>,
}

/// What happens with a packet.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Verdict {
    /// The rules of this chain follow (`jump`, `goto`).
    To(String),
    /// `drop`.
    Drop,
    /// `accept`.
    Accept,
    /// `return`.
    Return,
    /// Anything else.
    Other(i32),
}

impl Verdict {
    /// The verdict in a datum.
    pub(super) fn read(datum: Attributes<'_>) -> Option<Self> {
        let verdict = datum.nested(DATA_VERDICT)?;
        // `NF_DROP`, `NF_ACCEPT`, `enum nft_verdicts`.
        Some(match i32::from_be_bytes(verdict.number(VERDICT_CODE)?) {
            0 => Self::Drop,
            1 => Self::Accept,
            -3 | -4 => Self::To(verdict.text(VERDICT_CHAIN)?),
            -5 => Self::Return,
            other => Self::Other(other),
        })
    }
}

impl Expression {
    /// Whether it gives a packet another destination.
    pub(crate) fn redirects(&self) -> bool {
        match self {
            Self::Destination { .. } => true,
            Self::Other(name) => name == "redir",
            Self::Target(extension) => REDIRECTING.contains(&extension.name.as_str()),
            _ => false,
        }
    }

    /// Reads one. What lacks an attribute is [`Self::Other`].
    pub(super) fn read(expression: Attributes<'_>) -> Self {
        let name = expression.text(NAME).unwrap_or_default();
        let data = expression.nested(DATA).unwrap_or(Attributes(&[]));
        Self::known(&name, data).unwrap_or(Self::Other(name))
    }

    /// The attributes are those of `enum nft_…_attributes` of its name.
    fn known(name: &str, data: Attributes<'_>) -> Option<Self> {
        let number = |kind| data.number(kind).map(u32::from_be_bytes);
        let register = |kind| number(kind).map(narrow);
        let value = |kind| data.nested(kind)?.get(DATA_VALUE).map(<[u8]>::to_vec);
        Some(match name {
            "immediate" => match Verdict::read(data.nested(2)?) {
                Some(verdict) => Self::Verdict(verdict),
                None => Self::Value { register: register(1)?, bytes: value(2)? },
            },
            "payload" => Self::Payload {
                register: register(1)?,
                base: number(2)?,
                offset: number(3)?,
                length: number(4)?,
            },
            "meta" => match register(1) {
                Some(register) => Self::Meta { register, key: number(2)? },
                None => Self::Nothing,
            },
            "fib" => Self::Fib { register: register(1)?, result: number(2)?, flags: number(3)? },
            "bitwise" => {
                let changes = value(5)?.iter().any(|byte| *byte != 0);
                if changes || register(1)? != register(2)? {
                    return None;
                }
                Self::Mask { register: register(2)?, mask: value(4)? }
            }
            "cmp" => Self::Compare {
                register: register(1)?,
                equal: match number(2)? {
                    0 => Some(true),
                    1 => Some(false),
                    _ => None,
                },
                bytes: value(3)?,
            },
            "lookup" => match (number(3), data.text(1)?) {
                (Some(_), map) => Self::Decide { map },
                (None, set) => Self::Lookup {
                    register: register(2)?,
                    set,
                    inverted: number(5).is_some_and(|flags| flags & 1 != 0),
                },
            },
            "nat" if number(1)? == 1 => Self::Destination { address: register(3), port: register(5) },
            "match" => Self::Match(extension(data)?),
            "target" => Self::Target(extension(data)?),
            "reject" => Self::Reject,
            "counter" | "numgen" | "dynset" | "masq" => Self::Nothing,
            _ => return None,
        })
    }
}

fn extension(data: Attributes<'_>) -> Option<Extension> {
    let revision = u32::from_be_bytes(data.number(2)?);
    Some(Extension { name: data.text(1)?, revision, info: data.get(3)?.to_vec() })
}

/// The number of a register's first four bytes.
const fn narrow(register: u32) -> u32 {
    if register >= *WIDE.start() && register <= *WIDE.end() { NARROW + (register - 1) * 4 } else { register }
}
