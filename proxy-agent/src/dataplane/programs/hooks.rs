//! The kernel programs by name, and the cgroup hooks of the socket programs.

use aya_obj::generated::bpf_attach_type;

/// One kernel program and where it is attached.
#[derive(Debug)]
pub struct Hook {
    /// The program's name, and its link's.
    pub name: &'static str,
    /// Where it is attached.
    pub attach_type: bpf_attach_type,
}

/// The hooks in the order of attaching: those that undo a translation before those that make one, so that no process
/// ever sees an endpoint as its peer.
pub const HOOKS: [Hook; 9] = [
    Hook { name: "release", attach_type: bpf_attach_type::BPF_CGROUP_INET_SOCK_RELEASE },
    Hook { name: "recvmsg4", attach_type: bpf_attach_type::BPF_CGROUP_UDP4_RECVMSG },
    Hook { name: "recvmsg6", attach_type: bpf_attach_type::BPF_CGROUP_UDP6_RECVMSG },
    Hook { name: "getpeername4", attach_type: bpf_attach_type::BPF_CGROUP_INET4_GETPEERNAME },
    Hook { name: "getpeername6", attach_type: bpf_attach_type::BPF_CGROUP_INET6_GETPEERNAME },
    Hook { name: "sendmsg4", attach_type: bpf_attach_type::BPF_CGROUP_UDP4_SENDMSG },
    Hook { name: "sendmsg6", attach_type: bpf_attach_type::BPF_CGROUP_UDP6_SENDMSG },
    Hook { name: "connect4", attach_type: bpf_attach_type::BPF_CGROUP_INET4_CONNECT },
    Hook { name: "connect6", attach_type: bpf_attach_type::BPF_CGROUP_INET6_CONNECT },
];

/// The programs of packets, for both directions and all kinds of devices.
pub(crate) const PACKET_PROGRAMS: [&str; 5] = ["egress", "egress_l3", "egress_pod", "ingress", "ingress_l3"];

/// All programs: the socket programs, then the packet programs.
pub(super) fn names() -> impl Iterator<Item = &'static str> {
    HOOKS.iter().map(|hook| hook.name).chain(PACKET_PROGRAMS)
}
