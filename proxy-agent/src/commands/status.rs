//! `sidestep status`: installed Services, their counters, and the problems.
//!
//! It reads the pinned maps, so it works without the agent; the agent's report adds the problems.

use std::{collections::BTreeMap, fmt::Write as _, net::IpAddr, path::Path, process::ExitCode};

use clap::Args;
use comfy_table::{Table, presets};
use proxy_common::{NodeEvent, Reason};
use serde::Serialize;

use super::{Output, Paths, counts, inventory};
use crate::{
    agent::{Presence, Report, State},
    dataplane::{
        Ahead, Beside, Error, HOOKS, Hooked, PassedNamespace, Tables, Unanswered, Way, Why, bpffs_mounted,
        hooked, is_attached, is_pinned, list_flows, pod_devices, unanswered, uptime,
    },
    model::{Problem, Subject},
};

/// Arguments of `status`.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    paths: Paths,
    /// Output format
    ///
    /// The table is for people and may change between versions; programs read the JSON.
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
    /// Show only Services whose name contains this text
    ///
    /// Matches `NAMESPACE/NAME:PORT` as the table prints it, such as `kube-system/` or `web`. Fails if neither a
    /// Service nor a problem matches.
    filter: Option<String>,
}

/// Everything that `status` knows.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Status {
    agent_running: bool,
    agent_state: State,
    /// What a starting agent waits for, why a running one's report is out of date, or why the last one failed.
    agent_detail: Option<String>,
    agent: Option<Report>,
    attached: Vec<&'static str>,
    detached: Vec<&'static str>,
    /// Those of `detached` that are pinned: their cgroup was removed, or another program detached them.
    severed: Vec<&'static str>,
    /// What works beside Sidestep; nothing if it cannot be looked at.
    beside: Option<Beside>,
    /// The uplinks.
    devices: Vec<AtDevice>,
    /// The devices of pods whose packets are served.
    pod_devices: Vec<AtDevice>,
    services: Vec<inventory::Installed>,
    /// Services with a striking share of unanswered north-south connections.
    unanswered: Vec<NeverAnswered>,
    /// Connections and datagrams that were refused on this node, by reason.
    refusals: BTreeMap<&'static str, u64>,
    /// Other events of sockets and packets.
    events: BTreeMap<&'static str, u64>,
    capacity: Vec<Fill>,
}

/// How many of a Service port's recorded north-south connections were never answered.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct NeverAnswered {
    service: String,
    unanswered: usize,
    connections: usize,
}

/// A device with programs of ours.
#[derive(Debug, Serialize)]
struct AtDevice {
    index: u32,
    /// Nothing if it is gone.
    name: Option<String>,
    way: Way,
    attached: bool,
    /// Programs of others that run before ours.
    ahead: Vec<Ahead>,
    /// Why the agent chose it.
    why: Option<Why>,
    addresses: Vec<IpAddr>,
}

#[derive(Debug, Serialize)]
struct Fill {
    table: &'static str,
    used: usize,
    room: u32,
}

