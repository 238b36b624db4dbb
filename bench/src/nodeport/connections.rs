//! New connections, and requests on persistent connections.

use anyhow::Result;

use super::{
    cells,
    lab::{Lab, System},
    services::{Endpoint, Services, Transport},
    site::Clients,
};
use crate::{
    goals::Goal,
    netfilter::Flavour,
    progress::Progress,
    report::Section,
    rounds::{Budget, interleave},
    worker::Workload,
};

/// Shares that new connections, or requests, are to reach.
struct Wanted {
    /// Of direct, to a Service.
    direct: f64,
    /// Of the floor, as an alternative.
    floor: Option<f64>,
    /// Of direct, to no Service.
    past: Option<f64>,
}

/// By the place of the client and of the endpoint.
const fn wanted(workload: Workload, clients: Clients, endpoint: Endpoint) -> Wanted {
    match (workload, clients, endpoint) {
        (Workload::Connect, Clients::InPod, _) => Wanted { direct: 0.90, floor: None, past: Some(0.98) },
        (_, Clients::InPod, _) => Wanted { direct: 0.95, floor: None, past: Some(0.99) },
        (Workload::Connect, Clients::Outside, Endpoint::Local) => {
            Wanted { direct: 0.90, floor: Some(0.92), past: Some(0.97) }
        }
        (Workload::Connect, Clients::Outside, Endpoint::Remote) => {
            Wanted { direct: 0.83, floor: Some(0.88), past: Some(0.94) }
        }
        (_, Clients::Outside, _) => Wanted { direct: 0.99, floor: None, past: None },
    }
}

/// The share of direct that may be lost with a random Service for each connection.
const LOST_AT_RANDOM: f64 = 0.03;

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
    (clients, endpoint): (Clients, Endpoint),
    sizes: &[Services],
) -> Vec<Goal> {
    let Wanted { direct, floor, past } = wanted(workload, clients, endpoint);
    let past = past.and_then(|limit| cells::past(section, limit));
    let random = cells::at_random(section, sizes, LOST_AT_RANDOM).filter(|_| workload == Workload::Connect);
    let nftables = System::Rules(Flavour::Nftables);
    let ahead = sizes.iter().filter_map(|&services| cells::ahead(section, nftables, services));
    past.into_iter()
        .chain(cells::near(section, sizes, direct, floor))
        .chain(random)
        .chain(cells::flat(section, sizes))
        .chain(ahead.filter(|_| clients == Clients::InPod))
        .collect()
}
