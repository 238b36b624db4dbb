//! `bench sync`: how fast the agent follows an API server, and the cost of that. `bench start`: how fast it starts. `bench
//! stale`: how fast it moves sockets whose endpoint is gone.
//!
//! The agent is the real one, on a lab's node, and so is HTTP; the API server is the tests' double, in this process.
//! Two clusters: many Services with some endpoints each, and very many Services with one each.
//!
//! | file | concept |
//! |---|---|
//! | `cluster` | objects as an API server would write them |
//! | `decode` | the yardstick of a first sync: the same bytes, decoded and nothing else |
//! | `follow` | the way from one change to a connection that lands on the new endpoint; `door`: where it lands |
//! | `start` | the way from the agent's start to the first connection through a Service |
//! | `stale` | the way from an endpoint's replacement to the last socket that had it |
//! | `usage` | memory, processor time and system calls of the agent |

mod cluster;
mod decode;
mod door;
mod follow;
pub(crate) mod stale;
pub(crate) mod start;
mod usage;

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use proxy_agent::dataplane::Tables;
use sidestep_tests::{Agent, Lab, api_server::ApiServer};

use crate::{
    goals::Goal,
    machine::Machine,
    options::Options,
    progress::Progress,
    report::{Report, Row, Section},
    statistics::Summary,
};

use cluster::Cluster;
use follow::{Follower, Pattern};
use usage::{SystemCalls, Usage};

/// How often to start an agent on empty tables.
const STARTS: usize = 5;
/// Longest wait for a first sync.
const PATIENCE: Duration = Duration::from_mins(2);
/// How long an idle agent is watched.
const IDLE: Duration = Duration::from_mins(1);
/// Changes for each pattern: the 99th percentile is the fifth from the top.
const CHANGES: usize = 500;

/// What one run does, and how much of it.
struct Scale {
    clusters: &'static [(u32, u32)],
    starts: usize,
    idle: Duration,
    changes: usize,
}

const FULL: Scale =
    Scale { clusters: &[(10_000, 10), (100_000, 1)], starts: STARTS, idle: IDLE, changes: CHANGES };
const QUICK: Scale =
    Scale { clusters: &[(10_000, 10)], starts: 2, idle: Duration::from_secs(10), changes: 100 };

/// Runs the benchmark.
pub(crate) fn run(options: &Options) -> Result<Report> {
    let scale = if options.quick { QUICK } else { FULL };
    let machine = Machine::find();
    let mut progress = Progress::new();
    let (mut sections, mut goals, mut notes) = (Vec::new(), Vec::new(), Vec::new());
    for &(services, endpoints) in scale.clusters {
        let title = format!("{services} Services of {endpoints}");
        let measured = measure(options, &scale, services, endpoints, &title, &mut progress)?;
        sections.extend(measured.sections);
        goals.extend(measured.goals);
        notes.extend(measured.notes);
    }
    progress.stage("cleaning up");
    let seconds = progress.seconds();
    Ok(Report {
        benchmark: "sync",
        machine,
        method: method(&scale),
        sections,
        tables: Vec::new(),
        notes,
        goals,
        seconds,
    })
}

/// What was found at one size.
#[derive(Default)]
struct Measured {
    sections: Vec<Section>,
    goals: Vec<Goal>,
    notes: Vec<String>,
}