pub(super) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let Paths { pin_dir, run_dir, .. } = &arguments.paths;
    let presence = Presence::of(run_dir);
    let tables = match Tables::open(pin_dir) {
        Err(Error::NoTables(_)) => anyhow::bail!(no_tables(pin_dir, &presence)),
        opened => opened?,
    };
    let agent_in_words = presence.to_string();
    let agent_running = presence.is_running();
    let Presence { state: agent_state, detail: agent_detail, report: agent, pid: _ } = presence;
    let (attached, detached): (Vec<_>, Vec<_>) = HOOKS.iter().partition(|hook| is_attached(pin_dir, hook));
    let mut services = inventory::read(&tables)?;
    let capacity = vec![
        Fill { table: "SERVICES", used: services.len(), room: tables.services.len() },
        Fill {
            table: "ENDPOINTS",
            used: services.iter().map(|service| service.endpoints.len()).sum(),
            room: tables.endpoints.len(),
        },
        // Counts confirmed records only: unconfirmed ones can be evicted.
        Fill { table: "FLOWS", used: tables.flows.count().1, room: tables.flows.room() },
    ];
    if let Some(filter) = &arguments.filter {
        services.retain(|service| service.service.contains(filter.as_str()));
        // The problems name a Service that could not be installed.
        let problems = agent.iter().flat_map(|report| &report.problems);
        if services.is_empty() && !problems.into_iter().any(|problem| is_about(problem, filter)) {
            anyhow::bail!(
                "no Service whose name contains `{filter}` is installed (`sidestep status` shows all)"
            );
        }
    }
    let (devices, pod_devices) = devices(pin_dir, agent.as_ref())?;
    let beside = super::beside(&arguments.paths, agent.as_ref());
    let count = |index| tables.totals.load(index).unwrap_or_default();
    let status = Status {
        agent_running,
        agent_state,
        agent_detail,
        agent,
        beside,
        devices,
        pod_devices,
        attached: attached.iter().map(|hook| hook.name).collect(),
        detached: detached.iter().map(|hook| hook.name).collect(),
        severed: detached.iter().filter(|hook| is_pinned(pin_dir, hook)).map(|hook| hook.name).collect(),
        services,
        unanswered: never_answered(&tables),
        refusals: Reason::ALL.map(|reason| (reason.name(), count(reason as u32))).into(),
        events: NodeEvent::ALL.map(|event| (event.name(), count(event as u32))).into(),
        capacity,
    };
    match arguments.output {
        Output::Json => println!("{}", serde_json::to_string_pretty(&status)?),
        Output::Table => print(&agent_in_words, &status, arguments.filter.as_deref()),
    }
    Ok(ExitCode::SUCCESS)
}

/// Why there are no tables to read.
fn no_tables(pin_dir: &Path, agent: &Presence) -> String {
    let place = pin_dir.display();
    let elsewhere = agent.report.as_ref().filter(|report| report.pin_dir != pin_dir);
    let mut why = match (agent.state, bpffs_mounted(pin_dir).unwrap_or(true)) {
        _ if let Some(Report { pin_dir: other, .. }) = elsewhere
            && !other.as_os_str().is_empty() =>
        {
            format!(
                "no maps under {place}: the agent's are under {}; name that by --pin-dir",
                other.display()
            )
        }
        (State::NeverRan, true) => format!(
            "no maps under {place}: `sidestep run` has not run on this node, or with another --pin-dir"
        ),
        (State::NeverRan, false) => format!(
            "no BPF file system is mounted at {place}: `sidestep run` has not run on this node, or with another \
             --pin-dir"
        ),
        (State::Starting, _) => format!("no maps under {place} yet"),
        (State::Running, false) => format!(
            "the BPF file system at {place} was unmounted while the agent runs: it goes on serving, but everything ends \
             with it; mount one there again (`mount -t bpf bpf /sys/fs/bpf`), and the agent pins its maps and programs \
             anew"
        ),
        (State::Running, true) => format!(
            "the pins of the agent are gone from {place}: its BPF file system was unmounted or replaced while it runs. It \
             goes on serving, and pins its maps and programs anew within a few seconds"
        ),
        (State::Stopped | State::Failed | State::Died, false) => format!(
            "no BPF file system is mounted at {place}: with it went all maps and programs, and no Service is served until \
             an agent starts"
        ),
        (State::Stopped | State::Failed | State::Died, true) => format!(
            "no maps under {place}, though an agent ran here: its BPF file system was unmounted or replaced, or the agent \
             failed before it made any; no Service is served until an agent starts"
        ),
    };
    if agent.state != State::NeverRan {
        let _ = write!(why, "\nagent     {agent}");
    }
    for problem in agent.report.iter().flat_map(|report| &report.problems) {
        let _ = write!(why, "\n  {problem}");
    }
    why
}

