//! What is compared with what.

use super::{
    lab::{CONTROL, DIRECT, Lab, System},
    services::{Endpoint, Services, Transport},
};
use crate::{
    goals::Goal,
    report::{Row, Section},
    rounds::Cell,
    statistics::{Summary, means},
};

/// Whether a row is one of Services drawn at random.
const AT_RANDOM: &str = ", at random";

/// The rows of a section. With `at_random` there are rows, too, whose Service is drawn anew for each operation.
pub(super) fn cells(lab: &Lab, transport: Transport, endpoint: Endpoint, at_random: bool) -> Vec<Cell> {
    let mut cells: Vec<Cell> = [DIRECT, CONTROL]
        .into_iter()
        .zip(lab.direct)
        .map(|(name, worker)| Cell { name: name.to_owned(), worker, target: endpoint.direct() })
        .collect();
    for installation in &lab.installations {
        let (services, worker) = (installation.services, installation.worker);
        let mut add = |suffix: &str, target| {
            cells.push(Cell { name: format!("{}{suffix}", installation.name()), worker, target });
        };
        add("", services.hot(transport, endpoint));
        if at_random && services != Services(1) {
            add(AT_RANDOM, services.any(transport, endpoint));
        }
        if services == Services(1) {
            add(": straight to the pod", endpoint.direct());
        }
    }
    cells
}

/// A section of figures that are the better the higher they are, taken in rounds.
pub(super) fn section(title: String, unit: &'static str, cells: &[Cell], figures: &[Vec<f64>]) -> Section {
    let direct = means(&figures[0], &figures[1]);
    let rows = cells
        .iter()
        .zip(figures)
        .map(|(cell, samples)| Row {
            name: cell.name.clone(),
            summary: Summary::of(samples),
            ratios: vec![
                // The two processes are compared with each other; their mean would hide half of the noise.
                Some(match cell.name.as_str() {
                    CONTROL => Summary::ratio(samples, &figures[0]),
                    _ => Summary::ratio(samples, &direct),
                }),
            ],
            samples: samples.clone(),
        })
        .collect();
    Section { title, unit, ratios: vec![DIRECT], rows }
}

/// Sidestep reaches this part of direct with every number of Services.
pub(super) fn near_direct(section: &Section, limit: f64) -> Vec<Goal> {
    let is_one = |row: &&Row| is_sidestep(row) && !row.name.contains(':');
    let goal = |row: &Row| {
        let ratio = row.ratios[0].unwrap_or_else(|| Summary::of(&[]));
        Goal::at_least(format!("{}: {} to direct", section.title, row.name), ratio, limit)
    };
    section.rows.iter().filter(is_one).map(goal).collect()
}

/// Sidestep with many Services is as fast as with one, within noise: as far from 1 as two measurements of one thing
/// are, and a percent.
pub(super) fn flat(section: &Section, sizes: &[Services]) -> Option<Goal> {
    let [few, .., many] = sizes else { return None };
    let (few, many) = (row(section, System::Sidestep, *few)?, row(section, System::Sidestep, *many)?);
    let noise = section.rows.iter().find(|row| row.name == CONTROL)?.ratios[0]?;
    let limit = 0.99 - (noise.high - 1.0).abs().max((1.0 - noise.low).abs());
    let limit = (limit * 1e3).round() / 1e3;
    let ratio = Summary::ratio(&many.samples, &few.samples);
    Some(Goal::at_least(format!("{}: {} to {}", section.title, many.name, few.name), ratio, limit))
}

/// How much of what rules take Sidestep leaves.
pub(super) fn recovered(section: &Section, system: System, services: Services, limit: f64) -> Option<Goal> {
    let rules = row(section, system, services)?;
    let sidestep = row(section, System::Sidestep, services)?;
    let direct = means(&section.rows.first()?.samples, &section.rows.get(1)?.samples);
    let parts: Vec<f64> = sidestep
        .samples
        .iter()
        .zip(&rules.samples)
        .zip(direct)
        .map(|((sidestep, rules), direct)| (sidestep - rules) / (direct - rules))
        .collect();
    let name = format!(
        "{}: part of the gap between {} and direct that is recovered, {}",
        section.title,
        system.name(),
        services.name()
    );
    Some(Goal::at_least(name, Summary::of(&parts), limit))
}

fn row(section: &Section, system: System, services: Services) -> Option<&Row> {
    let name = format!("{}, {}", system.name(), services.name());
    section.rows.iter().find(|row| row.name == name)
}

fn is_sidestep(row: &Row) -> bool {
    row.name.starts_with(System::Sidestep.name())
}
