//! `bench nodeport`: the cost of a Service for north-south clients; `bench pods`: for pods that no socket hook serves.
//!
//! | file | concept |
//! |---|---|
//! | `site` | client, two nodes, two pods; `receive`: how node A receives in measurements of loss |
//! | `services` | the Services, as manifests and as rules |
//! | `sidestep` | the agent on a site's node |
//! | `floor` | programs that do nothing, where the agent has its own |
//! | `lab` | a site for each system, and checks that each translates properly |
//! | `cells` | the compared rows, and goals |
//! | `connections` | TCP connections and requests |
//! | `datagrams` | UDP until loss |
//! | `inside` | nanoseconds in the programs |

mod cells;
mod connections;
mod datagrams;
mod floor;
mod inside;
mod lab;
mod receive;
mod services;
mod sidestep;
mod site;

use std::time::Duration;

use anyhow::Result;

use crate::{
    machine::Machine, options::Options, part::Part, progress::Progress, report::Report, rounds::Budget,
    worker::Workload,
};

use lab::{Lab, System};
use services::{Endpoint, Services};
use site::Clients;

/// The extent of a run.
struct Scale {
    /// Numbers of Services.
    sizes: &'static [Services],
    /// For connections and for requests, with each kind of endpoint.
    rounds: Budget,
    /// For datagrams of which too many are sent.
    saturated: Budget,
    /// For datagrams until loss.
    until_loss: Budget,
    /// For nanoseconds in programs.
    inside: Budget,
}

/// One, and ten thousand: four kinds of so many.
const SIZES: &[Services] = &[Services(1), Services(2_500)];

const FULL: Scale = Scale {
    sizes: SIZES,
    rounds: Budget { rounds: 500, time: Duration::from_secs(55), turn: Duration::from_millis(6) },
    saturated: Budget { rounds: 100, time: Duration::from_secs(30), turn: Duration::from_millis(25) },
    until_loss: Budget { rounds: 40, time: Duration::from_secs(35), turn: Duration::from_millis(10) },
    inside: Budget { rounds: 100, time: Duration::from_secs(30), turn: Duration::from_millis(5) },
};

const QUICK: Scale = Scale {
    sizes: SIZES,
    rounds: Budget { rounds: 80, time: Duration::from_secs(10), turn: Duration::from_millis(5) },
    saturated: Budget { rounds: 20, time: Duration::from_secs(6), turn: Duration::from_millis(20) },
    until_loss: Budget { rounds: 10, time: Duration::from_secs(6), turn: Duration::from_millis(8) },
    inside: Budget { rounds: 20, time: Duration::from_secs(6), turn: Duration::from_millis(5) },
};

/// Runs the benchmark with clients outside.
pub(crate) fn run(options: &Options) -> Result<Report> {
    measure("nodeport", Clients::Outside, options)
}

/// The same with clients in a pod.
pub(crate) fn run_in_pod(options: &Options) -> Result<Report> {
    measure("pods", Clients::InPod, options)
}

