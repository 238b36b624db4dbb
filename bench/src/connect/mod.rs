//! `bench connect`: the cost of an east-west TCP connection through a Service.
//!
//! | file | measures |
//! |---|---|
//! | `lab` | everything that has to be there first |
//! | `connections` | connections and requests, against "direct" and against rules |
//! | `listening` | what listeners to events cost; `listener`: one of them |
//! | `inside` | nanoseconds in the programs |
//! | `ruled` | a node that translates with rules |

mod connections;
mod inside;
mod lab;
mod listener;
mod listening;
mod ruled;

use std::time::Duration;

use anyhow::Result;

use crate::{
    machine::Machine, memory, options::Options, part::Part, progress::Progress, report::Report,
    rounds::Budget, worker::Workload,
};

use lab::Lab;

/// How much is done.
pub(crate) struct Scale {
    /// Numbers of Services.
    sizes: &'static [u32],
    /// Numbers of Services in rules.
    ruled: &'static [u32],
    /// For connections, requests and persistent connections, each.
    rounds: Budget,
    /// For connections in turns that last longer than it takes the kernel to free what a connection left behind:
    /// in short turns one cell pays for another's.
    long: Budget,
    /// For nanoseconds in programs.
    inside: Budget,
}

const FULL: Scale = Scale {
    sizes: &[1, 1_000, 10_000, 100_000],
    ruled: &[1, 10_000],
    rounds: Budget { rounds: 600, time: Duration::from_secs(80), turn: Duration::from_millis(6) },
    long: Budget { rounds: 40, time: Duration::from_mins(1), turn: Duration::from_millis(200) },
    inside: Budget { rounds: 300, time: Duration::from_secs(50), turn: Duration::from_millis(2) },
};

const QUICK: Scale = Scale {
    sizes: &[1, 1_000, 10_000],
    ruled: &[1],
    rounds: Budget { rounds: 100, time: Duration::from_secs(15), turn: Duration::from_millis(5) },
    long: Budget { rounds: 15, time: Duration::from_secs(10), turn: Duration::from_millis(100) },
    inside: Budget { rounds: 60, time: Duration::from_secs(8), turn: Duration::from_millis(2) },
};

/// Runs the benchmark.
pub(crate) fn run(options: &Options) -> Result<Report> {
    let scale = if options.quick { QUICK } else { FULL };
    let machine = Machine::find();
    let mut progress = Progress::new();
    let mut lab = Lab::new(options, &scale, &mut progress)?;
    let mut goals = Vec::new();
    let mut sections = Vec::new();
    for (part, workload, title) in [
        (Part::Connections, Workload::Connect, "connect, close"),
        (Part::Requests, Workload::Request, "connect, one byte there and back, close"),
        (Part::Persistent, Workload::Persistent, "one byte there and back on a connection that stays"),
    ] {
        if options.wants(part) {
            progress.stage(title);
            let cells = connections::cells(&lab, workload);
            let measured =
                connections::measure(&mut lab, &cells, workload, title, scale.rounds, &mut progress)?;
            goals.extend(connections::goals(&measured, workload));
            sections.push(measured);
            lab.ruled.iter().try_for_each(|(node, _)| node.ensure_used())?;
        }
    }
    if options.wants(Part::Long) {
        let title = "connect, close, in long turns";
        progress.stage(title);
        let few = connections::few(&connections::cells(&lab, Workload::Connect));
        sections.push(connections::measure(
            &mut lab,
            &few,
            Workload::Connect,
            title,
            scale.long,
            &mut progress,
        )?);
    }
    if options.wants(Part::Listening) {
        let title = "connect, close, with listeners";
        progress.stage(title);
        let cells = listening::cells(&lab);
        let workload = Workload::Connect;
        let measured = connections::measure(&mut lab, &cells, workload, title, scale.rounds, &mut progress)?;
        goals.extend(listening::goals(&measured));
        sections.push(measured);
    }
    lab.topology.ensure_rule_free()?;
    if options.wants(Part::Programs) {
        progress.stage("nanoseconds in the programs");
        let inside = inside::measure(&mut lab, scale.inside, &mut progress)?;
        goals.extend(inside::goals(&inside));
        sections.push(inside);
    }

    progress.stage("memory");
    let tables = lab.datapaths.iter().map(memory::Tables::of).collect::<Result<_>>()?;
    let notes = notes(&mut lab)?;
    progress.stage("cleaning up");
    let method = method(&lab, &scale);
    drop(lab);
    let seconds = progress.seconds();
    Ok(Report { benchmark: "connect", machine, method, sections, tables, notes, goals, seconds })
}

fn notes(lab: &mut Lab) -> Result<Vec<String>> {
    let mut notes = Vec::new();
    for (title, worker) in lab.storages() {
        let bytes = memory::of_a_socket(&mut lab.workers[worker])?;
        notes.push(format!(
            "{title}: {bytes} bytes charged to each translated socket (SO_MEMINFO, 500 sockets)"
        ));
    }
    for (listened, _) in &mut lab.listened {
        let (heard, dropped) = listened.end()?;
        notes.push(format!(
            "the listener to {}: {heard} events, of which {dropped} were dropped",
            listened.ear.title()
        ));
    }
    Ok(notes)
}

fn method(lab: &Lab, scale: &Scale) -> Vec<String> {
    let mut sentences = vec![
        format!(
            "Clients on processor {}, servers on processor {}; a client pod and a server pod with a routing node \
             between them, each in a network namespace.",
            lab.processors.client, lab.processors.server
        ),
        format!(
            "Rounds of turns of {:?} (long turns: {:?}; nanoseconds in programs: {:?}, after as long a warm-up), each round in another order; ratios are taken \
             within a round, medians over the rounds, with 95 % intervals by order statistics.",
            scale.rounds.turn, scale.long.turn, scale.inside.turn
        ),
        "direct: a sibling cgroup without programs connects to the pods' addresses on a node without rules, which \
         tracked 0 connections; measured by two processes in every round, whose mean the ratios refer to."
            .to_owned(),
        "Connections are closed with a reset (SO_LINGER 0), so that no port waits in TIME_WAIT; every Service has two \
         endpoints, and direct connections alternate between the same two at random."
            .to_owned(),
        "A hot VIP is always the same Service, the middle one of those installed; a random VIP is drawn anew for each \
         connection."
            .to_owned(),
    ];
    for (node, _) in &lab.ruled {
        sentences.push(format!(
            "{} with {} Services: rules in kube-proxy's shape, loaded by {}, on a node of their own; closed \
             connections leave its conntrack table after 1 s.",
            node.flavour.name(),
            node.services,
            node.program
        ));
    }
    sentences
}
