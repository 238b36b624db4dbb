//! Makes the kernel equal to the plan, in an order in which no reader ever sees a half-made Service.
//!
//! | folder | concept |
//! |---|---|
//! | `tables` | the pinned maps: what is in them, what is free, and how a change gets there |
//! | `programs` | loading the kernel programs on them, and attaching those of sockets |
//! | `node` | what the agent asks its kernel: devices, routes, namespaces, mounts, reserved ports |
//! | `followers` | what goes on beside: stale sockets, clients' addresses, idle flows |

mod error;
mod followers;
mod node;
mod programs;
mod tables;

pub use error::Error;
pub use followers::flows::{
    FlowOptions, FlowState, FlowTable, ListedFlow, Unanswered, list as list_flows, unanswered,
};
pub use node::{
    host::{bpffs_mounted, check_bpffs, ensure_bpffs, mount_missing, node_cgroup, sees_namespaces},
    interfaces::{
        Ahead, Changes as NetworkChanges, Device, Families, Hooked, Interfaces, Wanted, Way, Why, has_tcx,
        hooked, leaves_by, meaning_of_order, not_forwarded, would_choose,
    },
    reserved_ports::{ReservedPorts, can_reserve as can_reserve_ports, release as release_ports},
    system::{cannot_restrict, has_fib_source, has_set_retval, netns_cookie, netns_cookie_of, uptime},
};
pub use programs::load::{
    Capacity, HOOKS, Hook, Options, attach, cleanup, is_attached, is_pinned, load, load_all,
    load_packet_programs, lock, verified_instructions,
};
pub use tables::{
    bpf::attached_programs,
    bypass::Bypass,
    exposed::{Exposed, exposed_endpoints},
    install::{Dataplane, Installed},
    mapped::Mapped,
    names::from_table as identity,
    pinned::{MAPS, MapSpec, Tables, abi_dir},
};
