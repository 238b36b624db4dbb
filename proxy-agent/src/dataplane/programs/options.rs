//! A datapath's paths, capacity, and the constants of its programs.

use std::path::PathBuf;

use proxy_common::connection::buckets::{REGION, SLOTS};

use crate::{ports::PortRange, timeouts::Timeouts};

/// How much the tables hold. Tables that are there already keep their size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capacity {
    /// Service ports in all families.
    pub services: u32,
    /// Addresses that lead to them, each with its port.
    pub frontends: u32,
    /// Endpoints, including those that an update replaces until it ends.
    pub endpoints: u32,
    /// North-south connections and UDP flows.
    pub flows: u32,
}

impl Capacity {
    /// Regions of FLOWS, which it consists of.
    pub(super) fn regions(&self) -> u32 {
        // As many buckets as a record id can name.
        self.flows.div_ceil(REGION * SLOTS).clamp(1, (1 << 24) / REGION)
    }

    /// Buckets of FLOWS.
    pub(super) fn buckets(&self) -> u32 {
        self.regions() * REGION
    }
}

impl Default for Capacity {
    fn default() -> Self {
        Self { services: 1 << 17, frontends: 1 << 18, endpoints: 1 << 18, flows: 1 << 16 }
    }
}

/// Where a datapath lives.
#[derive(Clone, Debug)]
pub struct Options {
    /// Directory on a BPF file system for maps and links.
    pub pin_dir: PathBuf,
    /// The cgroup whose processes the socket programs serve: the node's root.
    pub cgroup_root: PathBuf,
    /// Sizes for tables that are made new.
    pub capacity: Capacity,
    /// Whether the programs log every decision (`aya_log`), for debugging. Switched off, the verifier removes it.
    pub program_log: bool,
    /// How the programs treat north-south flows.
    pub flows: FlowOptions,
}

/// Options for flows, of the programs and the sweep.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct FlowOptions {
    /// The source ports that flows are masqueraded with.
    pub source_ports: PortRange,
    /// How long they stay.
    pub timeouts: Timeouts,
    /// Whether new connections to endpoints on other nodes stay off the fast path.
    pub through_stack: bool,
}
