//! New connections, and requests on connections that stay.

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

/// The part of direct that is to be reached.
const NEAR: f64 = 0.96;

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
pub(super) fn goals(section: &Section, sizes: &[Services]) -> Vec<Goal> {
    cells::near_direct(section, NEAR).into_iter().chain(cells::flat(section, sizes)).collect()
}
