//! Small datagrams in one direction, more than the node can forward.
//!
//! Two figures: how many arrive under overload, and the rate at which loss begins.

use std::time::Instant;

use anyhow::{Context as _, Result};

use super::{
    cells,
    lab::{Lab, System},
    services::{Endpoint, Services, Transport},
};
use crate::{
    goals::Goal,
    netfilter::Flavour,
    progress::Progress,
    report::Section,
    rounds::{Budget, Cell, interleave, order},
    statistics::Summary,
    worker::{Task, Worker, Workload},
};

/// The goal for the part of the gap between rules and direct that Sidestep recovers.
const RECOVERED: f64 = 0.667;
/// The fraction of lost datagrams that counts as no loss.
const LOSS: f64 = 0.005;
/// Bisection steps in the search for the rate at which loss begins.
const STEPS: usize = 6;
/// The range of that search, as fractions of the highest rate of arrivals.
const RANGE: (f64, f64) = (0.5, 1.15);

/// Datagrams a second that arrive when the sender sends as fast as possible.
pub(super) fn saturate(
    lab: &mut Lab,
    endpoint: Endpoint,
    budget: Budget,
    progress: &mut Progress,
) -> Result<(Vec<Cell>, Section)> {
    let title = format!("datagrams that arrive of too many, {}", endpoint.name());
    progress.stage(&title);
    let cells = cells::cells(lab, Transport::Udp, endpoint, false);
    let milliseconds = u16::try_from(budget.turn.as_millis())?;
    let workload = Workload::Saturate { sink: endpoint.place(), milliseconds };
    let samples = interleave(&mut lab.workers, &cells, workload, budget, progress)?;
    let rates: Vec<Vec<f64>> = samples
        .iter()
        .map(|taken| taken.wall.iter().map(|nanoseconds| 1e9 / nanoseconds).collect())
        .collect();
    let section = cells::section(title, "1/s", &cells, &rates);
    Ok((cells, section))
}

/// Datagrams a second up to which none are lost.
pub(super) fn until_loss(
    lab: &mut Lab,
    endpoint: Endpoint,
    saturated: (&[Cell], &Section),
    budget: Budget,
    progress: &mut Progress,
) -> Result<Section> {
    let (cells, section) = saturated;
    let title = format!("datagrams until loss, {}", endpoint.name());
    progress.stage(&title);
    let most: Vec<f64> = section.rows.iter().map(|row| row.summary.median).collect();
    let milliseconds = u16::try_from(budget.turn.as_millis())?;
    let mut rates = vec![Vec::new(); cells.len()];
    let start = Instant::now();
    for round in 0..budget.rounds {
        if budget.is_spent(round, start) {
            break;
        }
        for index in order(cells.len(), round) {
            let cell = &cells[index];
            let offer = |rate| Workload::Offer { sink: endpoint.place(), milliseconds, rate };
            let rate = search(&mut lab.workers[cell.worker], cell, most[index], &offer)
                .with_context(|| cell.name.clone())?;
            rates[index].push(rate);
        }
        progress.tick(round, budget.rounds);
    }
    Ok(cells::section(title, "1/s", cells, &rates))
}

/// The highest rate without loss.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a rate is positive and small")]
fn search(worker: &mut Worker, cell: &Cell, most: f64, offer: &dyn Fn(u32) -> Workload) -> Result<f64> {
    let (mut good, mut bad) = (RANGE.0 * most, RANGE.1 * most);
    for _ in 0..STEPS {
        let middle = f64::midpoint(good, bad);
        let task = Task { workload: offer(middle as u32), target: cell.target, operations: 0 };
        let done = worker.run(&task)?;
        if done.counted as f64 >= done.operations as f64 * (1.0 - LOSS) {
            good = middle;
        } else {
            bad = middle;
        }
    }
    Ok(good)
}

/// The goals that a section decides.
pub(super) fn goals(section: &Section, sizes: &[Services]) -> Vec<Goal> {
    let nftables = System::Rules(Flavour::Nftables);
    let recovered =
        sizes.iter().filter_map(|&services| cells::recovered(section, nftables, services, RECOVERED));
    recovered.chain(cells::flat(section, sizes)).collect()
}

/// Nanoseconds of a processor that a datagram takes on its way, and how many of them the system adds.
pub(super) fn nanoseconds(section: &Section) -> Vec<String> {
    let each = |summary: Summary| 1e9 / summary.median;
    let Some(direct) = section.rows.first().map(|row| each(row.summary)) else { return Vec::new() };
    let sentence = |row: &crate::report::Row| {
        let all = each(row.summary);
        format!("{}, {}: {all:.0} ns a datagram, {:+.0} ns", section.title, row.name, all - direct)
    };
    section.rows.iter().map(sentence).collect()
}
