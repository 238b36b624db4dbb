//! The kernel's conntrack table (`NETLINK_NETFILTER`, subsystem ctnetlink): removes entries, lists those that netfilter
//! translates, and makes some that keep a port from it. The kernel's side is `net/netfilter/nf_conntrack_netlink.c`.

use std::{io, net::IpAddr};

use netlink_packet_core::{NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL};
use netlink_sys::protocols::NETLINK_NETFILTER;
use proxy_common::{Address, FrontendKey, Port, Protocol, Tuple};

use super::{
    conversation::Conversation,
    message::{Attributes, Message, Write as _},
};
use crate::dataplane::Error;

/// `NFNL_SUBSYS_CTNETLINK`, `IPCTNL_MSG_CT_NEW`.
const NEW: u16 = 1 << 8;
/// `IPCTNL_MSG_CT_GET`.
const GET: u16 = 1 << 8 | 1;
/// `IPCTNL_MSG_CT_DELETE`.
const DELETE: u16 = 1 << 8 | 2;
// `enum ctattr_type`, `ctattr_tuple`, `ctattr_ip`, `ctattr_l4proto`, `ctattr_protoinfo`, `ctattr_protoinfo_tcp`.
const TUPLE_ORIGINAL: u16 = 1;
const TUPLE_REPLY: u16 = 2;
const STATUS: u16 = 3;
const STATE: u16 = 4;
const TIMEOUT: u16 = 7;
const MARK: u16 = 8;
const ZONE: u16 = 18;
const MARK_MASK: u16 = 21;
const STATUS_MASK: u16 = 26;
const TUPLE_IP: u16 = 1;
const TUPLE_PROTO: u16 = 2;
const IP_V4: [u16; 2] = [1, 2];
const IP_V6: [u16; 2] = [3, 4];
const PROTO_NUMBER: u16 = 1;
const PROTO_PORTS: [u16; 2] = [2, 3];
const STATE_TCP: u16 = 1;
const TCP_STATE: u16 = 1;
// `enum ip_conntrack_status`.
/// Seen in both directions, and not the first to go when the table is full.
const CONFIRMED: u32 = 1 << 1 | 1 << 2 | 1 << 3;
const SOURCE_TRANSLATED: u32 = 1 << 4;
const DESTINATION_TRANSLATED: u32 = 1 << 5;
/// The mark of entries that only hold a port: "sidestep" in a few digits.
const HOLDS_PORT: u32 = 0x51de_57e9;
/// `TCP_CONNTRACK_ESTABLISHED`.
const ESTABLISHED: u8 = 3;
/// `TCP_CONNTRACK_TIME_WAIT`, `TCP_CONNTRACK_CLOSE`.
const OVER: [u8; 2] = [7, 8];

/// A ctnetlink socket.
#[derive(Debug)]
pub(crate) struct Conntrack {
    conversation: Conversation<Message>,
}

/// A connection whose destination netfilter translates.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Translated {
    /// The client, and what it asked.
    pub(crate) asked: Tuple,
    /// What answers, and to whom: the client, or the node as which it is masqueraded.
    pub(crate) answered: Tuple,
    /// Whether the client is masqueraded.
    pub(crate) masqueraded: bool,
    /// Whether it has ended (TCP's `TIME_WAIT` and `CLOSE`), and conntrack waits until it forgets it.
    pub(crate) over: bool,
    /// In how many seconds conntrack forgets it, if no packet comes.
    pub(crate) seconds: u32,
}

impl Translated {
    /// The keys of FRONTENDS under which the Service that was asked may be. It may be none, but, say, a host port.
    pub(crate) const fn frontends(&self) -> [FrontendKey; 2] {
        let Tuple { destination, destination_port, protocol, .. } = self.asked;
        [
            FrontendKey::new(destination, destination_port, protocol),
            FrontendKey::node_port(&destination, destination_port, protocol),
        ]
    }
}

impl Conntrack {
    /// A socket in the namespace of the calling thread; an error where the kernel has no netfilter.
    pub(crate) fn new() -> Result<Self, Error> {
        Ok(Self { conversation: Conversation::new(NETLINK_NETFILTER)? })
    }

