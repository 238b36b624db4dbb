//! The soak's changes to the Service and restarts of the agent.

use std::time::{Duration, Instant};

use anyhow::Result;

use super::ledger::{Event, Ledger};
use crate::{Agent, TwoNodes, place::Place, random::Random, two_nodes::web};

/// How often the Service's endpoints change.
const CHANGE: Duration = Duration::from_millis(300);
/// How often the agent ends.
const END: Duration = Duration::from_secs(12);
/// How long no agent runs then.
const AWAY: Duration = Duration::from_secs(2);
/// Between looks at the clock.
const PAUSE: Duration = Duration::from_millis(10);

/// The source of changes, with the times of the next ones.
pub(super) struct Changes<'a> {
    nodes: &'a TwoNodes,
    pods: Vec<&'a Place>,
    agent: Agent,
    random: Random,
    change: Instant,
    end: Instant,
    start: Option<Instant>,
}

impl<'a> Changes<'a> {
    pub(super) fn new(nodes: &'a TwoNodes, pods: Vec<&'a Place>, agent: Agent) -> Self {
        let now = Instant::now();
        Self { nodes, pods, agent, random: Random::new(7), change: now, end: now + END, start: None }
    }

    /// Does what is due.
    pub(super) fn step(&mut self, ledger: &Ledger) -> Result<()> {
        std::thread::sleep(PAUSE);
        let now = Instant::now();
        if now >= self.change {
            self.change = now + CHANGE;
            let some: Vec<&Place> = self.pods.iter().copied().filter(|_| !self.random.once_in(3)).collect();
            // At least one endpoint stays: other scenarios cover Services without endpoints.
            let some = if some.is_empty() { vec![self.random.one_of(&self.pods)] } else { some };
            self.nodes.publish_places("web", &web(), &some)?;
            ledger.count(Event::Change, 1);
        }
        if now >= self.end {
            self.end = now + END;
            if self.random.once_in(2) {
                self.agent.kill()?;
            } else {
                self.agent.stop()?;
            }
            self.start = Some(now + AWAY);
        }
        if self.start.is_some_and(|start| now >= start) {
            self.start = None;
            self.agent.restart(self.nodes.lab())?;
            ledger.count(Event::Restart, 1);
        }
        Ok(())
    }

    /// Leaves the agent running.
    pub(super) fn settle(&mut self) -> Result<()> {
        match self.start.take() {
            Some(_) => self.agent.restart(self.nodes.lab()),
            None => Ok(()),
        }
    }
}
