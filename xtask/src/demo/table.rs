//! The table of results.

use std::{collections::BTreeMap, fmt};

use comfy_table::{ColumnConstraint, ContentArrangement, presets};

/// The table's greatest width, in columns.
const WIDTH: u16 = 156;

/// One row: a check and its outcome.
#[derive(Debug, Default)]
pub(super) struct Row {
    pub(super) what: String,
    pub(super) address: String,
    pub(super) requests: u64,
    /// How often each server answered.
    pub(super) spread: BTreeMap<String, u64>,
    /// What the client saw as its peer, or as the source of the answer.
    pub(super) peer: String,
    /// What failed; empty if nothing did.
    pub(super) flaws: Vec<String>,
    /// A remark on a row without flaws.
    pub(super) note: String,
}

impl Row {
    /// A row without results yet.
    pub(super) fn new(what: &str, address: impl fmt::Display) -> Self {
        Self { what: what.to_owned(), address: address.to_string(), ..Self::default() }
    }

    /// Adds a flaw unless `condition` holds.
    pub(super) fn expect(&mut self, condition: bool, flaw: impl FnOnce() -> String) {
        if !condition {
            self.flaws.push(flaw());
        }
    }

    fn result(&self) -> String {
        match self.flaws.as_slice() {
            [] => "ok".to_owned(),
            [flaw] => format!("OFF: {flaw}"),
            [flaw, ..] => format!("OFF: {flaw} (and {} more)", self.flaws.len() - 1),
        }
    }
}

/// All rows.
#[derive(Debug, Default)]
pub(super) struct Table {
    rows: Vec<Row>,
}

impl Table {
    /// Adds a row.
    pub(super) fn push(&mut self, row: Row) {
        self.rows.push(row);
    }

    /// How many rows have a flaw.
    pub(super) fn flaws(&self) -> usize {
        self.rows.iter().filter(|row| !row.flaws.is_empty()).count()
    }

    /// Whether no row has a flaw.
    pub(super) fn is_flawless(&self) -> bool {
        self.flaws() == 0
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut table = comfy_table::Table::new();
        table.load_style(presets::UTF8_FULL_CONDENSED);
        table.set_content_arrangement(ContentArrangement::Dynamic).set_width(WIDTH);
        table.set_header(["what", "address", "requests", "who answered", "peer seen", "result"]);
        for row in &self.rows {
            let spread: Vec<String> =
                row.spread.iter().map(|(name, count)| format!("{name} {count}")).collect();
            let mut result = row.result();
            if !row.note.is_empty() {
                result = format!("{result}, {}", row.note);
            }
            table.add_row([
                row.what.clone(),
                row.address.clone(),
                row.requests.to_string(),
                spread.join(", "),
                row.peer.clone(),
                result,
            ]);
        }
        // Only remarks wrap; addresses and counts stay on one line.
        for column in [0, 1, 3, 4] {
            if let Some(column) = table.column_mut(column) {
                column.set_constraint(ColumnConstraint::ContentWidth);
            }
        }
        write!(f, "{table}")
    }
}
