//! The kernel programs by name, and where those of sockets are attached.

/// One kernel program and where it is attached.
#[derive(Debug)]
pub struct Hook {
    /// The program's name, and its link's.
    pub name: &'static str,
    /// `enum bpf_attach_type`.
    pub attach_type: AttachType,
}

/// The values of `enum bpf_attach_type` that are used here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum AttachType {
    Inet4Connect = 10,
    Inet6Connect = 11,
    Udp4Sendmsg = 14,
    Udp6Sendmsg = 15,
    Udp4Recvmsg = 19,
    Udp6Recvmsg = 20,
    Inet4Getpeername = 29,
    Inet6Getpeername = 30,
    InetSockRelease = 34,
}

/// The hooks in the order in which they are attached: what undoes a translation stands before what makes
/// one, so that no program ever sees a peer that it did not ask for.
pub const HOOKS: [Hook; 9] = [
    Hook { name: "release", attach_type: AttachType::InetSockRelease },
    Hook { name: "recvmsg4", attach_type: AttachType::Udp4Recvmsg },
    Hook { name: "recvmsg6", attach_type: AttachType::Udp6Recvmsg },
    Hook { name: "getpeername4", attach_type: AttachType::Inet4Getpeername },
    Hook { name: "getpeername6", attach_type: AttachType::Inet6Getpeername },
    Hook { name: "sendmsg4", attach_type: AttachType::Udp4Sendmsg },
    Hook { name: "sendmsg6", attach_type: AttachType::Udp6Sendmsg },
    Hook { name: "connect4", attach_type: AttachType::Inet4Connect },
    Hook { name: "connect6", attach_type: AttachType::Inet6Connect },
];

/// The programs of packets, for both directions and both kinds of devices.
pub(crate) const PACKET_PROGRAMS: [&str; 4] = ["egress", "egress_l3", "ingress", "ingress_l3"];

/// All programs: those of sockets, then those of packets.
pub(super) fn names() -> impl Iterator<Item = &'static str> {
    HOOKS.iter().map(|hook| hook.name).chain(PACKET_PROGRAMS)
}
