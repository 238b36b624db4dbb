//! The wires of a network namespace: devices whose other end is in another one. The kernel numbers other namespaces for
//! each namespace anew (`IFLA_LINK_NETNSID`, `RTM_GETNSID`).

use std::{
    fs::File,
    os::fd::{AsRawFd, RawFd},
};

use netlink_packet_core::{NLM_F_ACK, NLM_F_DUMP};
use netlink_packet_route::{
    RouteNetlinkMessage,
    link::{LinkAttribute, LinkExtentMask, LinkMessage},
    nsid::{NsidAttribute, NsidMessage},
};
use netlink_sys::protocols::NETLINK_ROUTE;

use super::{
    conversation::Conversation,
    network::{self, Kind},
};
use crate::dataplane::Error;

/// A device with an end elsewhere.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Wire {
    /// Its number here.
    pub(crate) device: u32,
    /// That of its other end, there.
    pub(crate) other_end: u32,
    /// The namespace of its other end, by its number here.
    pub(crate) leads_to: i32,
}

/// A `NETLINK_ROUTE` socket.
#[derive(Debug)]
pub(crate) struct Wires {
    conversation: Conversation<RouteNetlinkMessage>,
}

impl AsRawFd for Wires {
    fn as_raw_fd(&self) -> RawFd {
        self.conversation.as_raw_fd()
    }
}

impl Wires {
    /// A socket in the namespace of the calling thread.
    pub(crate) fn new() -> Result<Self, Error> {
        Ok(Self { conversation: Conversation::new(NETLINK_ROUTE)? })
    }

    /// The wires of this namespace.
    pub(crate) fn list(&self) -> Result<Vec<Wire>, Error> {
        let mut question = LinkMessage::default();
        question.attributes.push(LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats]));
        let question = RouteNetlinkMessage::GetLink(question);
        self.conversation.collect(
            ("RTM_GETLINK", "(netlink)"),
            &question,
            NLM_F_DUMP,
            |answer| match answer {
                RouteNetlinkMessage::NewLink(link) => wire(link),
                _ => None,
            },
        )
    }

    /// The number that another namespace has here; nothing if no device leads there.
    pub(crate) fn number_of(&self, namespace: &File) -> Result<Option<i32>, Error> {
        let mut question = NsidMessage::default();
        question.attributes.push(NsidAttribute::Fd(namespace.as_raw_fd().cast_unsigned()));
        let mut number = None;
        let each = |answer| {
            if let RouteNetlinkMessage::NewNsId(answer) = answer {
                number = answer.attributes.iter().find_map(|attribute| match attribute {
                    // -1 for a namespace that has none.
                    NsidAttribute::Id(number) => Some(*number).filter(|number| *number >= 0),
                    _ => None,
                });
            }
        };
        let question = RouteNetlinkMessage::GetNsId(question);
        self.conversation.ask(("RTM_GETNSID", "(netlink)"), question, NLM_F_ACK, each)?;
        Ok(number)
    }
}

/// A device of the kinds that pods have, if its other end is elsewhere.
pub(super) fn wire(message: LinkMessage) -> Option<Wire> {
    let (mut leads_to, mut other_end) = (None, None);
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::LinkNetNsId(number) => leads_to = Some(*number),
            LinkAttribute::Link(device) => other_end = Some(*device),
            _ => {}
        }
    }
    let link = network::link(message)?;
    let is_wire = match &link.kind {
        Some(Kind::Veth) => true,
        Some(Kind::Other(kind)) => kind == "netkit",
        _ => false,
    };
    let wire = Wire { device: link.index, other_end: other_end?, leads_to: leads_to? };
    is_wire.then_some(wire)
}

#[cfg(test)]
mod tests {
    use netlink_packet_route::link::LinkInfo;

    use super::*;

    #[test]
    fn a_wire_has_its_other_end_elsewhere() {
        let device = |kind: Kind, leads_to: Option<i32>| {
            let mut message = LinkMessage::default();
            message.header.index = 2;
            message.attributes.push(LinkAttribute::IfName("eth0".to_owned()));
            message.attributes.push(LinkAttribute::LinkInfo(vec![LinkInfo::Kind(kind)]));
            message.attributes.push(LinkAttribute::Link(7));
            message.attributes.extend(leads_to.map(LinkAttribute::LinkNetNsId));
            wire(message)
        };
        let there = Some(Wire { device: 2, other_end: 7, leads_to: 0 });
        assert_eq!(device(Kind::Veth, Some(0)), there);
        assert_eq!(device(Kind::Other("netkit".to_owned()), Some(0)), there);
        assert_eq!(device(Kind::Veth, None), None, "both ends are here");
        assert_eq!(device(Kind::MacVlan, Some(0)), None, "its packets pass no device of the node's");
    }

    #[test]
    fn a_namespace_without_a_device_that_leads_there_has_no_number() {
        let wires = Wires::new().expect("a socket");
        let own = File::open("/proc/thread-self/ns/net").expect("procfs");
        assert_eq!(wires.number_of(&own).expect("an answer"), None);
    }
}
