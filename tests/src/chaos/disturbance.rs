//! What happens, and in which order. Both sequences follow from the seed alone: the same seed brings the same, whatever
//! comes of it. (How much of it happens in a given time is up to the machine.)

use std::time::Duration;

use crate::random::Random;

/// Something that happens to an agent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum ToAgent {
    /// It is killed, and started again after a while.
    Kill,
    /// It is asked to end, and started again after a while.
    Stop,
    /// It is killed, and its successor too, while that starts: after this time.
    KillAtStart(Duration),
    /// It is started again with other sizes: a choice among [`SIZES`].
    Resize(usize),
    /// It is replaced by another version: this many further in the list.
    Replace(usize),
    /// It stands still, and goes on.
    Freeze(Duration),
}

/// Sizes for a restart, all of them beyond what is ever installed.
pub(super) const SIZES: [[&str; 4]; 3] = [
    ["--max-services=131072", "--max-frontends=262144", "--max-endpoints=262144", "--max-flows=65856"],
    ["--max-services=32768", "--max-frontends=65536", "--max-endpoints=65536", "--max-flows=65856"],
    ["--max-services=262144", "--max-frontends=524288", "--max-endpoints=524288", "--max-flows=131712"],
];

/// Something that happens in the cluster.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum InCluster {
    /// The judged Service gets these endpoints of its four.
    Endpoints(u8),
    /// The API server goes away for a while.
    Away(Duration),
    /// It answers nothing for a while, and is then started again.
    Silence(Duration),
    /// Its answers and watches are faulty for a while.
    Lies(Duration),
    /// It forgets its history: watches from before have to begin anew.
    Forgets,
    /// Services come, change and go in quick succession: this many of a hundred parts of the most.
    Flood(u32),
    /// Services come, stay for a while, and go.
    Crowd(Duration),
}

/// A sequence; it has no end.
#[derive(Debug)]
pub(super) struct Sequence(Random);

impl Sequence {
    /// What happens to agents.
    pub(super) fn of_agents(seed: u64) -> Self {
        Self(Random::new(seed))
    }

    /// What happens in the cluster.
    pub(super) fn of_cluster(seed: u64) -> Self {
        Self(Random::new(seed.wrapping_add(0x5eed)))
    }

    fn between(&mut self, least: u32, most: u32) -> Duration {
        Duration::from_millis((least + self.0.below(most - least)).into())
    }

    /// The next thing to an agent: how long before it nothing happens, which node's, and how long the agent is away.
    pub(super) fn for_an_agent(&mut self, versions: usize) -> (Duration, usize, ToAgent, Duration) {
        let (rest, node, away) = (self.between(100, 1500), self.0.index(2), self.between(0, 2000));
        let what = match self.0.below(if versions > 1 { 12_u32 } else { 9 }) {
            0..3 => ToAgent::Kill,
            3..5 => ToAgent::Stop,
            5 | 6 => ToAgent::KillAtStart(self.between(0, 600)),
            7 => ToAgent::Resize(self.0.index(SIZES.len())),
            8 => ToAgent::Freeze(self.between(500, 4000)),
            _ => ToAgent::Replace(1 + self.0.index(versions - 1)),
        };
        (rest, node, what, away)
    }

    /// The next thing in the cluster, and how long before it nothing happens.
    pub(super) fn in_cluster(&mut self) -> (Duration, InCluster) {
        let rest = self.between(50, 400);
        let what = match self.0.below(40_u32) {
            0 | 1 => InCluster::Away(self.between(500, 8000)),
            2 => InCluster::Silence(self.between(1000, 6000)),
            3 | 4 => InCluster::Lies(self.between(1000, 6000)),
            5 => InCluster::Forgets,
            6..9 => InCluster::Flood(10 + self.0.below(90_u32)),
            9 => InCluster::Crowd(self.between(1000, 5000)),
            _ => InCluster::Endpoints(1 + self.0.below(15_u8)),
        };
        (rest, what)
    }
}

#[cfg(test)]
mod tests {
    use super::{InCluster, Sequence, ToAgent};

    #[test]
    fn a_seed_brings_the_same_and_everything_happens() {
        let agents = |seed| {
            let mut sequence = Sequence::of_agents(seed);
            (0..300).map(|_| sequence.for_an_agent(2)).collect::<Vec<_>>()
        };
        assert_eq!(agents(7), agents(7));
        assert_ne!(agents(7), agents(8));
        let kinds: std::collections::HashSet<_> =
            agents(7).iter().map(|(.., what, _)| std::mem::discriminant(what)).collect();
        assert_eq!(kinds.len(), 6);
        let mut alone = Sequence::of_agents(7);
        assert!(
            (0..300).all(|_| !matches!(alone.for_an_agent(1).2, ToAgent::Replace(_))),
            "nothing to replace it by"
        );

        let mut sequence = Sequence::of_cluster(7);
        let cluster: Vec<InCluster> = (0..1000).map(|_| sequence.in_cluster().1).collect();
        let kinds: std::collections::HashSet<_> = cluster.iter().map(std::mem::discriminant).collect();
        assert_eq!(kinds.len(), 7);
        let never_none = |what: &InCluster| !matches!(what, InCluster::Endpoints(0 | 16..));
        assert!(cluster.iter().all(never_none), "a judged Service always has an endpoint");
    }
}
