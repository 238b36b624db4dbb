//! Nanoseconds in the programs, shipped and compared, by the kernel's own statistics.

use anyhow::{Context as _, Result};
use aya::sys::{Stats, enable_stats};

use super::lab::{Lab, USUAL};
use crate::{
    comparisons::Comparisons,
    datapath::{Datapath, WITH_UDP},
    goals::Goal,
    programs::Figures,
    progress::Progress,
    report::{Row, Section},
    rounds::{Budget, order},
    statistics::Summary,
    topology::{DIRECT, any, hot},
    worker::{Target, Task, Workload},
};

/// Whose figures are read.
#[derive(Clone, Copy)]
enum Owner {
    /// A place in [`Lab::datapaths`].
    Shipped(usize),
    Compared,
}

/// A program, and what makes it run.
struct Probe {
    name: String,
    worker: usize,
    workload: Workload,
    target: Target,
    owner: Owner,
    program: &'static str,
    limit: Option<f64>,
}

/// Measures every program.
pub(super) fn measure(lab: &mut Lab, budget: Budget, progress: &mut Progress) -> Result<Section> {
    let _enabled =
        enable_stats(Stats::RunTime).context("switching the kernel's statistics of BPF programs on")?;
    let probes = probes(lab);
    let mut samples = vec![Vec::new(); probes.len()];
    let mut operations = Vec::with_capacity(probes.len());
    for probe in &probes {
        let task = Task { workload: probe.workload, target: probe.target, operations: 64 };
        let done = lab.workers[probe.worker].run(&task)?;
        let one = (done.nanoseconds / 64).max(1);
        let fitting = u64::try_from(budget.turn.as_nanos()).unwrap_or(u64::MAX) / one;
        operations.push(u32::try_from(fitting.clamp(32, 4_000)).unwrap_or_default());
    }
    let start = std::time::Instant::now();
    for round in 0..budget.rounds {
        if round >= 10 && start.elapsed() > budget.time {
            break;
        }
        for index in order(probes.len(), round) {
            let Probe { worker, workload, target, owner, program, .. } = &probes[index];
            let task = Task { workload: *workload, target: *target, operations: operations[index] };
            // Once for the caches: what the other cells put there is no matter of this program.
            lab.workers[*worker].run(&task)?;
            let before = figures(&mut lab.datapaths, &mut lab.comparisons, *owner, program)?;
            lab.workers[*worker].run(&task)?;
            let after = figures(&mut lab.datapaths, &mut lab.comparisons, *owner, program)?;
            if let Some(nanoseconds) = after.since(before) {
                samples[index].push(nanoseconds);
            }
        }
        progress.tick(round, budget.rounds);
    }
    let rows = probes
        .into_iter()
        .zip(samples)
        .map(|(probe, samples)| Row {
            name: match probe.limit {
                Some(limit) => format!("{} [{limit}]", probe.name),
                None => probe.name,
            },
            summary: Summary::of(&samples),
            ratios: Vec::new(),
            samples,
        })
        .collect();
    Ok(Section {
        title: "inside the program, UDP unless TCP is said".to_owned(),
        unit: "ns",
        ratios: Vec::new(),
        rows,
    })
}

fn figures(
    datapaths: &mut [Datapath],
    comparisons: &mut Option<Comparisons>,
    owner: Owner,
    program: &str,
) -> Result<Figures> {
    match owner {
        Owner::Shipped(place) => datapaths[place].figures(program),
        Owner::Compared => comparisons.as_mut().context("no programs to compare with")?.figures(program),
    }
}

fn probes(lab: &Lab) -> Vec<Probe> {
    let usual = lab.usual();
    let shipped = |name: &str, workload, target, limit| Probe {
        name: format!("shipped: {name}"),
        worker: lab.served[usual],
        workload,
        target,
        owner: Owner::Shipped(usual),
        program: "connect4",
        limit,
    };
    let mut probes = vec![
        shipped("fresh socket, hot", Workload::FreshPeer, hot(USUAL), Some(1_200.0)),
        shipped("fresh socket, random of 1000", Workload::FreshPeer, any(USUAL), None),
        shipped("storage present, hot", Workload::NextPeer, hot(USUAL), Some(200.0)),
        shipped("storage present, random of 1000", Workload::NextPeer, any(USUAL), None),
        shipped("no Service, fresh socket", Workload::FreshPeer, DIRECT, Some(160.0)),
        shipped("TCP, hot", Workload::Connect, hot(USUAL), None),
        shipped("TCP, no Service", Workload::Connect, DIRECT, None),
    ];
    for (place, datapath) in lab.datapaths.iter().enumerate() {
        if datapath.services > WITH_UDP {
            let name = format!("shipped: TCP, random of {}", datapath.services);
            let target = any(datapath.services);
            let (worker, owner) = (lab.served[place], Owner::Shipped(place));
            probes.push(Probe {
                name,
                worker,
                workload: Workload::Connect,
                target,
                owner,
                program: "connect4",
                limit: None,
            });
        }
    }
    for (comparison, worker) in &lab.compared {
        if !comparison.translates() {
            let (owner, target) = (Owner::Compared, hot(USUAL));
            let (workload, name, worker) = (Workload::FreshPeer, comparison.title.to_owned(), *worker);
            probes.push(Probe {
                name,
                worker,
                workload,
                target,
                owner,
                program: comparison.connect,
                limit: None,
            });
            continue;
        }
        let decides = comparison.connect == "decide4";
        let mut add = |name: &str, workload, target, program, limit| {
            let name = format!("{}: {name}", comparison.title);
            probes.push(Probe {
                name,
                worker: *worker,
                workload,
                target,
                owner: Owner::Compared,
                program,
                limit,
            });
        };
        let limit = |limit| decides.then_some(limit);
        add("fresh socket, hot", Workload::FreshPeer, hot(USUAL), comparison.connect, limit(200.0));
        add(
            "fresh socket, random of 1000",
            Workload::FreshPeer,
            any(USUAL),
            comparison.connect,
            limit(600.0),
        );
        add("TCP, hot", Workload::Connect, hot(USUAL), comparison.connect, None);
        if let Some(release) = comparison.release {
            add("the socket's end", Workload::FreshPeer, hot(USUAL), release, None);
        }
    }
    probes
}

/// The goals that this section decides: the limit is in the row's name.
pub(super) fn goals(section: &Section) -> Vec<Goal> {
    section
        .rows
        .iter()
        .filter_map(|row| {
            let (name, limit) = row.name.strip_suffix(']')?.rsplit_once(" [")?;
            Some(Goal::at_most(format!("ns in the program: {name}"), row.summary, limit.parse().ok()?))
        })
        .collect()
}
