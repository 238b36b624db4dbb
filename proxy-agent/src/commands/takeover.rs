//! `sidestep takeover`: removes kube-proxy's rules without breaking its connections.

use std::process::ExitCode;

use anyhow::{bail, ensure};
use clap::Args;

use super::{
    Paths,
    patience::{Patience, left, told},
};
use crate::{
    agent::report,
    dataplane::{KubeProxyTable, Takeover, has_ipvs, not_read},
};

/// Arguments of `takeover`.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    paths: Paths,
    /// Show what would be removed, and remove nothing
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    patience: Patience,
}

pub(super) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let Arguments { paths, dry_run, patience } = arguments;
    ensure!(
        !has_ipvs(),
        "kube-proxy's mode is ipvs (there is a device kube-ipvs0), and its connections end with its rules: drain the \
         node, then `ipvsadm --clear; ip link delete kube-ipvs0`, or reboot"
    );
    check_agent(paths)?;
    let mut takeover = Takeover::open(&paths.pin_dir)?;
    let found = takeover.found()?;
    if found.is_over {
        return Ok(end("kube-proxy has no rules here"));
    }
    found.tables.iter().for_each(show);
    if *dry_run {
        println!("connections of kube-proxy's: {}", told(&takeover.count()?));
        return Ok(ExitCode::SUCCESS);
    }
    if found.decides {
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
    Ok(end("done: nothing of kube-proxy's is left"))
}

/// Refuses where nobody would serve what kube-proxy served.
fn check_agent(paths: &Paths) -> anyhow::Result<()> {
    let Some((report, true)) = report::read(&paths.run_dir) else {
        bail!("no agent runs here, so nobody would serve what kube-proxy served: start it first");
    };
    ensure!(report.synced, "the agent has not installed all Services yet: see `sidestep status`");
    ensure!(
        !report.devices.is_empty(),
        "no device serves north-south traffic, so nobody would serve kube-proxy's NodePorts: see `sidestep status`"
    );
    for problem in &report.problems {
        eprintln!("problem: {problem}");
    }
    Ok(())
}

/// Says what the end is, unless there are rules that are not looked at.
fn end(said: &str) -> ExitCode {
    let not_read = not_read();
    if not_read.is_empty() {
        println!("{said}");
        return ExitCode::SUCCESS;
    }
    println!(
        "not looked at: {} (`iptables-legacy-save | grep KUBE-` shows whether kube-proxy's rules are there; a reboot \
         removes them)",
        not_read.join(", ")
    );
    left()
}

fn show(table: &KubeProxyTable) {
    let KubeProxyTable { table, mode, chains, used_by_others } = table;
    println!("table {table}: {chains} chains of kube-proxy's, mode {mode}");
    if !used_by_others.is_empty() {
        let names: Vec<&str> = used_by_others.iter().map(String::as_str).collect();
        println!("  rules of others jump to {}: these chains stay", names.join(", "));
    }
}
