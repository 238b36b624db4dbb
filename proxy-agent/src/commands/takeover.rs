//! `sidestep takeover`: removes kube-proxy's rules without breaking its connections, if Sidestep serves what they serve.

use std::process::ExitCode;

use anyhow::{bail, ensure};
use clap::Args;

use super::{
    Output, Paths,
    patience::{Patience, left, told},
};
use crate::{
    agent::{Presence, Report},
    dataplane::{Comparison, Difference, Found, KubeProxyTable, Running, Takeover, not_supported, running},
};

/// How many differences that do not matter are told one by one.
const TOLD: usize = 20;

/// Arguments of `takeover`.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    paths: Paths,
    /// Show what would be removed, and remove nothing
    ///
    /// Compares, too, with the exit status of --compare.
    #[arg(long)]
    dry_run: bool,
    /// Only compare what kube-proxy serves with what Sidestep serves
    ///
    /// Service by Service: frontends, endpoints for clients on and outside the node, affinity and its seconds, source
    /// ranges. kube-proxy may still run. The exit status is 1 if a difference matters, that is, if clients would notice
    /// it once kube-proxy's rules are gone.
    #[arg(long, conflicts_with = "dry_run")]
    compare: bool,
    /// Remove the rules although a difference matters
    #[arg(long)]
    despite_differences: bool,
    /// Output format of --compare
    ///
    /// The table is for people and may change between versions; programs read the JSON.
    #[arg(short, long, value_enum, default_value_t, requires = "compare")]
    output: Output,
    #[command(flatten)]
    patience: Patience,
}

pub(super) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let Arguments { paths, dry_run, compare, despite_differences, output, patience } = arguments;
    if let Some(why) = not_supported() {
        bail!(why);
    }
    let (report, running) = check_agent(paths, *compare)?;
    // The agent's container may have it elsewhere.
    let cgroup_root = if report.cgroup_root.exists() { report.cgroup_root } else { paths.cgroup_root()? };
    let mut takeover = Takeover::open(&paths.pin_dir, &cgroup_root)?;
    if *compare {
        let compared = takeover.compare(!running.all().is_empty())?;
        match output {
            Output::Json => println!("{}", serde_json::to_string_pretty(&compared)?),
            Output::Table => print(&compared),
        }
        return Ok(status(&compared));
    }
    let found = takeover.found()?;
    if found.is_over {
        println!("kube-proxy has no rules here");
        return Ok(ExitCode::SUCCESS);
    }
    found.tables.iter().for_each(show);
    if *dry_run {
        println!("connections of kube-proxy's: {}", told(&takeover.count()?));
        return Ok(status(&compared(&takeover, &found, &running)?));
    }
    if found.decides {
        if let [process, ..] = &running.processes[..] {
            bail!("{process} still runs, and would write its rules again: stop it first");
        }
        for listener in &running.listeners {
            eprintln!(
                "problem: {listener}, as kube-proxy does: if it is kube-proxy, it writes its rules again"
            );
        }
        let compared = compared(&takeover, &found, &running)?;
        let count = compared.that_matter().count();
        ensure!(
            count == 0 || *despite_differences,
            "{count} differences matter, so kube-proxy's rules stay: mend them, or give --despite-differences"
        );
        takeover.remove()?;
        println!("removed the rules that decide: new connections are Sidestep's");
    }
    let may_finish = patience.outlasts("kube-proxy's", || {
        ensure!(
            !takeover.found()?.decides,
            "kube-proxy has written its rules again: it still runs. Stop it first"
        );
        Ok(takeover.left()?)
    })?;
    if !may_finish {
        return Ok(left());
    }
    takeover.finish()?;
    let (connected, lost) = takeover.reconnected();
    if connected > 0 {
        println!("connected {connected} UDP sockets to their Services again");
    }
    if lost > 0 {
        eprintln!(
            "problem: {lost} connected UDP sockets could not be connected to their Services again: no process that is \
             visible here holds them; restart what uses them"
        );
    }
    println!("done: nothing of kube-proxy's is left");
    Ok(ExitCode::SUCCESS)
}

/// Refuses where nobody would serve what kube-proxy served, or nothing can be compared yet. Returns the agent's report, and
/// what runs of kube-proxy's.
fn check_agent(paths: &Paths, compare: bool) -> anyhow::Result<(Report, Running)> {
    let agent = Presence::of(&paths.run_dir);
    if !agent.is_running() {
        bail!("no agent runs here, so nobody would serve what kube-proxy served: start it first");
    }
    let (None, Some(report)) = (&agent.detail, agent.report.clone()) else {
        bail!("the agent has left no report: {agent}");
    };
    ensure!(report.synced, "the agent has not installed all Services yet: see `sidestep status`");
    ensure!(
        compare || !report.devices.is_empty(),
        "no device serves north-south traffic, so nobody would serve kube-proxy's NodePorts: see `sidestep status`"
    );
    for problem in report.problems.iter().filter(|_| !compare) {
        eprintln!("problem: {problem}");
    }
    let running = running(report.pid);
    Ok((report, running))
}

/// Compares, and prints it, if there are rules that decide.
fn compared(takeover: &Takeover, found: &Found, running: &Running) -> anyhow::Result<Comparison> {
    if !found.decides {
        return Ok(Comparison::default());
    }
    let compared = takeover.compare(!running.all().is_empty())?;
    print(&compared);
    Ok(compared)
}

fn status(compared: &Comparison) -> ExitCode {
    if compared.that_matter().next().is_none() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn print(compared: &Comparison) {
    let Comparison { frontends, services, differences, not_understood } = compared;
    let (matter, others): (Vec<&Difference>, Vec<_>) = differences.iter().partition(|one| one.matters);
    println!(
        "compared {frontends} frontends of {services} Service ports: {} differences matter, {} do not",
        matter.len(),
        others.len()
    );
    for one in matter {
        println!("  matters: {one}");
    }
    for one in others.iter().take(TOLD) {
        println!("  does not matter: {one}");
    }
    if others.len() > TOLD {
        println!("  and {} more that do not matter (`--compare -o json` has all)", others.len() - TOLD);
    }
    for rule in not_understood {
        println!("  not understood: {rule}");
    }
}

fn show(table: &KubeProxyTable) {
    let KubeProxyTable { table, mode, chains, used_by_others } = table;
    println!("table {table}: {chains} chains of kube-proxy's, mode {mode}");
    if !used_by_others.is_empty() {
        let names: Vec<&str> = used_by_others.iter().map(String::as_str).collect();
        println!("  rules of others jump to {}: these chains stay", names.join(", "));
    }
}