/// Combines what the kernel reports as attached with the agent's reasons: uplinks, and devices of pods.
fn devices(pin_dir: &Path, agent: Option<&Report>) -> anyhow::Result<(Vec<AtDevice>, Vec<AtDevice>)> {
    let of_pods = pod_devices(pin_dir)?;
    let device = |Hooked { index, way, attached, ahead }| {
        let all = agent.into_iter().flat_map(|report| report.devices.iter().chain(&report.pod_devices));
        let told = all.into_iter().find(|device| device.index == index);
        let name = nix::net::if_::if_indextoname(index).ok();
        AtDevice {
            index,
            name: name.map(|name| name.to_string_lossy().into_owned()),
            way,
            attached,
            ahead,
            why: told.map(|device| device.why),
            addresses: told.map(|device| device.addresses.clone()).unwrap_or_default(),
        }
    };
    Ok(hooked(pin_dir)?.into_iter().map(device).partition(|device| !of_pods.contains(&device.index)))
}

fn never_answered(tables: &Tables) -> Vec<NeverAnswered> {
    let told = |(index, count): (u32, Unanswered)| NeverAnswered {
        service: inventory::name_of(tables, index),
        unanswered: count.unanswered,
        connections: count.connections,
    };
    let counts = unanswered(&list_flows(tables), uptime());
    counts.into_iter().filter(|(_, count)| count.is_striking()).map(told).collect()
}

fn print(agent: &str, status: &Status, filter: Option<&str>) {
    println!("agent     {agent}");
    if let Some(progress) = status.agent.as_ref().and_then(|report| report.takeover.as_ref()) {
        println!("takeover  {progress}");
    }
    if status.detached.is_empty() {
        println!("programs  all {} attached", status.attached.len());
    } else {
        println!("programs  NOT attached: {}", status.detached.join(", "));
    }
    if !status.severed.is_empty() {
        println!(
            "          severed: {}: the cgroup was removed, or another program detached them; restart the agent",
            status.severed.join(", ")
        );
    }
    for told in status.beside.iter().flat_map(Beside::excluded) {
        println!("          {told}");
    }
    match status.devices.as_slice() {
        [] => println!("devices   none: north-south traffic is not served"),
        devices => {
            let described: Vec<String> = devices.iter().map(describe).collect();
            println!("devices   {}", described.join("\n          "));
        }
    }
    if let [first, others @ ..] = status.pod_devices.as_slice() {
        let name = first.name.as_deref().unwrap_or("one that is gone");
        match others.len() {
            0 => println!("pods      {name}"),
            count => println!("pods      {name} and {count} more devices"),
        }
    }
    if status.agent.as_ref().is_some_and(|report| report.host_only) {
        println!(
            "bypass    the socket programs serve the node's own network namespace alone (--socket-lb host-only)"
        );
    }
    let passed_by: Vec<String> =
        status.agent.iter().flat_map(|report| &report.passed_by).map(passed).collect();
    if !passed_by.is_empty() {
        println!("bypass    {}", passed_by.join("\n          "));
    }
    for Fill { table, used, room } in &status.capacity {
        // The others can be evicted.
        let which = if *table == "FLOWS" { " confirmed" } else { "" };
        println!("{:<9} {used}{which} of {room}", table.to_lowercase());
    }
    println!("refused   {}", counts(&status.refusals, ", ").unwrap_or_else(|| "nothing".to_owned()));
    if let Some(events) = counts(&status.events, ", ") {
        println!("events    {events}");
    }
    println!();

    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(["SERVICE", "FRONTENDS", "ENDPOINTS", "AFFINITY", "CONNECTIONS", "REFUSED"]);
    for service in &status.services {
        let mut frontends: Vec<String> = service
            .frontends
            .iter()
            .map(|frontend| format!("{} {}", frontend.address, frontend.kind))
            .collect();
        frontends.extend(service.source_ranges.as_ref().map(|ranges| match ranges.as_slice() {
            [] => "LoadBalancer for no client".to_owned(),
            ranges => format!("LoadBalancer only from {}", ranges.join(", ")),
        }));
        let affinity = match service.affinity_seconds {
            0 => "-".to_owned(),
            seconds => format!("{seconds}s, {} kept", service.affinity_hits),
        };
        table.add_row([
            service.service.clone(),
            frontends.join("\n"),
            endpoints(service),
            affinity,
            service.connections.to_string(),
            counts(&service.refusals, "\n").unwrap_or_else(|| "0".to_owned()),
        ]);
    }
    println!("{table}");
    for NeverAnswered { service, unanswered, connections } in &status.unanswered {
        println!(
            "\n{service}: {unanswered} of {connections} north-south connections were never answered: an \
             endpoint does not answer, or its answers bypass this node (`sidestep flows` shows which)"
        );
    }
    let problems = status.agent.as_ref().map_or(&[][..], |report| &report.problems);
    let is_object = |problem: &Problem| matches!(problem.subject, Subject::Object(_));
    let is_meant =
        |problem: &&Problem| !is_object(problem) || filter.is_none_or(|filter| is_about(problem, filter));
    let meant: Vec<&Problem> = problems.iter().filter(is_meant).collect();
    if !meant.is_empty() {
        println!("\nproblems:");
    }
    for problem in &meant {
        println!("  {problem}");
    }
    match problems.len() - meant.len() {
        0 => {}
        others => println!("\nproblems of others: {others} (`sidestep status` lists them)"),
    }
}

