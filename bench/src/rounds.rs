//! Interleaving: a round runs a few milliseconds of every cell, each round in an order of its own.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

use crate::{
    progress::Progress,
    worker::{Target, Task, Worker, Workload},
};

/// A compared measurement: a worker and its operation.
#[derive(Clone, Debug)]
pub(crate) struct Cell {
    /// Its name in tables.
    pub(crate) name: String,
    /// Index of its worker.
    pub(crate) worker: usize,
    /// Where it connects to.
    pub(crate) target: Target,
}

/// How long an interleaving may be.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Budget {
    /// At most so many rounds.
    pub(crate) rounds: usize,
    /// At most so long, but never less than [`Budget::LEAST`] rounds.
    pub(crate) time: Duration,
    /// How long one cell's turn is.
    pub(crate) turn: Duration,
}

impl Budget {
    /// The least number of rounds.
    const LEAST: usize = 10;

    /// Whether there has been enough.
    pub(crate) fn is_spent(&self, rounds: usize, start: Instant) -> bool {
        rounds >= self.rounds || (rounds >= Self::LEAST && start.elapsed() > self.time)
    }
}

/// Rounds that only warm up.
const WARM_UP: usize = 3;

/// Of one cell, round by round.
#[derive(Clone, Debug, Default)]
pub(crate) struct Samples {
    /// Nanoseconds of an operation.
    pub(crate) wall: Vec<f64>,
    /// Nanoseconds of processor time of an operation.
    pub(crate) processor: Vec<f64>,
}

/// Runs `workload` in all cells.
pub(crate) fn interleave(
    workers: &mut [Worker],
    cells: &[Cell],
    workload: Workload,
    budget: Budget,
    progress: &mut Progress,
) -> Result<Vec<Samples>> {
    let operations = calibrate(workers, cells, workload, budget.turn)?;
    let mut samples = vec![Samples::default(); cells.len()];
    let mut round = 0;
    let mut start = Instant::now();
    while round < WARM_UP || !budget.is_spent(round - WARM_UP, start) {
        for index in order(cells.len(), round) {
            let Cell { name, worker, target } = &cells[index];
            let task = Task { workload, target: *target, operations: operations[index] };
            let done = workers[*worker].run(&task).with_context(|| name.clone())?;
            if round >= WARM_UP {
                samples[index].wall.push(done.each());
                samples[index].processor.push(done.processor as f64 / done.operations as f64);
            }
        }
        round += 1;
        if round == WARM_UP {
            start = Instant::now();
        }
        progress.tick(round, budget.rounds + WARM_UP);
    }
    Ok(samples)
}

/// The cells of a round, shuffled: no cell has always the same neighbour, whose frees and cache lines it would get.
/// The same order in every run, so that runs can be compared.
pub(crate) fn order(cells: usize, round: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..cells).collect();
    let mut state = (round as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    for place in (1..cells).rev() {
        // splitmix64
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb) >> 32;
        order.swap(place, usize::try_from(mixed).unwrap_or_default() % (place + 1));
    }
    order
}

/// How many operations of each cell fit into a turn.
fn calibrate(workers: &mut [Worker], cells: &[Cell], workload: Workload, turn: Duration) -> Result<Vec<u32>> {
    const TRIAL: u32 = 48;
    // Fewer than wait in a server's queue.
    const MOST: u64 = 16_000;
    let mut operations = Vec::with_capacity(cells.len());
    for Cell { name, worker, target } in cells {
        let mut best = u64::MAX;
        for _ in 0..3 {
            let task = Task { workload, target: *target, operations: TRIAL };
            best = best.min(workers[*worker].run(&task).with_context(|| name.clone())?.nanoseconds);
        }
        let one = (best / u64::from(TRIAL)).max(1);
        let fitting = u64::try_from(turn.as_nanos()).unwrap_or(u64::MAX) / one;
        operations.push(u32::try_from(fitting.clamp(16, MOST)).unwrap_or_default());
    }
    Ok(operations)
}

#[cfg(test)]
mod tests {
    use super::order;

    #[test]
    fn every_round_has_every_cell_once() {
        for cells in 1..8 {
            for round in 0..20 {
                let mut all = order(cells, round);
                all.sort_unstable();
                assert_eq!(all, (0..cells).collect::<Vec<_>>());
            }
        }
    }

    #[test]
    fn no_cell_is_always_first() {
        let first: std::collections::HashSet<_> = (0..100).map(|round| order(8, round)[0]).collect();
        assert_eq!(first.len(), 8);
    }
}
