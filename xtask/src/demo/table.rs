//! The table of results.

use std::{collections::BTreeMap, fmt};

use comfy_table::{ColumnConstraint, ContentArrangement, presets};

/// Columns of a terminal that the table takes at most.
const WIDTH: u16 = 156;

/// One row: what was tried and what came of it.
#[derive(Debug, Default)]
pub(super) struct Row {
    pub(super) what: String,
    pub(super) address: String,
    pub(super) requests: u64,
    /// Who answered how often.
    pub(super) spread: BTreeMap<String, u64>,
    /// What the client saw as its peer, or as the source of the answer.
    pub(super) peer: String,
    /// What went wrong, in words; empty when all is well.
    pub(super) flaws: Vec<String>,
    /// What else there is to say.
    pub(super) note: String,
}

impl Row {
    /// A row without results yet.
    pub(super) fn new(what: &str, address: impl fmt::Display) -> Self {
        Self { what: what.to_owned(), address: address.to_string(), ..Self::default() }
    }

    /// Notes a flaw unless `condition` holds.
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

    /// How many rows are off.
    pub(super) fn flaws(&self) -> usize {
        self.rows.iter().filter(|row| !row.flaws.is_empty()).count()
    }

    /// Whether none is.
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
        // Numbers that belong together stay on one line; only remarks are wrapped.
        for column in [0, 1, 3, 4] {
            if let Some(column) = table.column_mut(column) {
                column.set_constraint(ColumnConstraint::ContentWidth);
            }
        }
        write!(f, "{table}")
    }
}
