//! What listeners cost those whom the programs serve.

use super::lab::{Lab, USUAL};
use crate::{
    comparisons::UNTOLD,
    goals::Goal,
    report::Section,
    rounds::Cell,
    statistics::Summary,
    topology::{DIRECT, hot},
};

/// The program that tells nobody; the name of its row.
const UNTOLD_NAME: &str = "without events";
/// The shipped one, to which nobody listens.
const SILENT_NAME: &str = "nobody listens";

/// What is compared.
pub(super) fn cells(lab: &Lab) -> Vec<Cell> {
    let cell = |name: &str, worker| Cell { name: name.to_owned(), worker, target: hot(USUAL) };
    let mut cells = vec![
        Cell { name: "direct".to_owned(), worker: lab.direct[0], target: DIRECT },
        Cell { name: "direct, second process".to_owned(), worker: lab.direct[1], target: DIRECT },
        cell(SILENT_NAME, lab.served[lab.usual()]),
    ];
    let untold = lab.compared.iter().find(|(comparison, _)| comparison.connect == UNTOLD);
    cells.extend(untold.map(|(_, worker)| cell(UNTOLD_NAME, *worker)));
    cells.extend(
        lab.listened.iter().map(|(listened, worker)| {
            cell(&format!("somebody listens to {}", listened.ear.title()), *worker)
        }),
    );
    cells
}

/// Nobody pays while nobody listens.
pub(super) fn goals(section: &Section) -> Vec<Goal> {
    let row = |name: &str| section.rows.iter().find(|row| row.name == name);
    let (Some(silent), Some(untold)) = (row(SILENT_NAME), row(UNTOLD_NAME)) else { return Vec::new() };
    let ratio = Summary::ratio(&silent.samples, &untold.samples);
    vec![Goal::at_most(format!("{}: {SILENT_NAME} to {UNTOLD_NAME}", section.title), ratio, 1.01)]
}
