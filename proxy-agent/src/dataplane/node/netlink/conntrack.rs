//! Removes entries from the kernel's conntrack table (`NETLINK_NETFILTER`, subsystem ctnetlink). The kernel's side is
//! `ctnetlink_del_conntrack` in `net/netfilter/nf_conntrack_netlink.c`.
//!
//! It builds its one message by hand: no crate of the netlink family has it.

use std::io;

use netlink_packet_core::{
    NLM_F_ACK, NetlinkDeserializable, NetlinkHeader, NetlinkPayload, NetlinkSerializable,
};
use netlink_sys::protocols::NETLINK_NETFILTER;
use proxy_common::Tuple;

use super::conversation::Conversation;
use crate::dataplane::Error;

/// `NFNL_SUBSYS_CTNETLINK`, `IPCTNL_MSG_CT_DELETE`.
const DELETE: u16 = 1 << 8 | 2;
/// `NLA_F_NESTED`.
const NESTED: u16 = 1 << 15;
// `enum ctattr_type`, `ctattr_tuple`, `ctattr_ip`, `ctattr_l4proto`.
const TUPLE_ORIGINAL: u16 = 1;
const TUPLE_IP: u16 = 1;
const TUPLE_PROTO: u16 = 2;
const IP_V4: [u16; 2] = [1, 2];
const IP_V6: [u16; 2] = [3, 4];
const PROTO_NUMBER: u16 = 1;
const PROTO_PORTS: [u16; 2] = [2, 3];

/// A ctnetlink socket.
#[derive(Debug)]
pub(crate) struct Conntrack {
    conversation: Conversation<Nothing>,
}

impl Conntrack {
    /// A socket in the namespace of the calling thread; an error where the kernel has no netfilter.
    pub(crate) fn new() -> Result<Self, Error> {
        Ok(Self { conversation: Conversation::new(NETLINK_NETFILTER)? })
    }

    /// Deletes the entry of the connection whose first packet was this one. `false` if there is none.
    pub(crate) fn delete(&self, tuple: &Tuple) -> Result<bool, Error> {
        let question = Delete(message(tuple));
        match self.conversation.ask(("IPCTNL_MSG_CT_DELETE", "(netlink)"), question, NLM_F_ACK, drop) {
            Ok(()) => Ok(true),
            Err(Error::System { error, .. }) if is_absent(&error) => Ok(false),
            Err(error) => Err(error),
        }
    }
}

/// No such entry exists, or the kernel has no conntrack.
fn is_absent(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOENT | libc::EINVAL | libc::EOPNOTSUPP))
}

/// The bytes after the netlink header.
fn message(tuple: &Tuple) -> Vec<u8> {
    let Tuple { source, destination, source_port, destination_port, protocol, padding: _ } = tuple;
    let family = if source.is_v4() { libc::AF_INET } else { libc::AF_INET6 };
    let mut bytes = vec![u8::try_from(family).unwrap_or_default(), 0, 0, 0];
    let mut ip = Vec::new();
    for (v4, v6, address) in [(IP_V4[0], IP_V6[0], source), (IP_V4[1], IP_V6[1], destination)] {
        let [.., a, b, c, d] = address.bytes;
        if address.is_v4() {
            attribute(&mut ip, v4, &[a, b, c, d]);
        } else {
            attribute(&mut ip, v6, &address.bytes);
        }
    }
    let mut proto = Vec::new();
    attribute(&mut proto, PROTO_NUMBER, &[*protocol]);
    for (kind, port) in PROTO_PORTS.into_iter().zip([source_port, destination_port]) {
        attribute(&mut proto, kind, &port.get().to_be_bytes());
    }
    let mut nested = Vec::new();
    attribute(&mut nested, TUPLE_IP | NESTED, &ip);
    attribute(&mut nested, TUPLE_PROTO | NESTED, &proto);
    attribute(&mut bytes, TUPLE_ORIGINAL | NESTED, &nested);
    bytes
}

/// Adds a netlink attribute (RFC 3549, 2.3.2: length, type, value, padded to four bytes).
fn attribute(bytes: &mut Vec<u8>, kind: u16, value: &[u8]) {
    let length = u16::try_from(4 + value.len()).unwrap_or(u16::MAX);
    bytes.extend(length.to_ne_bytes());
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(value);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
}

#[derive(Debug)]
struct Delete(Vec<u8>);

impl NetlinkSerializable for Delete {
    fn message_type(&self) -> u16 {
        DELETE
    }
    fn buffer_len(&self) -> usize {
        self.0.len()
    }
    fn serialize(&self, buffer: &mut [u8]) {
        buffer.copy_from_slice(&self.0);
    }
}

impl From<Delete> for NetlinkPayload<Delete> {
    fn from(message: Delete) -> Self {
        Self::InnerMessage(message)
    }
}

/// An answer beyond "done" and errors, of which there is none.
#[derive(Debug)]
struct Nothing;

impl NetlinkDeserializable for Nothing {
    type Error = io::Error;
    fn deserialize(_: &NetlinkHeader, _: &[u8]) -> Result<Self, io::Error> {
        Ok(Self)
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use proxy_common::{Address, Port};
    use sidestep_tests::skip;

    use super::*;

    fn side(address: &str, port: u16) -> (Address, Port) {
        (address.parse::<IpAddr>().expect("an address").into(), Port::new(port))
    }

    #[test]
    fn a_tuple_is_written_as_the_kernel_reads_it() {
        let tuple = Tuple::new(6, side("192.0.2.100", 0x1234), side("10.244.2.5", 8080));
        let bytes = message(&tuple);
        assert_eq!(
            bytes,
            [
                2, 0, 0, 0, // AF_INET, version, resource
                52, 0, 1, 0x80, // the original tuple
                20, 0, 1, 0x80, 8, 0, 1, 0, 192, 0, 2, 100, 8, 0, 2, 0, 10, 244, 2, 5, // addresses
                28, 0, 2, 0x80, 5, 0, 1, 0, 6, 0, 0, 0, // the protocol
                6, 0, 2, 0, 0x12, 0x34, 0, 0, 6, 0, 3, 0, 0x1f, 0x90, 0, 0, // ports
            ]
        );
        let v6 = Tuple::new(17, side("2001:db8::1", 1), side("fd00::2", 2));
        assert_eq!((message(&v6)[0], message(&v6).len()), (10, 4 + 4 + 4 + 40 + 28));
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
