//! The agent's report, `<run-dir>/report.json`.

use std::path::Path;

use anyhow::{Context, Result};
use serde::Deserialize;

/// The parts of the report that the lab reads.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct Report {
    /// Whether the agent has installed everything that it has read.
    pub synced: bool,
    /// The problems, by name.
    #[serde(default)]
    pub problems: Vec<Problem>,
    /// The agent that wrote the report.
    #[serde(default)]
    pub pid: u32,
}

/// A part of an object that the agent could not use.
#[derive(Clone, Debug, Deserialize)]
pub struct Problem {
    /// Kind, namespace and name; or a file.
    pub object: String,
    /// The field.
    pub field: String,
    /// What is wrong with it.
    pub message: String,
}

impl Report {
    /// Reads the report in `directory`.
    pub fn read(directory: &Path) -> Result<Self> {
        let path = directory.join("report.json");
        let text = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        serde_json::from_str(&text).with_context(|| path.display().to_string())
    }

    /// Whether a problem names this object and, in its field or message, this detail.
    pub fn names(&self, object: &str, detail: &str) -> bool {
        self.problems.iter().any(|problem| {
            problem.object.contains(object)
                && (problem.field.contains(detail) || problem.message.contains(detail))
        })
    }
}
