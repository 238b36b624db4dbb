//! Makes the kernel equal to the plan, in an order in which no reader ever sees a half-made Service.
//!
//! | file | concept |
//! |---|---|
//! | `install` | [`Dataplane`]: applies [`crate::plan::Changes`]; the order of writes and why it is safe |
//! | `publish` | its first steps: endpoints, and the one store that publishes them |
//! | `adopt` | what a restarted agent finds in the tables |
//! | `recall` | the tables read back as a plan |
//! | `refused` | what there was no room for |
//! | `slab`, `ids` | which slots, indexes and endpoint ids are free |
//! | `exposed` | what of it clients outside can ask for |
//! | `flows` | how long flows of packets stay, and taking away those that are idle |
//! | `grace` | giving things back only when no program can still be reading them |
//! | `ranges` | who may use LoadBalancer IPs that are not for everyone |
//! | `clients` | by which addresses the sockets of a network namespace are judged |
//! | `reserved_ports` | the source ports of masqueraded packets and NodePorts, kept from the node's own sockets |
//! | `stale` | closing the connected UDP sockets of endpoints that are gone |
//! | `interfaces` | the devices that packets from outside come through, and our programs there |
//! | `tables` | the pinned maps, typed; `mapped`: those that are memory |
//! | `load` | creating maps and programs, pinning, attaching, replacing programs behind their links |
//! | `names` | Service port identities as the tables spell them |
//! | `namespaces` | finding the machine's network namespaces |
//! | `netlink` | asking the kernel about devices, routes, sockets and filters |
//! | `host` | the node's own cgroup2 and bpffs, told from a container's |
//! | `system` | namespace cookies, helpers |
//! | `bypass` | marking the agent's own sockets, which the hooks leave alone |
//! | `bpf` | the few raw `bpf(2)` calls that aya does not have |

mod adopt;
mod bitmaps;
mod bpf;
mod bypass;
mod clients;
mod exposed;
mod flows;
mod grace;
mod host;
mod ids;
mod install;
mod interfaces;
mod load;
mod mapped;
mod names;
mod namespaces;
mod netlink;
#[cfg(test)]
mod properties;
mod publish;
mod ranges;
mod recall;
mod refused;
mod reserved_ports;
mod slab;
mod stale;
mod system;
mod tables;

pub use bpf::attached_programs;
pub use bypass::Bypass;
pub use exposed::{Exposed, exposed_endpoints};
pub use flows::{
    FlowOptions, FlowState, FlowTable, ListedFlow, Timeouts, Unanswered, list as list_flows, unanswered,
};
pub use host::{bpffs_mounted, check_bpffs, ensure_bpffs, mount_missing, node_cgroup, sees_namespaces};
pub use install::{Dataplane, Installed};
pub use interfaces::{
    Ahead, Changes as NetworkChanges, Device, Families, Hooked, Interfaces, Wanted, Way, Why, has_tcx,
    hooked, leaves_by, meaning_of_order, not_forwarded, would_choose,
};
pub use load::{
    Capacity, HOOKS, Hook, Options, attach, cleanup, is_attached, is_pinned, load, load_all,
    load_packet_programs, lock, verified_instructions,
};
pub use mapped::Mapped;
pub use names::from_table as identity;
pub use reserved_ports::{
    BadRange, PortRange, PortSet, ReservedPorts, can_reserve as can_reserve_ports, release as release_ports,
};
pub use system::{cannot_restrict, has_fib_source, has_set_retval, netns_cookie, netns_cookie_of, uptime};
pub use tables::{MAPS, MapSpec, Tables, abi_dir};

/// What can go wrong between the agent and the kernel. Each names the call or the path.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A system call on `path` failed.
    #[error("{call} {path}: {error}")]
    System {
        /// The call.
        call: &'static str,
        /// What it was about.
        path: String,
        /// The kernel's answer. No `source`: it is told already.
        error: std::io::Error,
    },
    /// A pinned map is not what this version expects.
    #[error(
        "the pinned map {path} has {found}, this version of sidestep needs {expected}: \
         it was made by another build; stop that one and run `sidestep cleanup`"
    )]
    Layout {
        /// The pin.
        path: String,
        /// What it is.
        found: String,
        /// What it should be.
        expected: String,
    },
    /// There are no pinned tables.
    #[error("no tables under {0}: `sidestep run` has not been started here (or another --pin-dir was used)")]
    NoTables(String),
    /// Loading the object failed.
    #[error("loading the kernel programs: {0}")]
    Load(#[from] aya::EbpfError),
    /// Loading or attaching one program failed.
    #[error("{action} program {program}: {source}")]
    Program {
        /// `load` or `attach`.
        action: &'static str,
        /// Its name.
        program: &'static str,
        /// Why, with the end of the verifier's log.
        source: aya::programs::ProgramError,
    },
    /// A map operation failed.
    #[error("map {map}: {source}")]
    Map {
        /// Its name.
        map: &'static str,
        /// Why.
        source: aya::maps::MapError,
    },
    /// Something that must exist does not.
    #[error("{0}")]
    Missing(String),
}

impl Error {
    fn system(call: &'static str, path: impl AsRef<std::path::Path>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.as_ref().display().to_string();
        move |error| Self::System { call, path, error }
    }

    fn map(map: &'static str) -> impl FnOnce(aya::maps::MapError) -> Self {
        move |source| Self::Map { map, source }
    }
}
