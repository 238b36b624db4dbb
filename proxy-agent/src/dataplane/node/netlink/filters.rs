//! Our TC filters at a device, in a `clsact` qdisc, for kernels without TCX (before 6.6).
//!
//! We find ours by their handle and verify them by their name, and never touch other filters. One message replaces an
//! existing filter, so no packet passes without one.
//!
//! Ours go first, at ingress and at egress: a filter before them could end the chain, and filters after them at
//! egress see packets as they are on the wire. The lowest priority number runs first, and all filters of one number
//! are of one kind and protocol. So ours have number 1 unless others than `bpf` filters for all packets have it, then
//! the one after; among such filters the one that came last is the first (`cls_bpf_change`).

use std::{
    io,
    os::fd::{AsFd as _, AsRawFd as _},
};

use aya::programs::ProgramFd;
use netlink_packet_core::{NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL};
use netlink_packet_route::{
    RouteNetlinkMessage,
    tc::{TcAttribute, TcBpfFlags, TcFilterBpf, TcFilterBpfOption, TcHandle, TcHeader, TcMessage, TcOption},
};
use netlink_sys::protocols::NETLINK_ROUTE;

use super::conversation::Conversation;
use crate::dataplane::Error;

/// The handle of our filters.
const HANDLE: u32 = 0x51de;
/// `ETH_P_ALL`, in network byte order: a filter sees every packet.
const ALL_PACKETS: u32 = 0x0003_u16.to_be() as u32;
const CLSACT: &str = "clsact";

/// On which side of a device.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Direction {
    Egress,
    Ingress,
}

impl Direction {
    /// As in names of pins and filters.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Ingress => "ingress",
            Self::Egress => "egress",
        }
    }

    const fn parent(self) -> TcHandle {
        let minor = match self {
            Self::Ingress => TcHandle::MIN_INGRESS,
            Self::Egress => TcHandle::MIN_EGRESS,
        };
        TcHandle { major: TcHandle::CLSACT.major, minor }
    }

    fn filter_name(self) -> String {
        format!("sidestep-{}", self.name())
    }
}

/// Makes, finds and removes our filters.
#[derive(Debug)]
pub(crate) struct Filters {
    conversation: Conversation<RouteNetlinkMessage>,
}

impl Filters {
    /// In the namespace of the calling thread.
    pub(crate) fn new() -> Result<Self, Error> {
        Ok(Self { conversation: Conversation::new(NETLINK_ROUTE)? })
    }

    /// The devices that have a `clsact` qdisc.
    pub(crate) fn devices(&self) -> Result<Vec<u32>, Error> {
        let question = RouteNetlinkMessage::GetQueueDiscipline(TcMessage::default());
        let answers = self.conversation.list(("RTM_GETQDISC", "(netlink)"), &question, NLM_F_DUMP)?;
        let device = |answer| match answer {
            RouteNetlinkMessage::NewQueueDiscipline(qdisc) if kind(&qdisc) == Some(CLSACT) => {
                u32::try_from(qdisc.header.index).ok()
            }
            _ => None,
        };
        Ok(answers.into_iter().filter_map(device).collect())
    }

    /// Makes sure that the device has a `clsact` qdisc; returns whether it had none.
    pub(crate) fn make_qdisc(&self, device: u32) -> Result<bool, Error> {
        let question = RouteNetlinkMessage::NewQueueDiscipline(qdisc(device));
        let flags = NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL;
        match self.conversation.ask(("RTM_NEWQDISC", &about(device)), question, flags, drop) {
            Ok(()) => Ok(true),
            Err(Error::System { error, .. }) if is(&error, libc::EEXIST) => {
                if self.devices()?.contains(&device) {
                    return Ok(false);
                }
                Err(Error::Missing(format!(
                    "device {device} has an `ingress` qdisc, which excludes `clsact`: replace it (`tc qdisc \
                     replace dev {device} clsact`)"
                )))
            }
            Err(error) => Err(error),
        }
    }

