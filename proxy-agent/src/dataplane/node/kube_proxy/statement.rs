//! What a rule of kube-proxy's says of Services: for which packets, and where they go. Pure.

use std::{collections::HashMap, net::SocketAddr};

use proxy_common::{Address, Port};

use super::{
    super::netlink::{Expression, Extension, Rule, Verdict},
    ranges::Ranges,
};

// `enum nft_payload_bases`, `nft_meta_keys`, `nft_fib_result`, `nft_fib_flags`; `RTN_LOCAL`.
const NETWORK: u32 = 1;
const TRANSPORT: u32 = 2;
const L4PROTO: u32 = 16;
const ADDRESS_TYPE: u32 = 3;
const OF_SOURCE: u32 = 1;
const LOCAL: u8 = 2;
/// `1 << RTN_LOCAL`, in `struct xt_addrtype_info_v1`.
const LOCAL_BIT: u16 = 1 << LOCAL;
/// `XT_RECENT_CHECK`, in `struct xt_recent_mtinfo`.
const RECENT_CHECK: u8 = 1;

/// A rule in kube-proxy's terms.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub(super) struct Statement {
    /// The rule's number in its table.
    pub(super) handle: u64,
    /// The destination's address.
    pub(super) destination: Option<Address>,
    /// Whether the destination is any address of the node's.
    pub(super) at_node: bool,
    /// The protocol's number.
    pub(super) protocol: Option<u8>,
    /// The destination's port.
    pub(super) port: Option<Port>,
    /// Whose packets.
    pub(super) source: Option<Source>,
    /// For how many seconds it remembers a client, if it looks for one that it remembers (mode iptables).
    pub(super) seconds: Option<u64>,
    /// What happens.
    pub(super) action: Action,
    /// The comment.
    pub(super) comment: Option<Box<str>>,
    /// The name of a condition or an action that is not understood.
    pub(super) unknown: Option<Box<str>>,
}

/// The senders of packets.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Source {
    /// Those in this range, from the first address to the last.
    In(Address, Address),
    /// All others.
    NotIn(Address, Address),
    /// Those in this set.
    InSet(String),
    /// All others.
    NotInSet(String),
    /// The node itself.
    Node,
}

/// What happens with a packet.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub(super) enum Action {
    /// Nothing that matters here.
    #[default]
    Nothing,
    /// The rules of a chain follow.
    To(String),
    /// A map says which chain follows.
    Map(String),
    /// It gets this endpoint.
    Gets(SocketAddr),
    /// It is dropped or answered by an error.
    Refused,
}

/// What a register holds.
enum Holds {
    Bytes(Vec<u8>),
    /// Of the packet: base, offset, length.
    Part(u32, u32, u32),
    Masked(u32, u32, Vec<u8>),
    Protocol,
    AddressType {
        of_source: bool,
    },
}

impl Statement {
    /// Reads a rule of a table of IPv4 or IPv6.
    pub(super) fn read(rule: &Rule, v4: bool) -> Self {
        let mut statement = Self { handle: rule.handle, ..Self::default() };
        let mut registers: HashMap<u32, Holds> = HashMap::new();
        for expression in &rule.expressions {
            if let Err(unknown) = statement.add(expression, v4, &mut registers) {
                statement.unknown.get_or_insert(unknown.into_boxed_str());
            }
        }
        statement
    }

