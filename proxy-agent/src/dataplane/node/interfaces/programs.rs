//! Loads each packet program when the first device that needs it is chosen; those of one pass in parallel.
//!
//! They make up most of the verifier's work, so the socket programs do not wait for them, and few nodes have devices
//! of both kinds. If the kernel refuses one, everything else still works: sockets, and devices of the other kind.

use std::collections::BTreeSet;

use aya::Ebpf;

use super::{
    choice::Chosen,
    hooks::{DIRECTIONS, program_for},
};
use crate::dataplane::{Error, programs::load::load_programs};

/// The packet programs, and which of them the kernel refused.
#[derive(Default, Debug)]
pub(super) struct Programs {
    /// Programs that the kernel refused, and would refuse again.
    refused: BTreeSet<&'static str>,
}

impl Programs {
    /// Loads the programs that these devices need and that are not loaded yet.
    pub(super) fn load_for(&mut self, ebpf: &mut Ebpf, devices: &[Chosen]) {
        let needed: BTreeSet<&'static str> =
            devices.iter().flat_map(needed_by).filter(|name| !self.refused.contains(name)).collect();
        for (name, error) in load_programs(ebpf, needed) {
            tracing::error!(%error, "cannot load a packet program: devices that need it serve no north-south \
                                     traffic");
            self.refused.insert(name);
        }
    }

    /// Whether the kernel accepted both programs of a device.
    pub(super) fn check(&self, device: &Chosen) -> Result<(), Error> {
        needed_by(device).find(|name| self.refused.contains(name)).map_or(Ok(()), |name| {
            Err(Error::Missing(format!(
                "the kernel refused program {name} (the agent's log has the verifier's message)"
            )))
        })
    }
}

fn needed_by(device: &Chosen) -> impl Iterator<Item = &'static str> {
    DIRECTIONS.into_iter().filter_map(|direction| program_for(device, direction).ok())
}