fn measure(benchmark: &'static str, clients: Clients, options: &Options) -> Result<Report> {
    let scale = if options.quick { QUICK } else { FULL };
    let machine = Machine::find();
    let mut progress = Progress::new();
    let mut lab = Lab::new(clients, scale.sizes, &mut progress)?;
    lab.ensure_translated()?;
    let (mut sections, mut goals, mut notes) = (Vec::new(), Vec::new(), Vec::new());
    for (part, workload, title) in [
        (Part::Connections, Workload::Connect, "connect, close"),
        (Part::Persistent, Workload::Persistent, "one byte there and back on a persistent connection"),
    ] {
        for endpoint in Endpoint::ALL.into_iter().filter(|_| options.wants(part)) {
            let section =
                connections::measure(&mut lab, workload, endpoint, title, scale.rounds, &mut progress)?;
            goals.extend(connections::goals(&section, workload, (clients, endpoint), scale.sizes));
            sections.push(section);
        }
    }
    // Loss begins where a network card hands packets over: not in a pod.
    let datagrams = clients == Clients::Outside && options.wants(Part::Datagrams);
    if datagrams || options.wants(Part::Programs) {
        lab.receive_on_threads()?;
    }
    if datagrams {
        for endpoint in Endpoint::ALL {
            let (cells, saturated) = datagrams::saturate(&mut lab, endpoint, scale.saturated, &mut progress)?;
            let until_loss = datagrams::until_loss(
                &mut lab,
                endpoint,
                (&cells, &saturated),
                scale.until_loss,
                &mut progress,
            )?;
            for section in [&saturated, &until_loss] {
                goals.extend(datagrams::goals(section, scale.sizes));
            }
            notes.extend(datagrams::nanoseconds(&saturated));
            sections.extend([saturated, until_loss]);
        }
    }
    if options.wants(Part::Programs) {
        sections.push(inside::measure(&mut lab, scale.inside, &mut progress)?);
    }
    lab.ensure_translated()?;
    lab.ensure_tracking()?;
    let flows = lab.flow_tables()?;
    notes.push(flows.to_string());
    goals.push(flows.goal());
    progress.stage("cleaning up");
    let method = method(&lab, &scale);
    drop(lab);
    let seconds = progress.seconds();
    Ok(Report { benchmark, machine, method, sections, tables: Vec::new(), notes, goals, seconds })
}

fn method(lab: &Lab, scale: &Scale) -> Vec<String> {
    let mut sentences = vec![
        format!(
            "Clients {} on processor {}, servers on processor {}, before all ordinary processes of the machine; node A, \
             node B and a pod on each, every one in a network namespace, and all five once for each system that is \
             compared. What goes to the pod on B goes through A.",
            match lab.clients {
                Clients::Outside => "on a host outside",
                Clients::InPod => "in another pod of node A, outside of the cgroup with socket programs,",
            },
            lab.processors.client,
            lab.processors.server
        ),
        format!(
            "Rounds of turns of {:?} (datagrams: {:?} and {:?}), each round in another order; ratios are taken within \
             a round, medians over the rounds, with 95 % intervals by order statistics.",
            scale.rounds.turn, scale.saturated.turn, scale.until_loss.turn
        ),
        "direct: the client connects to the pod's address, and A routes, without programs and rules; it tracked 0 \
         connections. Measured by two processes in every round, whose mean the ratios refer to."
            .to_owned(),
        "Services have a NodePort, externalTrafficPolicy Cluster and one endpoint; half of them UDP, half of the \
         endpoints on A. \"1 Service\" stands for one of each of these four kinds. Unless at random, it is always the \
         same Service, the middle one."
            .to_owned(),
        match lab.clients {
            Clients::Outside => {
                "Before and after, the pods were asked whom they see. Sidestep: the client itself where the endpoint is on \
                 A, and A where it is on B; rules: always A, as kube-proxy has it. Sidestep's nodes tracked 0 connections."
            }
            Clients::InPod => {
                "Before and after, the pods were asked whom they see: the client itself. Sidestep's nodes tracked 0 \
                 connections."
            }
        }
        .to_owned(),
        "Past it, to no Service: on a node with this system, a connection to the pod's address.".to_owned(),
        "floor: the same on a node whose devices carry, where Sidestep has its programs, ones that end at once \
         (TCX_NEXT): what any packet path pays."
            .to_owned(),
        "Connections are closed with a reset (SO_LINGER 0), so that no port waits in TIME_WAIT.".to_owned(),
        "Datagrams of 18 bytes on 64 flows that have been answered once; what comes from outside is received by a \
         thread of the kernel's on the servers' processor, which drops at a ring of 256 packets what it cannot take. \
         They are counted and dropped at the pod's socket. Until loss: six halvings between rates, at most 0.5 % lost."
            .to_owned(),
    ];
    let rules = lab.installations.iter().filter_map(|installation| match installation.system {
        System::Rules(_) => Some(installation.name()),
        _ => None,
    });
    for (name, reader) in rules.zip(&lab.readers) {
        sentences.push(format!("{name}: rules in kube-proxy's shape, loaded by {reader}."));
    }
    sentences
}