    fn add(
        &mut self,
        expression: &Expression,
        v4: bool,
        registers: &mut HashMap<u32, Holds>,
    ) -> Result<(), String> {
        let holds = match expression {
            Expression::Value { register, bytes } => (*register, Holds::Bytes(bytes.clone())),
            Expression::Payload { register, base, offset, length } => {
                (*register, Holds::Part(*base, *offset, *length))
            }
            Expression::Meta { register, key: L4PROTO } => (*register, Holds::Protocol),
            Expression::Fib { register, result: ADDRESS_TYPE, flags } => {
                (*register, Holds::AddressType { of_source: flags & OF_SOURCE != 0 })
            }
            Expression::Mask { register, mask } => match registers.remove(register) {
                Some(Holds::Part(base, offset, _)) => (*register, Holds::Masked(base, offset, mask.clone())),
                // Of a packet's mark, say: compared it is unknown.
                _ => return Ok(()),
            },
            Expression::Compare { register, equal, bytes } => {
                return self.compare(registers.get(register), *equal, bytes, v4);
            }
            Expression::Lookup { register, set, inverted } => {
                let Some(Holds::Part(NETWORK, offset, _)) = registers.get(register) else {
                    return Err(format!("lookup in {set}"));
                };
                if field(*offset, v4) != Some(Field::Source) {
                    return Err(format!("lookup in {set}"));
                }
                let set = set.clone();
                return self.from(if *inverted { Source::NotInSet(set) } else { Source::InSet(set) });
            }
            Expression::Destination { address, port } => {
                let bytes = |register: &Option<u32>| match registers.get(&(*register)?) {
                    Some(Holds::Bytes(bytes)) => Some(bytes.as_slice()),
                    _ => None,
                };
                let endpoint = bytes(address).and_then(address_of).zip(bytes(port).and_then(port_of));
                let (address, port) = endpoint.ok_or("dnat without address and port")?;
                self.action = Action::Gets(SocketAddr::new(address.into(), port.get()));
                return Ok(());
            }
            Expression::Verdict(verdict) => return self.end(verdict),
            Expression::Decide { map } => {
                self.action = Action::Map(map.clone());
                return Ok(());
            }
            Expression::Reject => {
                self.action = Action::Refused;
                return Ok(());
            }
            Expression::Match(extension) => return self.matches(extension),
            Expression::Target(extension) => return self.target(extension, v4),
            Expression::Nothing => return Ok(()),
            Expression::Meta { key, .. } => return Err(format!("meta {key}")),
            Expression::Fib { .. } => return Err("fib".to_owned()),
            Expression::Other(name) => return Err(name.clone()),
        };
        registers.insert(holds.0, holds.1);
        Ok(())
    }

    fn end(&mut self, verdict: &Verdict) -> Result<(), String> {
        self.action = match verdict {
            Verdict::To(chain) => Action::To(chain.clone()),
            Verdict::Drop => Action::Refused,
            Verdict::Accept | Verdict::Return => Action::Nothing,
            Verdict::Other(code) => return Err(format!("verdict {code}")),
        };
        Ok(())
    }

    /// A rule that asks for more than one kind of sender is not kube-proxy's.
    fn from(&mut self, source: Source) -> Result<(), String> {
        match self.source.replace(source) {
            Some(_) => Err("two conditions on the sender".to_owned()),
            None => Ok(()),
        }
    }

    fn compare(
        &mut self,
        holds: Option<&Holds>,
        equal: Option<bool>,
        bytes: &[u8],
        v4: bool,
    ) -> Result<(), String> {
        let unknown = || "cmp".to_owned();
        let equal = equal.ok_or_else(unknown)?;
        let part = match holds.ok_or_else(unknown)? {
            Holds::Protocol if equal => {
                self.protocol = bytes.first().copied();
                return Ok(());
            }
            Holds::AddressType { of_source } if equal && bytes.first() == Some(&LOCAL) => {
                if *of_source {
                    return self.from(Source::Node);
                }
                self.at_node = true;
                return Ok(());
            }
            Holds::Part(base, offset, length) => (*base, *offset, length.saturating_mul(8)),
            Holds::Masked(base, offset, mask) => {
                let ones = mask.iter().map(|byte| byte.count_ones()).sum::<u32>();
                let leading: u32 = leading_ones(mask);
                if ones != leading {
                    return Err(unknown());
                }
                (*base, *offset, ones)
            }
            _ => return Err(unknown()),
        };
        match part {
            (TRANSPORT, 2, 16) if equal => self.port = port_of(bytes),
            (NETWORK, offset, length) => match field(offset, v4) {
                Some(Field::Protocol) if equal => self.protocol = bytes.first().copied(),
                Some(Field::Destination) if equal && length == bits(v4) => {
                    self.destination = address_of(bytes);
                }
                Some(Field::Source) => {
                    let (first, last) = prefix(bytes, length, v4).ok_or_else(unknown)?;
                    return self.from(if equal {
                        Source::In(first, last)
                    } else {
                        Source::NotIn(first, last)
                    });
                }
                _ => return Err(unknown()),
            },
            _ => return Err(unknown()),
        }
        Ok(())
    }

