//! Installs the plan in the kernel, in an order in which no program ever sees a half-written Service.
//!
//! | folder | concept |
//! |---|---|
//! | `tables` | the pinned maps: their content, free slots, and how a change is written |
//! | `programs` | loading the kernel programs, and attaching the socket programs |
//! | `node` | the node's kernel: uplinks, routes, namespaces, mounts, reserved ports |
//! | `followers` | background work: stale sockets, clients' addresses, idle flows |
//!
//! `apply` combines the maps and their followers into [`Dataplane`]; `pins` admits one agent; `beside` tells who else
//! translates addresses here; `cleanup` removes everything; `takeover` removes what kube-proxy left (`taking_over` in the
//! agent, by itself), `upgrade` converts tables of another version, `shadow` compares what it serves with what we do, and `drain` gives the node back to it; `bpf` has
//! the few raw `bpf(2)` calls that aya lacks, `raw_map` maps of any layout, `btf` reads types.

mod apply;
mod beside;
mod bpf;
mod btf;
mod cleanup;
mod drain;
mod error;
mod followers;
#[doc(hidden)]
pub mod fuzzing;
mod node;
mod pins;
mod programs;
mod raw_map;
mod shadow;
mod tables;
mod takeover;
mod taking_over;
mod upgrade;

pub use apply::{Dataplane, abandon_growth, commit_growth};
pub use beside::Beside;
pub use cleanup::cleanup;
pub use drain::Drain;
pub use error::Error;
pub use followers::{
    flows::{FlowState, ListedFlow, Unanswered, list as list_flows, unanswered},
    namespaces::PassedNamespace,
};
pub use node::{
    host::{
        NO_CGROUP, above_bpffs, bpffs_mounted, check_bpffs, ensure_bpffs, mount_missing, mounted_cgroup,
        node_cgroup, sees_namespaces,
    },
    interfaces::{
        Ahead, Changes as NetworkChanges, Device, Devices, Hooked, Interfaces, Wanted, Way, Why, has_tcx,
        hooked, leaves_by, meaning_of_order, not_forwarded, pod_devices, would_choose,
    },
    kube_proxy::{KubeProxyTable, Running, not_supported, running},
    pods::{PodNamespaces, addresses_in, listening_in, namespace_of_pod, namespaces_by_host_name},
    reserved_ports::{ReservedPorts, can_reserve as can_reserve_ports, release as release_ports},
    system::{
        cannot_restrict, has_fib_source, has_set_retval, in_namespace, ip_of, memory_for_tables,
        monotonic_nanoseconds, netns_cookie, netns_cookie_of, uptime,
    },
};
pub use pins::{Pins, lock};
#[cfg(test)]
pub(crate) use programs::load::make_beside;
pub use programs::{
    attach::{attach, attached_programs, is_attached, is_pinned},
    hooks::{HOOKS, Hook},
    load::{
        load, load_all, load_beside, load_packet_programs, loaded_packet_programs, verified_instructions,
    },
    neighbours::Neighbour,
    options::{FlowOptions, Options, SocketOptions},
    successors::{hand_on, share_ports},
};
pub use shadow::{Comparison, Difference};
pub use tables::{
    bypass::Bypass,
    capacity::Capacity,
    exposed::{Exposed, Families, exposed_endpoints},
    flow_table::FlowTable,
    installed::{Installed, InstalledPorts},
    listeners::Listening,
    mapped::Mapped,
    maps::{MAPS, MapSpec, abi_dir},
    names::from_table as identity,
    not_installed::{FullTable, NotInstalled},
    pinned::Tables,
    resize::Resized,
    shared::SharedTables,
};
pub use takeover::{Found, Left, Takeover, release as release_netfilter};
pub use taking_over::{Progress, TakingOver};
pub use upgrade::{Upgrade, load_or_upgrade};
