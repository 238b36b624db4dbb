//! Whether our programs are still the first at their devices, and what is done if they are not (`order`).

use std::time::Instant;

use aya::Ebpf;

use super::{
    Interfaces, Way,
    choice::Chosen,
    hooks::DIRECTIONS,
    order::{self, Step},
    problem,
};
use crate::model::Subject;

impl Interfaces {
    /// Checks whether our programs are the first at a device, and moves them to the front (`order`).
    pub(super) fn keep_order(&mut self, ebpf: &mut Ebpf, device: &Chosen, now: Instant) {
        if self.way != Way::Tcx {
            return;
        }
        let mut told = Vec::new();
        for direction in DIRECTIONS {
            let ahead = || self.hooks.ahead(device.index, &device.name, direction);
            let found = ahead().and_then(|found| {
                match self.contests.step(device.index, direction, found.is_empty(), now) {
                    Step::Keep | Step::Yield => Ok(found),
                    Step::GoFirst => {
                        self.hooks.go_first(ebpf, device, direction)?;
                        let (device, direction) = (&device.name, direction.name());
                        let before: Vec<String> = found.iter().map(ToString::to_string).collect();
                        tracing::info!(device, direction, ?before, "moved our program to the front again");
                        ahead()
                    }
                }
            });
            match found {
                Ok(found) => {
                    told.extend(order::meaning(&found));
                }
                Err(error) => {
                    told.push(format!("cannot read the order of programs at {}: {error}", direction.name()));
                }
            }
        }
        let told = told.into_iter().map(|message| problem(Subject::device(&device.name), message));
        self.out_of_order.insert(device.index, told.collect());
    }
}
