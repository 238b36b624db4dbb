//! Changes while traffic flows.

use std::time::Duration;

use anyhow::{Context, Result};
use sidestep_tests::{Agent, Lab, bpftool, cluster::at, eventually::wait_for, pressure::Pressure};

use crate::demo::{cast::Cast, table::Row};

const WEB: &str = "10.96.0.10:80";
const DNS: &str = "10.96.0.53:53";
/// Longest wait for a change to take effect.
const PATIENCE: Duration = Duration::from_secs(10);

/// A pod drains, then its server ends; no request fails.
pub(in crate::demo) fn a_pod_goes_away(lab: &Lab, cast: &mut Cast) -> Result<Row> {
    let mut row = Row::new("web-3 goes away under traffic", WEB);
    let before: Vec<u64> = cast.web.iter().map(|(server, _)| server.connections()).collect();
    let pressure = Pressure::start(&cast.client, at(WEB), at(DNS));
    let (leaver, pod) = cast.web.last().context("three web servers")?;
    wait_for(PATIENCE, "web-3 is busy", || leaver.connections() > before[2] + 100)?;

    let file = lab.manifests().directory().join("web.yaml");
    let web = std::fs::read_to_string(&file)?;
    let entry = format!(
        "- addresses: [\"{}\"]\n  conditions: {{ready: true, serving: true, terminating: false}}",
        pod.v4
    );
    let draining =
        entry.replace("ready: true", "ready: false").replace("terminating: false", "terminating: true");
    anyhow::ensure!(web.contains(&entry), "{} has no entry of web-3", file.display());
    lab.manifests().write_text("web.yaml", &web.replace(&entry, &draining))?;
    let took = wait_for(PATIENCE, "web-3 gets no new connection", || {
        let before = leaver.connections();
        std::thread::sleep(Duration::from_millis(50));
        leaver.connections() == before
    })?;
    let mut connections = vec![leaver.connections()];
    cast.web.pop().context("three web servers")?.0.stop();
    std::thread::sleep(Duration::from_millis(500));

    let outcome = pressure.stop();
    row.requests = outcome.requests;
    connections.splice(0..0, cast.web.iter().map(|(server, _)| server.connections()));
    let names = ["web-1", "web-2", "web-3"].map(str::to_owned);
    row.spread =
        names.into_iter().zip(connections.iter().zip(before).map(|(now, before)| now - before)).collect();
    row.note =
        format!("{} failed; web-3 not chosen {} ms after the change", outcome.failed, took.as_millis());
    row.flaws = outcome.failures;
    Ok(row)
}

/// `kill -9` of the agent, traffic without it, and a new one that takes over.
pub(in crate::demo) fn the_agent_crashes(lab: &Lab, cast: &Cast, agent: &mut Agent) -> Result<Row> {
    let mut row = Row::new("the agent: kill -9, restart", format!("{WEB} {DNS}"));
    let before = bpftool::pinned_ids(lab.pin_directory())?;
    let pressure = Pressure::start(&cast.client, at(WEB), at(DNS));
    std::thread::sleep(Duration::from_millis(200));
    agent.kill()?;
    std::thread::sleep(Duration::from_millis(500));
    agent.restart(lab)?;
    std::thread::sleep(Duration::from_millis(200));
    let outcome = pressure.stop();
    let after = bpftool::pinned_ids(lab.pin_directory())?;
    row.requests = outcome.requests;
    row.flaws = outcome.failures;
    row.expect(before == after, || format!("maps and links changed: {before:?} {after:?}"));
    row.note = format!("{} failed; the same {} maps and links", outcome.failed, after.len());
    Ok(row)
}
