//! TC filters of ours at a device, for kernels without TCX (before 6.6): a `clsact` qdisc holds them.
//!
//! Ours are found by priority and handle, and told from others' by their name; whatever else is at the device is never
//! touched. A filter that is there already is replaced within one message, so that no packet passes by.

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

use super::{super::Error, conversation::Conversation};

/// The handle of our filters.
const HANDLE: u32 = 0x51de;
/// `ETH_P_ALL`, in network byte order: a filter sees every packet.
const ALL_PACKETS: u32 = 0x0003_u16.to_be() as u32;
const CLSACT: &str = "clsact";

/// On which side of a device.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(in super::super) enum Direction {
    Egress,
    Ingress,
}

impl Direction {
    /// As in names of pins and filters.
    pub(in super::super) const fn name(self) -> &'static str {
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

    /// The lowest priority number runs first. The kernel gives numbers from 49152 down to those who name none: ours is
    /// the first at ingress and the last at egress.
    const fn priority(self) -> u16 {
        match self {
            Self::Ingress => 1,
            Self::Egress => 0xfffe,
        }
    }

    fn filter_name(self) -> String {
        format!("sidestep-{}", self.name())
    }
}

/// Makes, finds and removes our filters.
#[derive(Debug)]
pub(in super::super) struct Filters {
    conversation: Conversation<RouteNetlinkMessage>,
}

impl Filters {
    /// In the namespace of the calling thread.
    pub(in super::super) fn new() -> Result<Self, Error> {
        Ok(Self { conversation: Conversation::new(NETLINK_ROUTE)? })
    }

    /// The devices that have a `clsact` qdisc.
    pub(in super::super) fn devices(&self) -> Result<Vec<u32>, Error> {
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

    /// Makes sure that the device has a `clsact` qdisc, and says whether it had none.
    pub(in super::super) fn make_qdisc(&self, device: u32) -> Result<bool, Error> {
        let question = RouteNetlinkMessage::NewQueueDiscipline(qdisc(device));
        let flags = NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL;
        match self.conversation.ask(("RTM_NEWQDISC", &about(device)), question, flags, drop) {
            Ok(()) => Ok(true),
            Err(Error::System { error, .. }) if is(&error, libc::EEXIST) => {
                if self.devices()?.contains(&device) {
                    return Ok(false);
                }
                Err(Error::Missing(format!(
                    "device {device} has an `ingress` qdisc, which leaves no room for `clsact`: replace it by one (`tc qdisc`)"
                )))
            }
            Err(error) => Err(error),
        }
    }

    /// Removes the `clsact` qdisc of a device, if no filter is in it.
    pub(in super::super) fn remove_qdisc(&self, device: u32) -> Result<bool, Error> {
        for direction in [Direction::Ingress, Direction::Egress] {
            if !self.all(device, direction)?.is_empty() {
                return Ok(false);
            }
        }
        let question = RouteNetlinkMessage::DelQueueDiscipline(qdisc(device));
        gone(self.conversation.ask(("RTM_DELQDISC", &about(device)), question, NLM_F_ACK, drop))
    }

    /// Puts a program into our filter, made new where it is missing.
    pub(in super::super) fn put(
        &self,
        device: u32,
        direction: Direction,
        program: &ProgramFd,
    ) -> Result<(), Error> {
        if self.stranger(device, direction)? {
            return Err(Error::Missing(format!(
                "device {device} has a filter of somebody else's with priority {} and handle {HANDLE:#x} at {}",
                direction.priority(),
                direction.name(),
            )));
        }
        let mut filter = filter(device, direction);
        let descriptor = program.as_fd().as_raw_fd().cast_unsigned();
        filter.attributes.push(TcAttribute::Options(vec![
            TcOption::Bpf(TcFilterBpfOption::ProgFd(descriptor)),
            TcOption::Bpf(TcFilterBpfOption::ProgName(direction.filter_name())),
            TcOption::Bpf(TcFilterBpfOption::Flags(TcBpfFlags::DirectAction)),
        ]));
        // Without NLM_F_EXCL: the filter with this handle is replaced.
        let question = RouteNetlinkMessage::NewTrafficFilter(filter);
        let flags = NLM_F_ACK | NLM_F_CREATE;
        self.conversation.ask(("RTM_NEWTFILTER", &about(device)), question, flags, drop)
    }

    /// Removes our filter; `false` if there is none.
    pub(in super::super) fn remove(&self, device: u32, direction: Direction) -> Result<bool, Error> {
        if !self.has(device, direction)? {
            return Ok(false);
        }
        let question = RouteNetlinkMessage::DelTrafficFilter(filter(device, direction));
        gone(self.conversation.ask(("RTM_DELTFILTER", &about(device)), question, NLM_F_ACK, drop))
    }

    /// Whether our filter is there.
    pub(in super::super) fn has(&self, device: u32, direction: Direction) -> Result<bool, Error> {
        Ok(self
            .all(device, direction)?
            .iter()
            .any(|found| is_place_of_ours(found, direction) && is_named_ours(found)))
    }

    /// Whether somebody else's filter is where ours would be.
    fn stranger(&self, device: u32, direction: Direction) -> Result<bool, Error> {
        Ok(self
            .all(device, direction)?
            .iter()
            .any(|found| is_place_of_ours(found, direction) && !is_named_ours(found)))
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
fn filter(device: u32, direction: Direction) -> TcMessage {
    let header = TcHeader {
        index: device.cast_signed(),
        handle: HANDLE.into(),
        parent: direction.parent(),
        info: u32::from(direction.priority()) << 16 | ALL_PACKETS,
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

fn is_place_of_ours(found: &TcMessage, direction: Direction) -> bool {
    u32::from(found.header.handle) == HANDLE && found.header.info >> 16 == u32::from(direction.priority())
}

fn is_named_ours(found: &TcMessage) -> bool {
    kind(found) == Some(TcFilterBpf::KIND)
        && found.attributes.iter().any(|attribute| match attribute {
            TcAttribute::Options(options) => options.iter().any(|option| {
                matches!(option, TcOption::Bpf(TcFilterBpfOption::ProgName(name)) if name.starts_with("sidestep-"))
            }),
            _ => false,
        })
}

fn about(device: u32) -> String {
    format!("device {device}")
}

fn is(error: &io::Error, code: i32) -> bool {
    error.raw_os_error() == Some(code)
}

/// What was to go and is gone already is as well.
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
