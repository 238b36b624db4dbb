//! `bench udp`: the cost of datagrams on unconnected sockets.
//!
//! Programs at sendmsg and recvmsg cost every socket of the machine: while one is attached anywhere, the kernel takes
//! the socket's lock around each call, also in cgroups without programs. So the row "nothing attached" is measured in
//! turns for which Sidestep's programs are detached, and "just attached", for comparison, right after they are
//! attached again.

use std::time::Duration;

use anyhow::Result;
use sidestep_tests::{cgroup::Cgroup, identity::Identity};

use crate::{
    datapath::Datapath,
    goals::Goal,
    machine::Machine,
    options::Options,
    place::Processors,
    progress::Progress,
    report::{Report, Row, Section},
    rounds::{Budget, order},
    statistics::{Summary, means},
    topology::{DIRECT, Topology, hot},
    worker::{Target, Task, Worker, Workload},
};

const SERVICES: u32 = 1_000;
const FULL: Budget = Budget { rounds: 500, time: Duration::from_mins(1), turn: Duration::from_millis(8) };
const QUICK: Budget = Budget { rounds: 150, time: Duration::from_secs(12), turn: Duration::from_millis(8) };

/// What is compared: name, worker, target.
const ROWS: [(&str, usize, Target); 6] = [
    ("direct", 0, DIRECT),
    ("direct, second process", 1, DIRECT),
    ("through a VIP", 2, hot(SERVICES)),
    ("to no Service, programs attached", 3, DIRECT),
    ("direct, just attached", 0, DIRECT),
    ("direct, nothing attached", 0, DIRECT),
];
/// How many rows are shuffled; the last two are measured after the programs were attached and detached.
const SHUFFLED: usize = 4;
/// The row in whose turns the programs have just been attached.
const ATTACHED: usize = 4;
/// The row in whose turns they have just been detached.
const DETACHED: usize = 5;
/// Exchanges that nobody counts, after the kernel has patched its own code.
const SETTLING: u32 = 64;

/// Runs the benchmark.
pub(crate) fn run(options: &Options) -> Result<Report> {
    let budget = if options.quick { QUICK } else { FULL };
    let machine = Machine::find();
    let mut progress = Progress::new();
    progress.stage("making the pods and the node");
    let processors = Processors::find()?;
    let root = Cgroup::new(&Identity::new().to_string())?;
    let outside = root.child("outside")?;
    let topology = Topology::new(&outside, processors)?;
    let mut datapath = Datapath::new(&root, "served", SERVICES)?;
    let mut workers = [&outside, &outside, &datapath.cgroup, &datapath.cgroup]
        .into_iter()
        .map(|cgroup| topology.worker(cgroup, processors))
        .collect::<Result<Vec<Worker>>>()?;
    let (mut sections, mut goals) = (Vec::new(), Vec::new());
    for threads in [1, 4] {
        let title = format!(
            "request and answer, {threads} thread{} on a socket",
            if threads == 1 { "" } else { "s" }
        );
        progress.stage(&title);
        let section = measure(&mut workers, &mut datapath, threads, title, budget, &mut progress)?;
        for row in &section.rows[2..4] {
            let name = format!("{}: {} to direct", section.title, row.name);
            goals.extend(row.ratios[0].map(|ratio| Goal::at_most(name, ratio, 1.05)));
        }
        sections.push(section);
    }
    topology.ensure_rule_free()?;
    progress.stage("cleaning up");
    drop(workers);
    let seconds = progress.seconds();
    Ok(Report {
        benchmark: "udp",
        machine,
        method: method(processors, budget),
        sections,
        tables: Vec::new(),
        notes: Vec::new(),
        goals,
        seconds,
    })
}

fn measure(
    workers: &mut [Worker],
    datapath: &mut Datapath,
    threads: u32,
    title: String,
    budget: Budget,
    progress: &mut Progress,
) -> Result<Section> {
    let workload = Workload::Datagram { threads };
    let trial = workers[0].run(&Task { workload, target: DIRECT, operations: 400 })?.nanoseconds / 400;
    let fitting = u64::try_from(budget.turn.as_nanos()).unwrap_or(u64::MAX) / trial.max(1);
    let operations = u32::try_from(fitting.clamp(32, 2_000)).unwrap_or(2_000) / threads * threads;
    let mut samples = vec![Vec::with_capacity(budget.rounds); ROWS.len()];
    let start = std::time::Instant::now();
    for round in 0..budget.rounds {
        if round >= 10 && start.elapsed() > budget.time {
            break;
        }
        let mut turn = |index: usize, settle: bool| -> Result<()> {
            let (_, worker, target) = ROWS[index];
            if settle {
                workers[worker].run(&Task { workload, target, operations: SETTLING })?;
            }
            let done = workers[worker].run(&Task { workload, target, operations })?;
            samples[index].push(done.each());
            Ok(())
        };
        // One place more than rows: the detour without programs.
        for index in order(SHUFFLED + 1, round) {
            if index < SHUFFLED {
                turn(index, false)?;
                continue;
            }
            datapath.detach()?;
            turn(DETACHED, true)?;
            datapath.attach()?;
            turn(ATTACHED, true)?;
        }
        progress.tick(round, budget.rounds);
    }
    let direct = means(&samples[0], &samples[1]);
    let bare = samples[DETACHED].clone();
    let rows = ROWS
        .iter()
        .zip(samples)
        .map(|((name, ..), samples)| Row {
            name: (*name).to_owned(),
            summary: Summary::of(&samples),
            ratios: vec![Some(Summary::ratio(&samples, &direct)), Some(Summary::ratio(&samples, &bare))],
            samples,
        })
        .collect();
    Ok(Section { title, unit: "ns", ratios: vec!["direct", "nothing attached"], rows })
}

fn method(processors: Processors, budget: Budget) -> Vec<String> {
    vec![
        format!(
            "Clients on processor {} (four threads: on all processors), servers on processor {}; client pod, routing \
             node and server pod in network namespaces of their own.",
            processors.client, processors.server
        ),
        format!(
            "Rounds of turns of {:?}, each round in another order; ratios are taken within a round, medians over the \
             rounds, with 95 % intervals by order statistics.",
            budget.turn
        ),
        "A datagram of one byte is sent with its destination and answered, on one socket that stays; direct: a sibling \
         cgroup without programs."
            .to_owned(),
        "nothing attached: in every round the programs are detached for one turn, because a cgroup without programs \
         still pays for the hooks being in use elsewhere on the machine (other people's programs included)."
            .to_owned(),
    ]
}