    /// Removes the `clsact` qdisc of a device, if no filter is in it.
    pub(crate) fn remove_qdisc(&self, device: u32) -> Result<bool, Error> {
        for direction in [Direction::Ingress, Direction::Egress] {
            if !self.all(device, direction)?.is_empty() {
                return Ok(false);
            }
        }
        let question = RouteNetlinkMessage::DelQueueDiscipline(qdisc(device));
        gone(self.conversation.ask(("RTM_DELQDISC", &about(device)), question, NLM_F_ACK, drop))
    }

    /// Sets the program of our filter, and makes the filter if it is missing.
    pub(crate) fn put(&self, device: u32, direction: Direction, program: &ProgramFd) -> Result<(), Error> {
        let there = self.all(device, direction)?;
        let priority = free_priority(&there).ok_or_else(|| {
            Error::Missing(format!(
                "device {device} has no free filter priority for our program at {}",
                direction.name()
            ))
        })?;
        let mut filter = filter(device, direction, priority);
        let descriptor = program.as_fd().as_raw_fd().cast_unsigned();
        filter.attributes.push(TcAttribute::Options(vec![
            TcOption::Bpf(TcFilterBpfOption::ProgFd(descriptor)),
            TcOption::Bpf(TcFilterBpfOption::ProgName(direction.filter_name())),
            TcOption::Bpf(TcFilterBpfOption::Flags(TcBpfFlags::DirectAction)),
        ]));
        // Without NLM_F_EXCL: the filter with this handle is replaced.
        let question = RouteNetlinkMessage::NewTrafficFilter(filter);
        let flags = NLM_F_ACK | NLM_F_CREATE;
        self.conversation.ask(("RTM_NEWTFILTER", &about(device)), question, flags, drop)?;
        // Another version of ours had another place. A packet may have seen both, and the second changes nothing.
        let elsewhere = there.iter().filter(|found| is_ours(found)).map(self::priority);
        elsewhere
            .filter(|former| *former != priority)
            .try_for_each(|former| self.remove_at(device, direction, former).map(drop))
    }

    /// Removes our filter; `false` if there is none.
    pub(crate) fn remove(&self, device: u32, direction: Direction) -> Result<bool, Error> {
        let there = self.all(device, direction)?;
        let ours = there.iter().filter(|found| is_ours(found)).map(priority);
        ours.map(|priority| self.remove_at(device, direction, priority))
            .try_fold(false, |any, removed| Ok(removed? || any))
    }

    fn remove_at(&self, device: u32, direction: Direction, priority: u16) -> Result<bool, Error> {
        let question = RouteNetlinkMessage::DelTrafficFilter(filter(device, direction, priority));
        gone(self.conversation.ask(("RTM_DELTFILTER", &about(device)), question, NLM_F_ACK, drop))
    }

    /// Whether our filter is there.
    pub(crate) fn has(&self, device: u32, direction: Direction) -> Result<bool, Error> {
        Ok(self.all(device, direction)?.iter().any(is_ours))
    }

    /// All filters on one side of a device.
    fn all(&self, device: u32, direction: Direction) -> Result<Vec<TcMessage>, Error> {
        let mut question = TcMessage::with_index(device.cast_signed());
        question.header.parent = direction.parent();
        let question = RouteNetlinkMessage::GetTrafficFilter(question);
        let answers = match self.conversation.list(("RTM_GETTFILTER", &about(device)), &question, NLM_F_DUMP)
        {
            // No such qdisc, or no such device any more.
            Err(Error::System { error, .. })
                if [libc::EINVAL, libc::ENODEV, libc::ENOENT].iter().any(|code| is(&error, *code)) =>
            {
                Vec::new()
            }
            answers => answers?,
        };
        let filter = |answer| match answer {
            RouteNetlinkMessage::NewTrafficFilter(filter) => Some(filter),
            _ => None,
        };
        // A chain is told of too, without a handle.
        Ok(answers
            .into_iter()
            .filter_map(filter)
            .filter(|filter| u32::from(filter.header.handle) != 0)
            .collect())
    }
}

fn qdisc(device: u32) -> TcMessage {
    let mut message = TcMessage::with_index(device.cast_signed());
    message.header.parent = TcHandle::CLSACT;
    message.header.handle = TcHandle { major: TcHandle::CLSACT.major, minor: 0 };
    message.attributes.push(TcAttribute::Kind(CLSACT.to_owned()));
    message
}