    /// Extensions of iptables, whose parameters are structures of the kernel's (`include/uapi/linux/netfilter/xt_*.h`) in
    /// the byte order of the machine.
    fn matches(&mut self, extension: &Extension) -> Result<(), String> {
        let Extension { name, revision, info } = extension;
        let unknown = || format!("match {name}");
        match name.as_str() {
            "comment" => {
                let end = info.iter().position(|byte| *byte == 0).unwrap_or(info.len());
                self.comment = std::str::from_utf8(&info[..end]).ok().map(Into::into);
            }
            // Source ports, then destination ports: the first and the last. Of SCTP the other way round.
            "tcp" | "udp" | "sctp" => {
                let at = if name == "sctp" { 0 } else { 4 };
                let (first, last) =
                    (half(info, at).ok_or_else(unknown)?, half(info, at + 2).ok_or_else(unknown)?);
                match (first, last) {
                    (0, u16::MAX) => {}
                    (first, last) if first == last => self.port = Some(Port::new(first)),
                    _ => return Err(unknown()),
                }
            }
            "addrtype" if *revision == 1 => {
                let (source, destination) =
                    (half(info, 0).ok_or_else(unknown)?, half(info, 2).ok_or_else(unknown)?);
                let inverted = word(info, 4).ok_or_else(unknown)? & 3 != 0;
                match (source, destination, inverted) {
                    (LOCAL_BIT, 0, false) => return self.from(Source::Node),
                    (0, LOCAL_BIT, false) => self.at_node = true,
                    _ => return Err(unknown()),
                }
            }
            "statistic" => {}
            "recent" => {
                let seconds = word(info, 0).ok_or_else(unknown)?;
                if info.get(8).is_some_and(|does| does & RECENT_CHECK != 0) {
                    self.seconds = Some(seconds.into());
                }
            }
            _ => return Err(unknown()),
        }
        Ok(())
    }

    fn target(&mut self, extension: &Extension, v4: bool) -> Result<(), String> {
        let Extension { name, revision, info } = extension;
        self.action = match name.as_str() {
            "DNAT" => {
                // `struct nf_nat_ipv4_multi_range_compat`, or `nf_nat_range` and `nf_nat_range2`: flags, addresses, ports.
                let (address, port) = if *revision == 0 { (8, 16) } else { (4, 36) };
                let size = if v4 { 4 } else { 16 };
                let address = info.get(address..address + size).and_then(address_of);
                let port = info.get(port..port + 2).and_then(port_of);
                let (address, port) = address.zip(port).ok_or("target DNAT")?;
                Action::Gets(SocketAddr::new(address.into(), port.get()))
            }
            "REJECT" => Action::Refused,
            "MARK" | "MASQUERADE" => Action::Nothing,
            _ => return Err(format!("target {name}")),
        };
        Ok(())
    }
}

#[derive(PartialEq, Eq)]
enum Field {
    Source,
    Destination,
    Protocol,
}

/// What is at this byte of the network header.
const fn field(offset: u32, v4: bool) -> Option<Field> {
    match (v4, offset) {
        (true, 12) | (false, 8) => Some(Field::Source),
        (true, 16) | (false, 24) => Some(Field::Destination),
        (true, 9) | (false, 6) => Some(Field::Protocol),
        _ => None,
    }
}

const fn bits(v4: bool) -> u32 {
    if v4 { 32 } else { 128 }
}

fn leading_ones(mask: &[u8]) -> u32 {
    let whole = mask.iter().take_while(|byte| **byte == u8::MAX).count();
    let rest = mask.get(whole).map_or(0, |byte| byte.leading_ones());
    u32::try_from(whole).unwrap_or_default() * 8 + rest
}

/// All addresses that begin with these bits.
fn prefix(bytes: &[u8], length: u32, v4: bool) -> Option<(Address, Address)> {
    let (size, offset) = if v4 { (4, 96) } else { (16, 0) };
    let mut padded = bytes.to_vec();
    padded.resize(size, 0);
    (length <= bits(v4))
        .then(|| address_of(&padded))
        .flatten()
        .map(|first| Ranges::prefix(first, offset + length))
}

