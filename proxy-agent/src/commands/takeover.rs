//! `sidestep takeover`: removes kube-proxy's rules without breaking its connections.

use std::process::ExitCode;

use anyhow::{bail, ensure};
use clap::Args;

use super::{
    Paths,
    patience::{Patience, told},
};
use crate::{
    agent::report,
    dataplane::{KubeProxyTable, Takeover, not_taken_over},
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
    match report::read(&paths.run_dir) {
        Some((report, true)) if report.synced => {}
        Some((_, true)) => bail!("the agent has not installed all Services yet: see `sidestep status`"),
        _ => bail!("no agent runs here, so nobody would serve what kube-proxy served: start it first"),
    }
    for problem in not_taken_over() {
        eprintln!("not taken over: {problem}");
    }
    let takeover = Takeover::open(&paths.pin_dir)?;
    let found = takeover.found()?;
    if found.is_over {
        println!("kube-proxy has no rules here");
        return Ok(ExitCode::SUCCESS);
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
    if may_finish {
        takeover.finish()?;
        println!("done: nothing of kube-proxy's is left");
    }
    Ok(ExitCode::SUCCESS)
}

fn show(table: &KubeProxyTable) {
    let KubeProxyTable { table, mode, chains, used_by_others } = table;
    println!("table {table}: {chains} chains of kube-proxy's, mode {mode}");
    if !used_by_others.is_empty() {
        let names: Vec<&str> = used_by_others.iter().map(String::as_str).collect();
        println!("  rules of others jump to {}: these chains stay", names.join(", "));
    }
}