/// Whether a problem is of an object that matches the filter; it has no port in its name.
fn is_about(problem: &Problem, filter: &str) -> bool {
    problem.subject.to_string().contains(filter.split(':').next().unwrap_or_default())
}

/// A network namespace that is passed by, in a line.
fn passed(PassedNamespace { cookie, place, why }: &PassedNamespace) -> String {
    let place = if place.as_os_str().is_empty() {
        format!("network namespace {cookie}")
    } else {
        place.display().to_string()
    };
    format!("{place}: {}, {}", why.name(), why.explanation())
}

/// A device in a line.
fn describe(device: &AtDevice) -> String {
    let AtDevice { index, name, way, attached, ahead, why, addresses } = device;
    let mut line = name.clone().unwrap_or_else(|| format!("device {index}, now gone"));
    let _ = write!(line, " ({way}");
    if let Some(why) = why {
        let _ = write!(line, ", {why}");
    }
    for address in addresses {
        let _ = write!(line, ", {address}");
    }
    line.push(')');
    for program in ahead {
        let _ = write!(line, "; before ours at {}: {program}", program.direction);
    }
    if !attached {
        line.push_str(": NOT attached; a running agent attaches it again");
    }
    line
}

/// At most a few endpoints by address, then how many more.
fn endpoints(service: &inventory::Installed) -> String {
    const SHOWN: usize = 4;
    if let Some(why) = service.not_served {
        return why.to_owned();
    }
    let mut lines: Vec<String> =
        service.refuses.map(|reason| format!("refused: {reason}")).into_iter().collect();
    for endpoint in service.endpoints.iter().take(SHOWN) {
        let note = match (endpoint.usable.as_slice(), endpoint.serving) {
            // It drains, or topology or policy leaves it out here: the tables do not tell which.
            ([], _) => " (no new connections)".to_owned(),
            (["cluster", "inside", "outside"], true) => String::new(),
            (["cluster", "inside", "outside"], false) => " (not serving)".to_owned(),
            (sets, _) => format!(" ({} only)", sets.join(", ")),
        };
        lines.push(format!("{}{note}", endpoint.address));
    }
    if service.endpoints.len() > SHOWN {
        lines.push(format!("and {} more", service.endpoints.len() - SHOWN));
    }
    lines.join("\n")
}