/// Our filter, without a program.
fn filter(device: u32, direction: Direction, priority: u16) -> TcMessage {
    let header = TcHeader {
        index: device.cast_signed(),
        handle: HANDLE.into(),
        parent: direction.parent(),
        info: u32::from(priority) << 16 | ALL_PACKETS,
        ..TcHeader::default()
    };
    TcMessage::from_parts(header, vec![TcAttribute::Kind(TcFilterBpf::KIND.to_owned())])
}

fn kind(message: &TcMessage) -> Option<&str> {
    message.attributes.iter().find_map(|attribute| match attribute {
        TcAttribute::Kind(kind) => Some(kind.as_str()),
        _ => None,
    })
}

fn priority(found: &TcMessage) -> u16 {
    u16::try_from(found.header.info >> 16).unwrap_or_default()
}

pub(super) fn is_ours(found: &TcMessage) -> bool {
    u32::from(found.header.handle) == HANDLE
        && kind(found) == Some(TcFilterBpf::KIND)
        && found.attributes.iter().any(|attribute| match attribute {
            TcAttribute::Options(options) => options.iter().any(|option| {
                matches!(option, TcOption::Bpf(TcFilterBpfOption::ProgName(name)) if name.starts_with("sidestep-"))
            }),
            _ => false,
        })
}

/// The first priority that ours can have beside the filters that are there.
pub(super) fn free_priority(there: &[TcMessage]) -> Option<u16> {
    let is_neighbour = |found: &TcMessage| {
        is_ours(found)
            || kind(found) == Some(TcFilterBpf::KIND)
                && found.header.info & 0xffff == ALL_PACKETS
                && u32::from(found.header.handle) != HANDLE
    };
    (1..=u16::MAX).find(|number| there.iter().filter(|found| priority(found) == *number).all(is_neighbour))
}

fn about(device: u32) -> String {
    format!("device {device}")
}

fn is(error: &io::Error, code: i32) -> bool {
    error.raw_os_error() == Some(code)
}

/// Treats an object that is already gone as removed.
fn gone(result: Result<(), Error>) -> Result<bool, Error> {
    match result {
        Ok(()) => Ok(true),
        Err(Error::System { error, .. })
            if [libc::EINVAL, libc::ENOENT, libc::ENODEV].iter().any(|code| is(&error, *code)) =>
        {
            Ok(false)
        }
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A filter of this kind, protocol and name at this place.
    fn at(priority: u16, handle: u32, kind: &str, protocol: u32, name: &str) -> TcMessage {
        let mut found = filter(2, Direction::Egress, priority);
        found.header.handle = handle.into();
        found.header.info = u32::from(priority) << 16 | protocol;
        let name = TcOption::Bpf(TcFilterBpfOption::ProgName(name.to_owned()));
        found.attributes = vec![TcAttribute::Kind(kind.to_owned()), TcAttribute::Options(vec![name])];
        found
    }

    #[test]
    fn ours_has_the_first_priority_that_its_kind_can_have() {
        const IPV4: u32 = 0x0800_u16.to_be() as u32;
        let ours = |priority| at(priority, HANDLE, "bpf", ALL_PACKETS, "sidestep-egress");
        let bpf = |priority| at(priority, 1, "bpf", ALL_PACKETS, "other");
        for (there, expected) in [
            (vec![], 1),
            (vec![bpf(7)], 1),
            (vec![ours(1), bpf(1)], 1),
            // Where an earlier version put it.
            (vec![ours(0xfffe)], 1),
            (vec![at(1, 1, "u32", ALL_PACKETS, "")], 2),
            (vec![at(1, 1, "bpf", IPV4, "other"), at(2, 1, "flower", ALL_PACKETS, "")], 3),
            // Whoever has our handle keeps it.
            (vec![at(1, HANDLE, "bpf", ALL_PACKETS, "other")], 2),
        ] {
            assert_eq!(free_priority(&there), Some(expected), "{there:?}");
        }
    }
}
