//! Nanoseconds in the programs, for each kind of packet, by the kernel's own statistics.
//!
//! They help to make the programs faster. The other parts measure the cost: these figures include reading the clock
//! around each run, and exclude a run's effect on the rest of the path.

use std::{path::PathBuf, time::Instant};

use anyhow::{Context as _, Result};
use aya::sys::{Stats, enable_stats};

use super::{
    lab::{Installation, Lab},
    services::{Endpoint, Transport},
};
use crate::{
    programs::{Figures, figures_of_users},
    progress::Progress,
    report::{Row, Section},
    rounds::{Budget, order},
    statistics::Summary,
    worker::{Target, Task, Workload},
};

/// The programs of devices with an Ethernet header.
const PROGRAMS: [&str; 3] = ["ingress", "egress", "egress_pod"];
/// A table that all of them use.
const TABLE: &str = "FLOWS";
/// Connections in a turn, requests in a turn.
const OPERATIONS: u32 = 150;
/// Datagrams a second: fewer than any node loses.
const RATE: u32 = 300_000;

/// A workload.
struct Probe {
    name: String,
    worker: usize,
    table: PathBuf,
    workload: Workload,
    target: Target,
}

/// Of a probe and a program, round by round.
#[derive(Default)]
struct Samples {
    nanoseconds: Vec<f64>,
    runs: Vec<f64>,
}

/// Measures every kind of packet. Datagrams have to be received [on threads](super::receive), as single ones.
pub(super) fn measure(lab: &mut Lab, budget: Budget, progress: &mut Progress) -> Result<Section> {
    progress.stage("nanoseconds in the programs");
    let _enabled =
        enable_stats(Stats::RunTime).context("cannot enable the kernel's statistics of BPF programs")?;
    let probes = probes(lab, u16::try_from(budget.turn.as_millis())?);
    let mut samples: Vec<[Samples; PROGRAMS.len()]> = probes.iter().map(|_| Default::default()).collect();
    let start = Instant::now();
    for round in 0..budget.rounds {
        if budget.is_spent(round, start) {
            break;
        }
        for index in order(probes.len(), round) {
            let Probe { worker, table, workload, target, .. } = &probes[index];
            let task = Task { workload: *workload, target: *target, operations: OPERATIONS };
            let figures = || -> Result<Vec<Figures>> {
                PROGRAMS.iter().map(|program| figures_of_users(table, program)).collect()
            };
            // A warm-up run, as the other cells have filled the caches.
            lab.workers[*worker].run(&task)?;
            let before = figures()?;
            let done = lab.workers[*worker].run(&task)?;
            for ((after, before), samples) in figures()?.iter().zip(before).zip(&mut samples[index]) {
                samples.runs.push((after.runs - before.runs) as f64 / done.operations as f64);
                samples.nanoseconds.extend(after.since(before));
            }
        }
        progress.tick(round, budget.rounds);
    }
    let rows = probes.iter().zip(samples).flat_map(|(probe, samples)| {
        PROGRAMS.iter().zip(samples).map(|(program, Samples { nanoseconds, runs })| Row {
            name: format!("{}: {program}, {:.2} runs", probe.name, Summary::of(&runs).median),
            summary: Summary::of(&nanoseconds),
            ratios: Vec::new(),
            samples: nanoseconds,
        })
    });
    Ok(Section {
        title: "inside the programs: what was done, and how often they ran for it".to_owned(),
        unit: "ns a run",
        ratios: Vec::new(),
        rows: rows.filter(|row| !row.samples.is_empty()).collect(),
    })
}

fn probes(lab: &Lab, milliseconds: u16) -> Vec<Probe> {
    let mut probes = Vec::new();
    for installation in &lab.installations {
        let Installation { services, worker, sidestep: Some(sidestep), .. } = installation else { continue };
        for endpoint in Endpoint::ALL {
            let offer = Workload::Offer { sink: endpoint.place(), milliseconds, rate: RATE };
            for (what, workload, transport) in [
                ("connect, close", Workload::Connect, Transport::Tcp),
                ("request", Workload::Persistent, Transport::Tcp),
                ("datagram", offer, Transport::Udp),
            ] {
                for (way, target) in [
                    (services.name(), services.hot(lab.clients, transport, endpoint)),
                    (format!("{}, straight to the pod", services.name()), endpoint.direct()),
                ] {
                    probes.push(Probe {
                        name: format!("{what}, {}, {way}", endpoint.name()),
                        worker: *worker,
                        table: sidestep.tables().join(TABLE),
                        workload,
                        target,
                    });
                }
            }
        }
    }
    probes
}