/// The address in four or sixteen bytes.
pub(super) fn address_of(bytes: &[u8]) -> Option<Address> {
    let v4 = <[u8; 4]>::try_from(bytes).map(std::net::IpAddr::from);
    let v6 = || <[u8; 16]>::try_from(bytes).map(std::net::IpAddr::from);
    v4.or_else(|_| v6()).ok().map(Address::from)
}

/// The port in two bytes, which may be padded.
pub(super) fn port_of(bytes: &[u8]) -> Option<Port> {
    bytes.first_chunk().map(|bytes| Port::new(u16::from_be_bytes(*bytes)))
}

fn half(info: &[u8], at: usize) -> Option<u16> {
    info.get(at..at + 2)?.try_into().ok().map(u16::from_ne_bytes)
}

fn word(info: &[u8], at: usize) -> Option<u32> {
    info.get(at..at + 4)?.try_into().ok().map(u32::from_ne_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(expressions: Vec<Expression>) -> Statement {
        Statement::read(&Rule { handle: 1, expressions }, true)
    }

    fn extension(name: &str, revision: u32, info: &[u8]) -> Extension {
        Extension { name: name.to_owned(), revision, info: info.to_vec() }
    }

    /// `struct xt_tcp` and the like, as iptables before 1.8.8 writes ports.
    #[test]
    fn ports_of_older_iptables_are_read() {
        let halves = |all: [u16; 4]| all.map(u16::to_ne_bytes).concat();
        let all = (0, u16::MAX);
        for (name, ports, port, is_known) in [
            ("tcp", halves([all.0, all.1, 80, 80]), Some(80), true),
            ("udp", halves([all.0, all.1, 53, 53]), Some(53), true),
            ("sctp", halves([9, 9, all.0, all.1]), Some(9), true),
            ("tcp", halves([all.0, all.1, all.0, all.1]), None, true),
            ("tcp", halves([all.0, all.1, 80, 81]), None, false),
            ("tcp", vec![0; 5], None, false),
        ] {
            let statement = of(vec![Expression::Match(extension(name, 0, &ports))]);
            let read = (statement.port, statement.unknown.is_none());
            assert_eq!(read, (port.map(Port::new), is_known), "{name} {ports:?}");
        }
    }

    /// `struct nf_nat_ipv4_multi_range_compat`, as older iptables writes the endpoint.
    #[test]
    fn endpoints_of_older_iptables_are_read() {
        let address = [10, 244, 1, 5];
        let port = 8080_u16.to_be_bytes();
        let info = [&[1, 0, 0, 0][..], &[3, 0, 0, 0], &address, &address, &port, &port].concat();
        let statement = of(vec![Expression::Target(extension("DNAT", 0, &info))]);
        assert_eq!(statement.action, Action::Gets("10.244.1.5:8080".parse().expect("an address")));
        let cut = of(vec![Expression::Target(extension("DNAT", 0, &info[..14]))]);
        assert_eq!((cut.action, cut.unknown.as_deref()), (Action::Nothing, Some("target DNAT")));
    }

    #[test]
    fn what_kube_proxy_does_not_say_is_unknown() {
        let part = |register| Expression::Payload { register, base: 2, offset: 2, length: 2 };
        let compare = |register, equal| Expression::Compare { register, equal, bytes: vec![0, 80] };
        assert_eq!(of(vec![part(8), compare(8, Some(true))]).port, Some(Port::new(80)));
        for expressions in [
            vec![part(8), compare(8, None)],
            vec![part(8), compare(8, Some(false))],
            vec![compare(8, Some(true))],
            vec![part(8), compare(9, Some(true))],
            vec![Expression::Match(extension("addrtype", 1, &[4, 0, 0, 0, 1, 0, 0, 0]))],
            vec![Expression::Match(extension("quota", 0, &[]))],
            vec![Expression::Other("limit".to_owned())],
            vec![Expression::Destination { address: Some(8), port: None }],
        ] {
            let statement = of(expressions.clone());
            assert!(statement.unknown.is_some(), "{expressions:?}: {statement:?}");
        }
    }
}
