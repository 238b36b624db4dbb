//! The machine on which the figures were measured.

use std::fs;

use serde::Serialize;

use crate::place;

/// The machine and its kernel.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Machine {
    /// As in `/proc/cpuinfo`.
    pub(crate) processor: String,
    /// How many processors this process may use.
    pub(crate) processors: usize,
    /// `uname -r`.
    pub(crate) kernel: String,
    /// Load over the last minute, before the benchmark began.
    pub(crate) load: f64,
}

impl Machine {
    /// Reads it from the system; unknown values are empty.
    pub(crate) fn find() -> Self {
        let read = |path| fs::read_to_string(path).unwrap_or_default();
        let info = read("/proc/cpuinfo");
        let model = info.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
        Self {
            processor: model.map(|(_, name)| name.to_owned()).unwrap_or_default(),
            processors: place::allowed().map(|all| all.len()).unwrap_or_default(),
            kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
            load: read("/proc/loadavg")
                .split(' ')
                .next()
                .and_then(|load| load.parse().ok())
                .unwrap_or_default(),
        }
    }
}
