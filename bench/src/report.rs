//! The report: tables, or one JSON document with every sample.

use std::fmt;

use comfy_table::{Cell, CellAlignment, Table, presets};
use serde::Serialize;

use crate::{
    goals::{Goal, Sense},
    machine::Machine,
    memory,
    statistics::Summary,
};

/// One measured thing.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Row {
    /// What.
    pub(crate) name: String,
    /// Of the samples, in the section's unit.
    pub(crate) summary: Summary,
    /// Of the ratios to other rows, taken in each round; named as in [`Section::ratios`].
    pub(crate) ratios: Vec<Option<Summary>>,
    /// Every sample.
    pub(crate) samples: Vec<f64>,
}

/// Rows that were measured interleaved with each other.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Section {
    /// What was measured.
    pub(crate) title: String,
    /// Of the samples.
    pub(crate) unit: &'static str,
    /// What rows are compared with.
    pub(crate) ratios: Vec<&'static str>,
    /// The rows.
    pub(crate) rows: Vec<Row>,
}

/// Everything.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Report {
    /// Which benchmark.
    pub(crate) benchmark: &'static str,
    /// On what.
    pub(crate) machine: Machine,
    /// How, in sentences.
    pub(crate) method: Vec<String>,
    /// The figures.
    pub(crate) sections: Vec<Section>,
    /// Bytes of the tables.
    pub(crate) tables: Vec<memory::Tables>,
    /// Remarks.
    pub(crate) notes: Vec<String>,
    /// The goals.
    pub(crate) goals: Vec<Goal>,
    /// How long it took.
    pub(crate) seconds: f64,
}

impl Report {
    /// The figures that `--check` ends with.
    pub(crate) fn last_line(&self) -> String {
        let figure = |goal: &Goal| {
            let mark = if goal.met { "" } else { " MISSED" };
            let one = |goal: &Goal| format!("{}: {:.3} ({})", goal.name, goal.value.median, wanted(goal));
            goal.each().map(one).collect::<Vec<_>>().join(", or ") + mark
        };
        let missed = self.goals.iter().filter(|goal| !goal.met).count();
        let figures: Vec<String> = self.goals.iter().map(figure).collect();
        format!("{} of {} goals met; {}", self.goals.len() - missed, self.goals.len(), figures.join("; "))
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Machine { processor, processors, kernel, load } = &self.machine;
        writeln!(f, "bench {} on {processors} x {processor}, Linux {kernel}, load {load}", self.benchmark)?;
        for sentence in &self.method {
            writeln!(f, "- {sentence}")?;
        }
        for section in &self.sections {
            writeln!(f, "\n{section}")?;
        }
        if !self.tables.is_empty() {
            writeln!(f, "\n{}", memory_table(&self.tables))?;
        }
        for note in &self.notes {
            writeln!(f, "- {note}")?;
        }
        writeln!(f, "\n{}", goal_table(&self.goals))?;
        let missed = self.goals.iter().filter(|goal| !goal.met).count();
        write!(f, "{} goals met, {missed} missed, {:.0} s", self.goals.len() - missed, self.seconds)
    }
}

impl fmt::Display for Section {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut header = vec![self.title.clone(), self.unit.to_owned(), "10 % .. 90 %".to_owned()];
        header.extend(self.ratios.iter().map(|to| format!("to {to} (95 %)")));
        let mut table = table(&header);
        for Row { name, summary, ratios, samples: _ } in &self.rows {
            let mut row = vec![Cell::new(name), number(format!("{:.0}", summary.median))];
            row.push(number(format!("{:.0} .. {:.0}", summary.p10, summary.p90)));
            row.extend(ratios.iter().map(|ratio| {
                number(ratio.map_or(String::new(), |ratio| {
                    format!("{:.3} ({:.3} .. {:.3})", ratio.median, ratio.low, ratio.high)
                }))
            }));
            table.add_row(row);
        }
        write!(f, "{table}")
    }
}

fn memory_table(all: &[memory::Tables]) -> Table {
    let mut header = vec!["bytes of the tables".to_owned()];
    header.extend(all.iter().map(|tables| format!("{} Services", tables.services)));
    let mut table = table(&header);
    let names = all.first().map(|tables| tables.each.as_slice()).unwrap_or_default();
    for (index, (name, _)) in names.iter().enumerate() {
        let bytes = all.iter().map(|tables| tables.each.get(index).map_or(0, |(_, bytes)| *bytes));
        table.add_row(std::iter::once(Cell::new(name)).chain(bytes.map(|bytes| number(bytes.to_string()))));
    }
    let totals = all.iter().map(|tables| number(tables.total.to_string()));
    table.add_row(std::iter::once(Cell::new("all")).chain(totals));
    table
}

fn goal_table(goals: &[Goal]) -> Table {
    let mut table =
        table(&["goal".to_owned(), "measured (95 %)".to_owned(), "wanted".to_owned(), String::new()]);
    for goal in goals {
        let verdict = match (goal.met, goal.is_close()) {
            (true, false) => "met",
            (true, true) => "met, within noise of the limit",
            (false, true) => "MISSED, within noise of the limit",
            (false, false) => "MISSED",
        };
        let measured = |goal: &Goal| {
            let Summary { low, median, high, .. } = goal.value;
            let digits = match goal.limit {
                100.0.. => 0,
                10.0.. => 1,
                _ => 3,
            };
            format!("{median:.digits$} ({low:.digits$} .. {high:.digits$})")
        };
        // A line each for a goal and its alternative.
        let lines = |of: &dyn Fn(&Goal) -> String, between: &str| {
            goal.each().map(of).collect::<Vec<_>>().join(between)
        };
        table.add_row([
            Cell::new(lines(&|goal| goal.name.clone(), "\nor ")),
            number(lines(&measured, "\n")),
            number(lines(&wanted, "\n")),
            Cell::new(verdict),
        ]);
    }
    table
}

fn wanted(goal: &Goal) -> String {
    let sign = match goal.sense {
        Sense::AtMost => "<=",
        Sense::AtLeast => ">=",
    };
    format!("{sign} {}", goal.limit)
}

fn table(header: &[String]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::UTF8_HORIZONTAL_ONLY).set_header(header);
    table
}

fn number(text: String) -> Cell {
    Cell::new(text).set_alignment(CellAlignment::Right)
}
