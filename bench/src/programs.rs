//! Nanoseconds in kernel programs, as the kernel itself measures them (`kernel.bpf_stats_enabled`).
//!
//! The kernel adds up the time of every run, interrupts included, and the two readings of the clock around it.
//! Nothing is subtracted here.

use std::{
    fs,
    os::fd::{AsFd as _, AsRawFd as _, BorrowedFd},
    path::Path,
};

use anyhow::{Context as _, Result};
use aya::{
    Ebpf,
    maps::MapInfo,
    programs::{Program, loaded_programs},
};

/// What the kernel counted for a program since it was loaded.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(crate) struct Figures {
    /// Nanoseconds in all runs together.
    pub(crate) nanoseconds: u64,
    /// Runs.
    pub(crate) runs: u64,
}

impl Figures {
    /// Nanoseconds a run between `earlier` and now; `None` without a run.
    pub(crate) fn since(self, earlier: Self) -> Option<f64> {
        let runs = self.runs.checked_sub(earlier.runs).filter(|&runs| runs > 0)?;
        Some((self.nanoseconds - earlier.nanoseconds) as f64 / runs as f64)
    }
}

/// What the kernel counted for a loaded program.
pub(crate) fn figures(ebpf: &mut Ebpf, name: &str) -> Result<Figures> {
    let program = ebpf.program(name).with_context(|| format!("the object holds no program {name}"))?;
    let fd = match program {
        Program::CgroupSockAddr(program) => program.fd()?,
        Program::CgroupSock(program) => program.fd()?,
        _ => anyhow::bail!("{name} is not a socket program"),
    };
    of_program(fd.as_fd())
}

/// What the kernel counted for all loaded programs of this name that use this pinned table, whoever has loaded them.
pub(crate) fn figures_of_users(table: &Path, name: &str) -> Result<Figures> {
    let table = MapInfo::from_pin(table).with_context(|| table.display().to_string())?.id();
    let mut sum = Figures::default();
    for program in loaded_programs() {
        let Ok(program) = program else { continue };
        let uses = program.map_ids().ok().flatten().is_some_and(|tables| tables.contains(&table));
        if uses && program.name_as_str() == Some(name) {
            let Figures { nanoseconds, runs } = of_program(program.fd()?.as_fd())?;
            sum.nanoseconds += nanoseconds;
            sum.runs += runs;
        }
    }
    Ok(sum)
}

fn of_program(fd: BorrowedFd<'_>) -> Result<Figures> {
    Ok(Figures { nanoseconds: field(fd, "run_time_ns")?, runs: field(fd, "run_cnt")? })
}

/// A number in `/proc/self/fdinfo` of a program's or map's descriptor.
pub(crate) fn field(fd: BorrowedFd<'_>, name: &str) -> Result<u64> {
    let path = format!("/proc/self/fdinfo/{}", fd.as_raw_fd());
    let text = fs::read_to_string(&path).with_context(|| path.clone())?;
    let value = text
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
        .with_context(|| format!("{path} has no {name}"))?;
    Ok(value.trim().parse()?)
}