    /// Deletes the entry of the connection whose first packet was this one. `false` if there is none.
    pub(crate) fn delete(&self, tuple: &Tuple) -> Result<bool, Error> {
        match self.conversation.ask(("IPCTNL_MSG_CT_DELETE", "(netlink)"), delete(tuple), NLM_F_ACK, drop) {
            Ok(()) => Ok(true),
            Err(Error::System { error, .. }) if is_absent(&error) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Makes an entry of an established connection, which keeps netfilter from giving its source port to another one
    /// towards the same destination. `false` if there is an entry with one of its tuples.
    pub(crate) fn reserve(&self, tuple: &Tuple, seconds: u32) -> Result<bool, Error> {
        let flags = NLM_F_CREATE | NLM_F_EXCL | NLM_F_ACK;
        match self.conversation.ask(("IPCTNL_MSG_CT_NEW", "(netlink)"), reserve(tuple, seconds), flags, drop)
        {
            Err(Error::System { error, .. }) if error.raw_os_error() == Some(libc::EEXIST) => Ok(false),
            asked => asked.map(|()| true),
        }
    }

    /// The entries made by [`Self::reserve`] that are there.
    pub(crate) fn reserved(&self) -> Result<Vec<Tuple>, Error> {
        let mut found = Vec::new();
        let question = Message::new(GET, 0)
            .attribute(MARK, &HOLDS_PORT.to_be_bytes())
            .attribute(MARK_MASK, &u32::MAX.to_be_bytes());
        let each = |answer: Message| {
            let entry = answer.attributes();
            if entry.number(MARK).map(u32::from_be_bytes) == Some(HOLDS_PORT) {
                found.extend(entry.nested(TUPLE_ORIGINAL).and_then(tuple));
            }
        };
        self.dump(question, each)?;
        Ok(found)
    }

    /// Lists entries; none where the kernel has no conntrack.
    fn dump(&self, question: Message, each: impl FnMut(Message)) -> Result<(), Error> {
        match self.conversation.ask(("IPCTNL_MSG_CT_GET", "(netlink)"), question, NLM_F_DUMP, each) {
            Err(Error::System { error, .. }) if is_absent(&error) => Ok(()),
            asked => asked,
        }
    }

    /// The connections whose destination netfilter translates, of both families; none where the kernel has no
    /// conntrack.
    pub(crate) fn translated(&self) -> Result<Vec<Translated>, Error> {
        let mut found = Vec::new();
        // The kernel passes over others itself from 5.16 on.
        let status = DESTINATION_TRANSLATED.to_be_bytes();
        let question = Message::new(GET, 0).attribute(STATUS, &status).attribute(STATUS_MASK, &status);
        self.dump(question, |answer| found.extend(translated(answer.attributes())))?;
        Ok(found)
    }
}

/// No such entry exists, or the kernel has no conntrack.
fn is_absent(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOENT | libc::EINVAL | libc::EOPNOTSUPP))
}

fn delete(tuple: &Tuple) -> Message {
    Message::new(DELETE, family(tuple)).nested(TUPLE_ORIGINAL, &written(tuple))
}

fn reserve(tuple: &Tuple, seconds: u32) -> Message {
    let message = Message::new(NEW, family(tuple))
        .nested(TUPLE_ORIGINAL, &written(tuple))
        .nested(TUPLE_REPLY, &written(&tuple.reversed()))
        .attribute(STATUS, &CONFIRMED.to_be_bytes())
        .attribute(TIMEOUT, &seconds.to_be_bytes())
        .attribute(MARK, &HOLDS_PORT.to_be_bytes());
    if tuple.protocol != Protocol::Tcp as u8 {
        return message;
    }
    let state = Vec::new().attribute(TCP_STATE, &[ESTABLISHED]);
    message.nested(STATE, &Vec::new().nested(STATE_TCP, &state))
}

fn family(tuple: &Tuple) -> u8 {
    let family = if tuple.source.is_v4() { libc::AF_INET } else { libc::AF_INET6 };
    u8::try_from(family).unwrap_or_default()
}

/// The attributes of a tuple.
fn written(tuple: &Tuple) -> Vec<u8> {
    let Tuple { source, destination, source_port, destination_port, protocol, padding: _ } = tuple;
    let ip = [(0, source), (1, destination)].into_iter().fold(Vec::new(), |list, (side, address)| {
        let [.., a, b, c, d] = address.bytes;
        if address.is_v4() {
            list.attribute(IP_V4[side], &[a, b, c, d])
        } else {
            list.attribute(IP_V6[side], &address.bytes)
        }
    });
    let ports = PROTO_PORTS.into_iter().zip([source_port, destination_port]);
    let proto = ports.fold(Vec::new().attribute(PROTO_NUMBER, &[*protocol]), |list, (kind, port)| {
        list.attribute(kind, &port.get().to_be_bytes())
    });
    Vec::new().nested(TUPLE_IP, &ip).nested(TUPLE_PROTO, &proto)
}

