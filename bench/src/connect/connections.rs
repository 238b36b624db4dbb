//! Connections, and requests over them: through Services, directly, and through rules.

use anyhow::Result;

use super::lab::{Lab, USUAL};
use crate::{
    goals::Goal,
    progress::Progress,
    report::{Row, Section},
    rounds::{Budget, Cell, interleave},
    statistics::{Summary, means},
    topology::{DIRECT, any, hot},
    worker::Workload,
};

/// What the row called "direct" is; every ratio's denominator.
const DIRECT_NAME: &str = "direct";
/// The same again, by another process.
const CONTROL_NAME: &str = "direct, second process";

/// Measures everything once.
pub(super) fn measure(
    lab: &mut Lab,
    cells: &[Cell],
    workload: Workload,
    title: &str,
    budget: Budget,
    progress: &mut Progress,
) -> Result<Section> {
    let samples = interleave(&mut lab.workers, cells, workload, budget, progress)?;
    let direct = means(&samples[0].wall, &samples[1].wall);
    let processor = means(&samples[0].processor, &samples[1].processor);
    let own = |name: &str| {
        let own = format!("{}, direct", name.split(',').next()?);
        cells.iter().position(|cell| cell.name == own && cell.name != name)
    };
    let rows = cells
        .iter()
        .zip(&samples)
        .map(|(cell, taken)| Row {
            name: cell.name.clone(),
            summary: Summary::of(&taken.wall),
            ratios: vec![
                // The two processes are compared with each other; their mean would hide half of the noise.
                Some(match cell.name.as_str() {
                    CONTROL_NAME => Summary::ratio(&taken.wall, &samples[0].wall),
                    _ => Summary::ratio(&taken.wall, &direct),
                }),
                Some(Summary::ratio(&taken.processor, &processor)),
                own(&cell.name).map(|own| Summary::ratio(&taken.wall, &samples[own].wall)),
            ],
            samples: taken.wall.clone(),
        })
        .collect();
    Ok(Section {
        title: title.to_owned(),
        unit: "ns",
        ratios: vec!["direct", "direct, CPU time", "the rules' own direct"],
        rows,
    })
}

/// What is compared.
pub(super) fn cells(lab: &Lab, workload: Workload) -> Vec<Cell> {
    let cell = |name: String, worker, target| Cell { name, worker, target };
    let stays = workload == Workload::Persistent;
    let mut cells = vec![
        cell(DIRECT_NAME.to_owned(), lab.direct[0], DIRECT),
        cell(CONTROL_NAME.to_owned(), lab.direct[1], DIRECT),
    ];
    for (datapath, &worker) in lab.datapaths.iter().zip(&lab.served) {
        let services = datapath.services;
        if stays && services != USUAL {
            continue;
        }
        cells.push(cell(format!("VIP of {services}, hot"), worker, hot(services)));
        if services > 1 && !stays {
            cells.push(cell(format!("VIP of {services}, random"), worker, any(services)));
        }
    }
    if !stays {
        let worker = lab.served[lab.usual()];
        cells.push(cell("no Service, programs attached".to_owned(), worker, DIRECT));
        for (comparison, worker) in lab.compared.iter().filter(|(comparison, _)| comparison.translates()) {
            cells.push(cell(format!("hot VIP, {}", comparison.title), *worker, hot(USUAL)));
        }
    }
    for (node, worker) in &lab.ruled {
        let (name, services) = (format!("{} {}", node.flavour.name(), node.services), node.services);
        cells.push(cell(format!("{name}, direct"), *worker, DIRECT));
        cells.push(cell(format!("{name}, hot"), *worker, hot(services)));
        if services > 1 && !stays {
            cells.push(cell(format!("{name}, random"), *worker, any(services)));
        }
    }
    cells
}

/// What is compared in long turns: the ways to remember.
pub(super) fn few(cells: &[Cell]) -> Vec<Cell> {
    let usual = format!("VIP of {USUAL}, hot");
    let few = |cell: &&Cell| {
        let name = cell.name.as_str();
        name == DIRECT_NAME || name == CONTROL_NAME || name == usual || name.starts_with("hot VIP, ")
    };
    cells.iter().filter(few).cloned().collect()
}

/// The goals that this section decides.
pub(super) fn goals(section: &Section, workload: Workload) -> Vec<Goal> {
    let vips = section.rows.iter().filter(|row| row.name.starts_with("VIP of "));
    let ratio = |row: &Row| row.ratios[0].unwrap_or_else(|| Summary::of(&[]));
    if workload == Workload::Persistent {
        return vips
            .map(|row| {
                // Requests a second are the inverse of nanoseconds a request.
                let time = ratio(row);
                let rate = Summary {
                    median: time.median.recip(),
                    low: time.high.recip(),
                    high: time.low.recip(),
                    p10: time.p90.recip(),
                    p90: time.p10.recip(),
                    ..time
                };
                Goal::at_least("persistent connection: requests/s, VIP to direct", rate, 0.99)
            })
            .collect();
    }
    let what = &section.title;
    let mut goals: Vec<Goal> =
        vips.map(|row| Goal::at_most(format!("{what}: {} to direct", row.name), ratio(row), 1.03)).collect();
    let noise = section.rows.iter().find(|row| row.name == CONTROL_NAME).map(ratio);
    let hot: Vec<&Row> =
        section.rows.iter().filter(|row| row.name.starts_with("VIP") && row.name.ends_with("hot")).collect();
    if let (Some(least), Some(most), Some(noise)) = (hot.first(), hot.last(), noise) {
        let growth = Summary::ratio(&most.samples, &least.samples);
        // "Flat within noise": as far from 1 as two measurements of one thing are, and a percent.
        let limit = 1.01 + (noise.high - 1.0).abs().max((1.0 - noise.low).abs());
        goals.push(Goal::at_most(format!("{what}: {} to {}", most.name, least.name), growth, limit));
    }
    goals
}
