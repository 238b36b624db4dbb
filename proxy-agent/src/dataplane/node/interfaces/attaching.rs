//! Which devices get programs in a pass, in which order, and which lose them.

use std::{collections::BTreeSet, time::Instant};

use aya::Ebpf;

use super::{
    Device, Interfaces,
    choice::{Chosen, still_there},
    hooks::DIRECTIONS,
    masquerade::Towards,
    problem,
};
use crate::{
    dataplane::{
        Error,
        node::netlink::{Direction, Network},
    },
    model::{Problem, Subject},
};

impl Interfaces {
    /// Replaces the programs at the devices that have some, whichever are wanted. What failed is tried again with the next
    /// pass.
    ///
    /// # Errors
    /// When the devices cannot be listed.
    pub fn replace_programs(&mut self, ebpf: &mut Ebpf) -> Result<(), Error> {
        let flags = |index: u32| (index, self.table.get(&index, 0).map_or(0, |found| found.flags));
        let (network, hooked) = (Network::here()?, self.hooks.devices()?);
        let present = still_there(&network, &hooked.into_iter().map(flags).collect());
        self.programs.load_for(ebpf, &present);
        let mut problems = Vec::new();
        self.attach(ebpf, &present.iter().collect::<Vec<_>>(), &mut problems);
        self.problems = problems;
        Ok(())
    }

    /// Serves the device of a pod: from the moment when its ingress program is there, for which the kernel then waits a grace
    /// period, as it does for the one at egress.
    pub(super) fn welcome(
        &mut self,
        ebpf: &mut Ebpf,
        device: &Chosen,
        network: (&Network, &mut Towards),
        problems: &mut Vec<Problem>,
    ) {
        let began = Instant::now();
        let [first, second] = DIRECTIONS;
        let mut attached = self.attach_to(ebpf, device, first);
        if attached.is_ok() {
            self.keep(device, network, problems);
            attached = self.attach_to(ebpf, device, second);
        }
        match attached {
            Ok(()) => {
                self.current.insert(device.index, (device.header, device.flags));
                self.welcomed += began.elapsed();
            }
            Err(error) => {
                self.hooked.remove(&device.index);
                let _ = self.table.remove(&device.index);
                problems.push(not_served(device, &error));
            }
        }
    }

    /// Attaches missing programs, and returns the devices where that failed.
    pub(super) fn attach(
        &mut self,
        ebpf: &mut Ebpf,
        devices: &[&Chosen],
        problems: &mut Vec<Problem>,
    ) -> BTreeSet<u32> {
        let mut failed = BTreeSet::new();
        for direction in DIRECTIONS {
            for device in devices {
                let index = device.index;
                let is_attached = self.current.get(&index) == Some(&(device.header, device.flags))
                    && self.hooks.is_attached(index, direction, self.way);
                if failed.contains(&index) || is_attached {
                    continue;
                }
                if let Err(error) = self.attach_to(ebpf, device, direction) {
                    failed.insert(index);
                    problems.push(not_served(device, &error));
                }
            }
        }
        self.current.extend(devices.iter().map(|device| (device.index, (device.header, device.flags))));
        self.current.retain(|index, _| !failed.contains(index));
        failed
    }

    fn attach_to(&self, ebpf: &mut Ebpf, device: &Chosen, direction: Direction) -> Result<(), Error> {
        self.programs.check(device)?;
        self.hooks.attach(ebpf, device, direction, self.way)
    }

    /// Detaches from devices that are gone or no longer chosen.
    pub(super) fn detach_others(&mut self, chosen: &[Chosen], problems: &mut Vec<Problem>) {
        let is_chosen = |index: u32| chosen.iter().any(|device| device.index == index);
        let found = match self.hooks.devices() {
            Ok(found) => found,
            Err(error) => {
                problems.push(problem(Subject::ThisNode, error.to_string()));
                return;
            }
        };
        for index in found.into_iter().filter(|index| !is_chosen(*index)) {
            match self.hooks.detach(index) {
                Ok(_) => match self.hooked.remove(&index) {
                    Some(Device { name, of_pod: true, .. }) => {
                        tracing::debug!(device = name, "detached: the pod's device is gone");
                    }
                    Some(Device { name, .. }) => {
                        tracing::info!(device = name, "detached: the device is gone or no longer an uplink");
                    }
                    None => {}
                },
                Err(error) => {
                    let device = Subject::device(&format!("device {index}"));
                    problems.push(problem(device, error.to_string()));
                }
            }
        }
        self.hooked.retain(|index, _| is_chosen(*index));
        self.current.retain(|index, _| is_chosen(*index));
        self.settled.retain(|index| is_chosen(*index));
        let stale: Vec<u32> =
            self.table.keys().filter_map(Result::ok).filter(|index| !is_chosen(*index)).collect();
        for index in stale {
            let _ = self.table.remove(&index);
        }
    }
}

fn not_served(device: &Chosen, error: &Error) -> Problem {
    let message = if device.of_pod() {
        format!("cannot serve what this pod's sockets do not translate: {error}")
    } else {
        format!(
            "cannot serve north-south traffic at this device: {error}; name other devices with --interface"
        )
    };
    problem(Subject::device(&device.name), message)
}
