//! The two agents, and what happens to them.

use std::{
    ffi::OsString,
    path::PathBuf,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use nix::sys::signal::Signal;

use super::{
    Shared,
    disturbance::{SIZES, Sequence, ToAgent},
    ledger::{Event, Promise},
};
use crate::Agent;

/// How long both may take to start at the beginning.
const START: Duration = Duration::from_secs(30);

/// How long the next disturbance waits for an agent that starts.
const PATIENCE: Duration = Duration::from_secs(3);

/// An agent on each node.
#[derive(Debug)]
pub(super) struct Agents {
    each: [Agent; 2],
    url: String,
    /// The place of each one's sizes in [`SIZES`].
    sizes: [usize; 2],
    /// The place of each one's version in the list.
    versions: [usize; 2],
    binaries: Vec<PathBuf>,
}

impl Agents {
    /// Starts both, and waits until they have installed everything.
    pub(super) fn start(agents: [Agent; 2], url: String, shared: &Shared) -> Result<Self> {
        let binaries = shared.settings.binaries.clone();
        let mut agents = Self { each: agents, url, sizes: [0; 2], versions: [0; 2], binaries };
        for node in [0, 1] {
            agents.set(node);
            agents.each[node].start_process()?;
            agents.each[node].wait_until_synced(START).with_context(|| format!("node {node}"))?;
        }
        Ok(agents)
    }

    /// Has the next start of a node's agent use its version and sizes.
    fn set(&mut self, node: usize) {
        let source = ["--server", &self.url].into_iter().chain(SIZES[self.sizes[node]]);
        let binary = self.binaries.get(self.versions[node]).cloned();
        self.each[node].change(source.map(OsString::from).collect(), binary);
    }

    /// How many times the agents made their tables bigger, and smaller.
    pub(super) fn resizes(&self) -> [u64; 2] {
        ["made the tables bigger", "made the tables smaller"]
            .map(|line| self.each.iter().map(|agent| agent.logged(line) as u64).sum())
    }

    /// Ends a node's agent, by either signal.
    fn end(&mut self, node: usize, signal: Signal, shared: &Shared) -> Result<()> {
        shared.calm.disturb(node);
        if signal == Signal::SIGKILL {
            self.each[node].kill()
        } else {
            let status = self.each[node].stop()?;
            if !status.success() {
                shared.ledger.broke(Promise::Deaf, || format!("node {node}: the agent ended with {status}"));
            }
            Ok(())
        }
    }

    /// Starts a node's agent, and waits until it has installed everything, but not for ever: without an API server it
    /// does not, and suffers the next thing all the same.
    fn begin(&mut self, node: usize, shared: &Shared) -> Result<()> {
        self.each[node].start_process()?;
        shared.calm.settle(node);
        let start = Instant::now();
        while !shared.is_over() && start.elapsed() < PATIENCE {
            if self.each[node].is_synced()? {
                shared.ledger.started(start.elapsed());
                break;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }

    fn suffer(&mut self, node: usize, what: ToAgent, away: Duration, shared: &Shared) -> Result<()> {
        let mut signal = Signal::SIGTERM;
        let event = match what {
            ToAgent::Kill => {
                signal = Signal::SIGKILL;
                Event::Kill
            }
            ToAgent::Stop => Event::Stop,
            ToAgent::KillAtStart(after) => {
                self.end(node, Signal::SIGKILL, shared)?;
                self.each[node].start_process()?;
                shared.rest(after);
                shared.calm.settle(node);
                signal = Signal::SIGKILL;
                Event::KillAtStart
            }
            ToAgent::Resize(sizes) => {
                self.sizes[node] = sizes;
                Event::Resize
            }
            ToAgent::Replace(further) => {
                let before = self.versions[node];
                self.versions[node] = (before + further) % self.binaries.len();
                if self.versions[node] > before { Event::Upgrade } else { Event::Downgrade }
            }
            ToAgent::Freeze(time) => {
                shared.calm.disturb(node);
                self.each[node].signal(Signal::SIGSTOP)?;
                shared.rest(time);
                self.each[node].signal(Signal::SIGCONT)?;
                shared.calm.settle(node);
                shared.ledger.count(Event::Freeze, 1);
                return Ok(());
            }
        };
        self.set(node);
        self.end(node, signal, shared)?;
        shared.rest(away);
        shared.ledger.count(event, 1);
        self.begin(node, shared)
    }
}

/// Disturbs them until the end; they run then.
pub(super) fn disturb(mut agents: Agents, shared: &Shared) -> Result<Agents> {
    let mut sequence = Sequence::of_agents(shared.settings.seed);
    loop {
        let (rest, node, what, away) = sequence.for_an_agent(agents.binaries.len());
        if !shared.rest(rest) {
            return Ok(agents);
        }
        agents
            .suffer(node, what, away, shared)
            .with_context(|| format!("the agent of node {node}, {what:?}"))?;
    }
}