/// An entry of the list; `None` if its destination is not translated, its protocol has no ports, or it belongs to a
/// conntrack zone, in which another program tracks its own connections.
pub(super) fn translated(entry: Attributes<'_>) -> Option<Translated> {
    let status = u32::from_be_bytes(entry.number(STATUS)?);
    if status & DESTINATION_TRANSLATED == 0 || entry.get(ZONE).is_some() {
        return None;
    }
    let state = || entry.nested(STATE)?.nested(STATE_TCP)?.number::<1>(TCP_STATE);
    Some(Translated {
        asked: tuple(entry.nested(TUPLE_ORIGINAL)?)?,
        answered: tuple(entry.nested(TUPLE_REPLY)?)?,
        masqueraded: status & SOURCE_TRANSLATED != 0,
        over: state().is_some_and(|[state]| OVER.contains(&state)),
        seconds: entry.number(TIMEOUT).map_or(0, u32::from_be_bytes),
    })
}

/// What is read of a tuple after it was written.
pub(super) fn read_again(written_first: &Tuple) -> Option<Tuple> {
    tuple(Attributes(&written(written_first)))
}

fn tuple(list: Attributes<'_>) -> Option<Tuple> {
    let (ip, proto) = (list.nested(TUPLE_IP)?, list.nested(TUPLE_PROTO)?);
    let [protocol] = proto.number(PROTO_NUMBER)?;
    let side = |side: usize| -> Option<(Address, Port)> {
        let v4 = || ip.number::<4>(IP_V4[side]).map(IpAddr::from);
        let address = v4().or_else(|| ip.number::<16>(IP_V6[side]).map(IpAddr::from))?;
        Some((address.into(), Port::new(u16::from_be_bytes(proto.number(PROTO_PORTS[side])?))))
    };
    Some(Tuple::new(protocol, side(0)?, side(1)?))
}

#[cfg(test)]
mod tests {
    use sidestep_tests::skip;

    use super::*;

    fn side(address: &str, port: u16) -> (Address, Port) {
        (address.parse::<IpAddr>().expect("an address").into(), Port::new(port))
    }

    #[test]
    fn a_tuple_is_written_as_the_kernel_reads_it() {
        let tuple = Tuple::new(6, side("192.0.2.100", 0x1234), side("10.244.2.5", 8080));
        let message = delete(&tuple);
        assert_eq!(
            message.body,
            [
                2, 0, 0, 0, // AF_INET, version, resource
                52, 0, 1, 0x80, // the original tuple
                20, 0, 1, 0x80, 8, 0, 1, 0, 192, 0, 2, 100, 8, 0, 2, 0, 10, 244, 2, 5, // addresses
                28, 0, 2, 0x80, 5, 0, 1, 0, 6, 0, 0, 0, // the protocol
                6, 0, 2, 0, 0x12, 0x34, 0, 0, 6, 0, 3, 0, 0x1f, 0x90, 0, 0, // ports
            ]
        );
        let v6 = Tuple::new(17, side("2001:db8::1", 1), side("fd00::2", 2));
        assert_eq!((delete(&v6).family(), delete(&v6).body.len()), (10, 4 + 4 + 4 + 40 + 28));
    }

    #[test]
    fn an_entry_is_read_with_both_directions_and_its_state() {
        let asked = Tuple::new(6, side("192.0.2.100", 40_000), side("192.0.2.10", 30_080));
        let answered = Tuple::new(6, side("10.244.2.5", 8080), side("192.0.2.10", 50_000));
        let of = |tuple: &Tuple| delete(tuple).attributes().get(TUPLE_ORIGINAL).expect("a tuple").to_vec();
        let entry = |status: u32, state: u8| {
            let state = Vec::new().nested(STATE_TCP, &Vec::new().attribute(TCP_STATE, &[state]));
            Message::new(GET, 2)
                .nested(TUPLE_ORIGINAL, &of(&asked))
                .nested(TUPLE_REPLY, &of(&answered))
                .attribute(STATUS, &status.to_be_bytes())
                .attribute(TIMEOUT, &86_400_u32.to_be_bytes())
                .nested(STATE, &state)
        };
        let read = |status, state| translated(entry(status, state).attributes());
        let found = Translated { asked, answered, masqueraded: true, over: false, seconds: 86_400 };
        assert_eq!(read(0x30, 3), Some(found));
        assert_eq!(read(0x20, 7), Some(Translated { masqueraded: false, over: true, ..found }));
        assert_eq!(read(0x10, 3), None, "its source alone is translated");
        let of_a_zone = entry(0x30, 3).attribute(ZONE, &[0, 1]);
        assert_eq!(translated(of_a_zone.attributes()), None);
    }

    #[test]
    fn what_is_not_there_cannot_be_deleted() {
        if let Some(reason) = skip::missing() {
            skip!("{reason}");
        }
        let Ok(conntrack) = Conntrack::new() else { return };
        let tuple = Tuple::new(6, side("192.0.2.100", 1), side("192.0.2.200", 2));
        assert!(!conntrack.delete(&tuple).expect("an answer"));
    }
}