fn measure(
    options: &Options,
    scale: &Scale,
    services: u32,
    endpoints: u32,
    title: &str,
    progress: &mut Progress,
) -> Result<Measured> {
    progress.stage(format!("{title}: making the cluster"));
    let lab = Lab::new()?;
    let follower = Follower::new(&lab, endpoints)?;
    let cluster = Cluster { services, endpoints };
    let server = ApiServer::start(lab.node().namespace(), cluster.objects())?;
    follower.install(&server);
    let mut measured = Measured::default();

    let (mut installed, mut decoded, mut whole) = (Vec::new(), Vec::new(), Vec::new());
    let mut agent = None;
    for start in 0..scale.starts {
        drop(agent.take());
        ensure!(lab.sidestep(&["cleanup"])?.status.success(), "cleanup");
        progress.stage(format!("{title}: start {} of {}", start + 1, scale.starts));
        decoded.push(milliseconds(decode::time(&server)?));
        let before = server.asked().len();
        let began = Instant::now();
        let mut running = Agent::following(&lab, &server);
        running.launch(&lab)?;
        running.wait_until_synced(PATIENCE)?;
        let now = Instant::now();
        // The last byte of the lists, not of a watch.
        let lists = server.asked().split_off(before);
        let last = lists.iter().filter(|asked| !asked.watch).map(|asked| asked.at).max();
        installed.push(milliseconds(now - last.context("the agent asked for no list")?));
        whole.push(milliseconds(now - began));
        let services = services + follow::SERVICES;
        let frontends = Tables::open(lab.pin_directory())?.frontends.keys().count();
        ensure!(frontends == services as usize, "{frontends} frontends of {services} Services");
        agent = Some(running);
    }
    let agent = agent.context("no start")?;
    let in_time = Goal::at_most(
        format!("{title}: ms from the last list byte to everything installed"),
        Summary::of(&installed),
        1000.0,
    );
    let in_proportion = Goal::at_most(
        format!("{title}: the same, as a multiple of decoding"),
        Summary::ratio(&installed, &decoded),
        3.0,
    );
    measured.goals.extend([in_time, in_proportion]);
    measured.sections.push(section(
        format!("{title}: first sync"),
        "ms",
        [
            ("from the last list byte to everything installed", installed),
            ("decoding the same lists, nothing else", decoded),
            ("from the agent's start to everything installed", whole),
        ],
    ));

    let pid = agent.pid().context("the agent runs")?;
    let usage = Usage::of(pid)?;
    let mebibytes = usage.anonymous as f64 / f64::from(1 << 20);
    measured.goals.push(Goal::at_most(
        format!("{title}: RssAnon in MiB after the first sync"),
        Summary::of(&[mebibytes]),
        60.0,
    ));

    let mut rows = Vec::new();
    for pattern in Pattern::ALL {
        progress.stage(format!("{title}: changes, {}", pattern.name()));
        let samples = follower.run(&server, pattern, scale.changes, progress)?;
        let name = format!("{title}: µs from a change to a connection, {}, 99th percentile", pattern.name());
        measured.goals.push(Goal::at_most(name, Summary::of(&[percentile(&samples, 0.99)]), 2000.0));
        rows.push((pattern.name(), samples));
    }
    progress.stage(format!("{title}: round trips of HTTP"));
    let trips = follow::yardstick(&lab, &server, scale.changes)?;
    for (name, samples) in rows.iter().chain([&("yardstick", trips.clone())]) {
        measured.notes.push(format!(
            "{title}, {name}: median {:.0} µs, 99th percentile {:.0} µs, longest {:.0} µs",
            Summary::of(samples).median,
            percentile(samples, 0.99),
            percentile(samples, 1.0)
        ));
    }
    rows.push(("a round trip of HTTP on the loopback, of the same size", trips));
    measured.sections.push(section(format!("{title}: from a change to a connection"), "µs", rows));

    progress.stage(format!("{title}: system calls"));
    let calls = SystemCalls::count(options, pid, || follower.change_only(&server, scale.changes, &lab))?;
    measured.notes.push(format!(
        "{title}: {:.1} system calls a changed EndpointSlice, {:.1} a changed endpoint",
        calls as f64 / scale.changes as f64,
        calls as f64 / scale.changes as f64 / f64::from(endpoints)
    ));

    progress.stage(format!("{title}: {} s of idling", scale.idle.as_secs()));
    std::thread::sleep(Duration::from_secs(2));
    let before = Usage::of(pid)?;
    std::thread::sleep(scale.idle);
    let after = Usage::of(pid)?;
    let seconds =
        after.processor.saturating_sub(before.processor).as_secs_f64() / scale.idle.as_secs_f64() * 60.0;
    measured.goals.push(Goal::at_most(
        format!("{title}: seconds of processor time in 60 idle seconds"),
        Summary::of(&[seconds]),
        0.1,
    ));
    measured.notes.push(format!(
        "{title}: RssAnon {mebibytes:.1} MiB after the first sync, {:.1} MiB after {} changes",
        after.anonymous as f64 / f64::from(1 << 20),
        (Pattern::ALL.len() + 1) * scale.changes
    ));
    Ok(measured)
}

fn section<'a>(
    title: String,
    unit: &'static str,
    rows: impl IntoIterator<Item = (&'a str, Vec<f64>)>,
) -> Section {
    let row = |(name, samples): (&str, Vec<f64>)| Row {
        name: name.to_owned(),
        summary: Summary::of(&samples),
        ratios: Vec::new(),
        samples,
    };
    Section { title, unit, ratios: Vec::new(), rows: rows.into_iter().map(row).collect() }
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

/// The sample below which this part of the samples is.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a rank within the samples")]
fn percentile(samples: &[f64], part: f64) -> f64 {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    let rank = (part * sorted.len() as f64).ceil() as usize;
    sorted.get(rank.saturating_sub(1)).copied().unwrap_or_default()
}

fn method(scale: &Scale) -> Vec<String> {
    vec![
        format!(
            "The agent's release binary follows an API server's double over HTTP on the loopback of the lab's node; \
             {} starts on empty tables.",
            scale.starts
        ),
        "The last list byte: when the double had the last page of a list ready to be sent. Everything installed: when \
         the agent has written so into its report, programs attached; then FRONTENDS is counted."
            .to_owned(),
        "A change replaces every endpoint of one Service by another pod's; from the moment the double is told of it to \
         the moment a client, which connects again and again 50 µs apart, has read the new pod's first byte."
            .to_owned(),
        "Isolated: 20 ms apart. Back to back: at once when the last one was seen. Churn: the same, while 20 other \
         EndpointSlices a second change all their endpoints."
            .to_owned(),
    ]
}
