//! A datapath's paths, capacity, and the constants of its programs.

use std::path::PathBuf;

use crate::{
    dataplane::{node::system::has_netns_cookies, tables::capacity::Capacity},
    ports::PortRange,
    timeouts::Timeouts,
};

/// Where a datapath lives.
#[derive(Clone, Debug)]
pub struct Options {
    /// Directory on a BPF file system for maps and links.
    pub pin_dir: PathBuf,
    /// The cgroup whose processes the socket programs serve: the node's root.
    pub cgroup_root: PathBuf,
    /// Sizes of tables that are made new; those that are there keep theirs.
    pub capacity: Capacity,
    /// Whether the programs log every decision (`aya_log`), for debugging. Switched off, the verifier removes it.
    pub program_log: bool,
    /// Whose sockets the socket programs serve.
    pub sockets: SocketOptions,
    /// How the programs treat north-south flows.
    pub flows: FlowOptions,
}

impl Options {
    /// Whether anybody may be passed by: those are whose packets are served, at the devices of pods. The kernel must tell
    /// network namespaces apart for it (5.14).
    pub(crate) fn passes_by(&self) -> bool {
        self.flows.of_pods && !self.sockets.host_only && has_netns_cookies()
    }
}

#[cfg(test)]
impl Options {
    /// Of tables in a directory of a test's own, on which nothing is attached.
    pub(crate) fn unattached(pin_dir: &std::path::Path, capacity: Capacity) -> Self {
        Self {
            pin_dir: pin_dir.to_owned(),
            cgroup_root: "/nowhere".into(),
            capacity,
            program_log: false,
            sockets: SocketOptions::default(),
            flows: FlowOptions::default(),
        }
    }
}

/// Whose sockets the socket programs serve. Whom they do not is served at the devices of pods.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct SocketOptions {
    /// Whether those of the node's own network namespace alone.
    pub host_only: bool,
    /// Whether namespaces are passed by that redirect or route traffic to Services by themselves, or are within a pod.
    pub detects_bypass: bool,
}

/// Options for flows, of the programs and the sweep.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct FlowOptions {
    /// The source ports that flows are masqueraded with.
    pub source_ports: PortRange,
    /// How long they stay.
    pub timeouts: Timeouts,
    /// How many there may be room for in the end; 0 if the table is never to grow.
    pub limit: u32,
    /// Whether new connections to endpoints on other nodes stay off the fast path.
    pub through_stack: bool,
    /// Whether packets of pods may begin one.
    pub of_pods: bool,
}
