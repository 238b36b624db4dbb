//! Bytes: of the tables, as the kernel accounts for them, and of a translated socket.

use std::os::fd::AsFd as _;

use anyhow::{Result, ensure};
use aya::maps::MapData;
use serde::Serialize;

use crate::{
    datapath::Datapath,
    programs,
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

/// Bytes that the kernel charges to a socket for having been translated (`sk_omem_alloc`, by `SO_MEMINFO`), over
/// as many sockets as there may be descriptors.
pub(crate) fn of_a_socket(worker: &mut Worker) -> Result<u64> {
    const SOCKETS: u32 = 500;
    let storage =
        worker.run(&Task { workload: Workload::Keep, target: hot(1), operations: SOCKETS })?.counted;
    ensure!(storage.is_multiple_of(u64::from(SOCKETS)), "{storage} bytes for {SOCKETS} sockets");
    Ok(storage / u64::from(SOCKETS))
}
