//! New connections, and requests on persistent connections.

use anyhow::Result;

use super::{
    cells,
    lab::Lab,
    services::{Endpoint, Services, Transport},
};
use crate::{
    goals::Goal,
    progress::Progress,
    report::Section,
    rounds::{Budget, interleave},
    worker::Workload,
};

/// Shares that new connections are to reach.
struct Wanted {
    /// Of direct, to a Service.
    direct: f64,
    /// Of the floor, as an alternative.
    floor: f64,
    /// Of direct, for connections to no Service.
    past: f64,
}

/// By the place of the endpoint.
const fn wanted(endpoint: Endpoint) -> Wanted {
    match endpoint {
        Endpoint::Local => Wanted { direct: 0.90, floor: 0.92, past: 0.97 },
        Endpoint::Remote => Wanted { direct: 0.83, floor: 0.88, past: 0.94 },
    }
}

/// The share of direct that may be lost with a random Service for each connection.
const LOST_AT_RANDOM: f64 = 0.03;
/// The share of direct that requests on persistent connections should reach.
const REQUESTS: f64 = 0.99;

/// Measures a workload.
pub(super) fn measure(
    lab: &mut Lab,
    workload: Workload,
    endpoint: Endpoint,
    title: &str,
    budget: Budget,
    progress: &mut Progress,
) -> Result<Section> {
    let title = format!("{title}, {}", endpoint.name());
    progress.stage(&title);
    let cells = cells::cells(lab, Transport::Tcp, endpoint, workload == Workload::Connect);
    let samples = interleave(&mut lab.workers, &cells, workload, budget, progress)?;
    let rates: Vec<Vec<f64>> = samples
        .iter()
        .map(|taken| taken.wall.iter().map(|nanoseconds| 1e9 / nanoseconds).collect())
        .collect();
    Ok(cells::section(title, "1/s", &cells, &rates))
}

/// The goals that a section decides.
pub(super) fn goals(
    section: &Section,
    workload: Workload,
    endpoint: Endpoint,
    sizes: &[Services],
) -> Vec<Goal> {
    let flat = cells::flat(section, sizes);
    if workload != Workload::Connect {
        return cells::near(section, sizes, REQUESTS, None).into_iter().chain(flat).collect();
    }
    let Wanted { direct, floor, past } = wanted(endpoint);
    cells::past(section, past)
        .into_iter()
        .chain(cells::near(section, sizes, direct, Some(floor)))
        .chain(cells::at_random(section, sizes, LOST_AT_RANDOM))
        .chain(flat)
        .collect()
}
