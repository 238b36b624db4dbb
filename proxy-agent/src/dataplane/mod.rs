//! Makes the kernel equal to the plan, in an order in which no reader ever sees a half-made Service.
//!
//! | folder | concept |
//! |---|---|
//! | `tables` | the pinned maps: what is in them, what is free, and how a change gets there |
//! | `programs` | loading the kernel programs on them, and attaching those of sockets |
//! | `node` | what the agent asks its kernel: devices, routes, namespaces, mounts, reserved ports |
//! | `followers` | what goes on beside: stale sockets, clients' addresses, idle flows |
//!
//! `apply` puts the tables and their followers together, as [`Dataplane`]; `lock` lets one agent in; `cleanup` takes everything
//! away; `bpf` has the few raw `bpf(2)` calls that aya does not have.

mod apply;
mod bpf;
mod cleanup;
mod error;
mod followers;
mod lock;
mod node;
mod programs;
mod tables;

pub use apply::Dataplane;
pub use cleanup::cleanup;
pub use error::Error;
pub use followers::flows::{FlowState, ListedFlow, Unanswered, list as list_flows, unanswered};
pub use lock::lock;
pub use node::{
    host::{bpffs_mounted, check_bpffs, ensure_bpffs, mount_missing, node_cgroup, sees_namespaces},
    interfaces::{
        Ahead, Changes as NetworkChanges, Device, Hooked, Interfaces, Wanted, Way, Why, has_tcx, hooked,
        leaves_by, meaning_of_order, not_forwarded, would_choose,
    },
    reserved_ports::{ReservedPorts, can_reserve as can_reserve_ports, release as release_ports},
    system::{cannot_restrict, has_fib_source, has_set_retval, netns_cookie, netns_cookie_of, uptime},
};
pub use programs::{
    attach::{attach, attached_programs, is_attached, is_pinned},
    hooks::{HOOKS, Hook},
    load::{load, load_all, load_packet_programs, verified_instructions},
    options::{Capacity, FlowOptions, Options},
};
pub use tables::{
    bypass::Bypass,
    exposed::{Exposed, Families, exposed_endpoints},
    flow_table::FlowTable,
    installed::Installed,
    mapped::Mapped,
    maps::{MAPS, MapSpec, abi_dir},
    names::from_table as identity,
    not_installed::{FullTable, NotInstalled},
    pinned::Tables,
};
