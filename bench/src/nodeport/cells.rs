//! The cells, and which ratios to report.

use super::{
    lab::{CONTROL, DIRECT, FLOOR, Lab, System},
    services::{Endpoint, Services, Transport},
};
use crate::{
    goals::Goal,
    report::{Row, Section},
    rounds::Cell,
    statistics::{Summary, means},
};

/// The suffix of rows with a random Service for each operation.
const AT_RANDOM: &str = ", at random";
/// The suffix of rows with connections to no Service.
const PAST: &str = ": past it, to no Service";

/// The rows of a section. `at_random` adds rows with a random Service for each operation.
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
        add("", installation.target(transport, endpoint));
        match services {
            Services::NONE => {}
            Services(1) => add(PAST, endpoint.direct()),
            _ if at_random => add(AT_RANDOM, services.any(lab.clients, transport, endpoint)),
            _ => {}
        }
    }
    cells
}

/// A section of figures of which higher is better, measured in rounds.
pub(super) fn section(title: String, unit: &'static str, cells: &[Cell], figures: &[Vec<f64>]) -> Section {
    let direct = means(&figures[0], &figures[1]);
    let floor = cells.iter().position(|cell| cell.name == FLOOR).map(|index| &figures[index]);
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
                floor.filter(|_| is_sidestep(&cell.name)).map(|floor| Summary::ratio(samples, floor)),
            ],
            samples: samples.clone(),
        })
        .collect();
    Section { title, unit, ratios: vec![DIRECT, FLOOR], rows }
}

/// The goal that Sidestep reaches this share of direct, or of the floor as an alternative, with each number of
/// Services.
pub(super) fn near(section: &Section, sizes: &[Services], direct: f64, floor: Option<f64>) -> Vec<Goal> {
    let goal = |row: &Row| {
        let to = |what: &str, index: usize, limit: f64| {
            let ratio = row.ratios[index].unwrap_or_else(|| Summary::of(&[]));
            Goal::at_least(format!("{}: {} to {what}", section.title, row.name), ratio, limit)
        };
        let goal = to(DIRECT, 0, direct);
        floor.into_iter().fold(goal, |goal, floor| goal.or(to(FLOOR, 1, floor)))
    };
    sizes.iter().filter_map(|&services| row(section, System::Sidestep, services)).map(goal).collect()
}

/// The goal that connections to no Service, on a node with Sidestep, reach this share of direct.
pub(super) fn past(section: &Section, limit: f64) -> Option<Goal> {
    let ratio = suffixed(section, Services(1), PAST)?.ratios[0]?;
    Some(Goal::at_least(
        format!("{}: past Sidestep, to no Service, to {DIRECT}", section.title),
        ratio,
        limit,
    ))
}

/// The goal that random Services reach nearly the same share of direct as a fixed one of as many.
pub(super) fn at_random(section: &Section, sizes: &[Services], limit: f64) -> Option<Goal> {
    let many = *sizes.last()?;
    let (same, random) = (row(section, System::Sidestep, many)?, suffixed(section, many, AT_RANDOM)?);
    let direct = means(&section.rows.first()?.samples, &section.rows.get(1)?.samples);
    let lost: Vec<f64> = same
        .samples
        .iter()
        .zip(&random.samples)
        .zip(direct)
        .map(|((same, random), direct)| (same - random) / direct)
        .collect();
    let name = format!("{}: {}, share of direct that is lost by it", section.title, random.name);
    Some(Goal::at_most(name, Summary::of(&lost), limit))
}

/// The goal that Sidestep with many Services is as fast as with one, within the noise of two equal measurements and a
/// percent.
pub(super) fn flat(section: &Section, sizes: &[Services]) -> Option<Goal> {
    let [few, .., many] = sizes else { return None };
    let (few, many) = (row(section, System::Sidestep, *few)?, row(section, System::Sidestep, *many)?);
    let noise = section.rows.iter().find(|row| row.name == CONTROL)?.ratios[0]?;
    let limit = 0.99 - (noise.high - 1.0).abs().max((1.0 - noise.low).abs());
    let limit = (limit * 1e3).round() / 1e3;
    let ratio = Summary::ratio(&many.samples, &few.samples);
    Some(Goal::at_least(format!("{}: {} to {}", section.title, many.name, few.name), ratio, limit))
}

/// The goal that Sidestep is ahead of rules with as many Services.
pub(super) fn ahead(section: &Section, system: System, services: Services) -> Option<Goal> {
    let (rules, sidestep) = (row(section, system, services)?, row(section, System::Sidestep, services)?);
    let ratio = Summary::ratio(&sidestep.samples, &rules.samples);
    let name = format!("{}: {} to {}", section.title, sidestep.name, rules.name);
    Some(Goal::at_least(name, ratio, 1.0))
}

/// The goal for the part of the rules' cost that Sidestep saves.
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

/// Sidestep's row with this suffix.
fn suffixed<'a>(section: &'a Section, services: Services, suffix: &str) -> Option<&'a Row> {
    let name = format!("{}, {}{suffix}", System::Sidestep.name(), services.name());
    section.rows.iter().find(|row| row.name == name)
}

fn is_sidestep(row: &str) -> bool {
    row.starts_with(System::Sidestep.name())
}
