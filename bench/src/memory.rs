//! Memory in bytes: of the maps, as the kernel accounts for them, and of a translated socket.

use std::{collections::BTreeSet, fmt, os::fd::AsFd as _, path::Path};

use anyhow::{Context as _, Result, ensure};
use aya::{
    maps::{MapData, MapInfo},
    programs::loaded_programs,
};
use proxy_agent::dataplane::{HOOKS, MAPS};
use serde::Serialize;

use crate::{
    datapath::Datapath,
    goals::Goal,
    programs,
    statistics::Summary,
    topology::hot,
    worker::{Task, Worker, Workload},
};

/// Bytes of the tables at one number of Services.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Tables {
    /// How many Services.
    pub(crate) services: u32,
    /// All tables together.
    pub(crate) total: u64,
    /// Each by its name.
    pub(crate) each: Vec<(&'static str, u64)>,
}

impl Tables {
    /// `memlock` in the fdinfo of every map.
    pub(crate) fn of(datapath: &Datapath) -> Result<Self> {
        let mut tables = Vec::new();
        for (name, pin) in datapath.tables() {
            tables.push((name, programs::field(MapData::from_pin(&pin)?.fd().as_fd(), "memlock")?));
        }
        Ok(Self {
            services: datapath.services,
            total: tables.iter().map(|(_, bytes)| bytes).sum(),
            each: tables,
        })
    }
}

/// Tables of the packet programs without connections: fragments, devices, and the rate of refusals.
const WITHOUT_FLOWS: [&str; 3] = ["FRAGMENTS", "INTERFACES", "REFUSED_RATE"];
/// Megabytes that the tables for flows may have together at their default sizes.
const FLOW_MEGABYTES: f64 = 10.5;

/// Bytes of the tables for flows: those that the packet programs use and the socket programs do not.
#[derive(Clone, Debug)]
pub(crate) struct FlowTables(Vec<(&'static str, u64)>);

impl FlowTables {
    /// `memlock` in the fdinfo of the tables that are pinned in this directory, with programs loaded that use them.
    pub(crate) fn of(pins: &Path) -> Result<Self> {
        let (mut of_sockets, mut of_packets) = (BTreeSet::new(), BTreeSet::new());
        for program in loaded_programs().filter_map(Result::ok) {
            let tables =
                program.map_ids()?.context("the kernel does not report which maps a program uses")?;
            let is_sockets = HOOKS.iter().any(|hook| program.name_as_str() == Some(hook.name));
            if is_sockets { &mut of_sockets } else { &mut of_packets }.extend(tables);
        }
        let mut tables = Vec::new();
        for name in MAPS.iter().map(|map| map.name).filter(|name| !WITHOUT_FLOWS.contains(name)) {
            let pin = pins.join(name);
            let id = MapInfo::from_pin(&pin).with_context(|| pin.display().to_string())?.id();
            if of_packets.contains(&id) && !of_sockets.contains(&id) {
                tables.push((name, programs::field(MapData::from_pin(&pin)?.fd().as_fd(), "memlock")?));
            }
        }
        ensure!(!tables.is_empty(), "no packet program uses a map pinned in {}", pins.display());
        Ok(Self(tables))
    }

    /// The goal for them.
    pub(crate) fn goal(&self) -> Goal {
        let bytes: u64 = self.0.iter().map(|(_, bytes)| bytes).sum();
        Goal::at_most(
            "MB of the tables for flows, default sizes",
            Summary::of(&[bytes as f64 / 1e6]),
            FLOW_MEGABYTES,
        )
    }
}

impl fmt::Display for FlowTables {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let each: Vec<String> = self.0.iter().map(|(name, bytes)| format!("{name} {bytes}")).collect();
        write!(f, "bytes of the tables for flows, default sizes: {}", each.join(", "))
    }
}

/// Bytes that the kernel charges to a socket for having been translated (`sk_omem_alloc`, by `SO_MEMINFO`), over
/// as many sockets as there may be descriptors.
pub(crate) fn of_a_socket(worker: &mut Worker) -> Result<u64> {
    const SOCKETS: u32 = 500;
    let storage =
        worker.run(&Task { workload: Workload::Keep, target: hot(1), operations: SOCKETS })?.counted;
    ensure!(storage.is_multiple_of(u64::from(SOCKETS)), "{storage} bytes for {SOCKETS} sockets");
    Ok(storage / u64::from(SOCKETS))
}
