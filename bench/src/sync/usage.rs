//! Memory, processor time and system calls of a process.

use std::{fs, time::Duration};

use anyhow::{Context as _, Result};
use aya::{EbpfLoader, maps::Array, programs::RawTracePoint};
use nix::{time::clock_getcpuclockid, unistd::Pid};

use crate::options::Options;

/// What a process has used.
pub(super) struct Usage {
    /// Bytes of memory of its own (`RssAnon`): tables that it maps are apart.
    pub(super) anonymous: u64,
    /// Processor time of all its threads that live.
    pub(super) processor: Duration,
}

impl Usage {
    pub(super) fn of(pid: u32) -> Result<Self> {
        let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
        let anonymous = status.lines().find_map(|line| line.strip_prefix("RssAnon:"));
        let anonymous = anonymous.and_then(|rest| rest.trim().strip_suffix(" kB")).context("RssAnon")?;
        let mut nanoseconds = 0;
        for thread in fs::read_dir(format!("/proc/{pid}/task"))? {
            let schedstat = fs::read_to_string(thread?.path().join("schedstat"))?;
            nanoseconds += schedstat.split(' ').next().context("schedstat")?.parse::<u64>()?;
        }
        let anonymous = anonymous.trim().parse::<u64>()? * 1024;
        Ok(Self { anonymous, processor: Duration::from_nanos(nanoseconds) })
    }
}

/// Processor time of all threads that a process has or had: `CLOCK_PROCESS_CPUTIME_ID` of another process.
pub(super) fn processor_time(pid: u32) -> Result<Duration> {
    let clock = clock_getcpuclockid(Pid::from_raw(pid.try_into()?))?;
    Ok(clock.now()?.into())
}

/// A count of system calls.
pub(super) struct SystemCalls;

impl SystemCalls {
    /// How many system calls the process makes while `work` runs, counted by a program at `raw_syscalls/sys_enter`.
    pub(super) fn count(options: &Options, pid: u32, work: impl FnOnce() -> Result<()>) -> Result<u64> {
        let object = options.object.as_ref().context("no object: run `cargo xtask bench sync`")?;
        let mut ebpf = EbpfLoader::new()
            .override_global("COUNTED_PROCESS", &pid, true)
            .load_file(object)
            .with_context(|| format!("loading {}", object.display()))?;
        let program: &mut RawTracePoint =
            ebpf.program_mut("count_system_calls").context("count_system_calls")?.try_into()?;
        program.load()?;
        program.attach("sys_enter")?;
        work()?;
        let counts: Array<_, u64> = Array::try_from(ebpf.map("SYSTEM_CALLS").context("SYSTEM_CALLS")?)?;
        Ok(counts.get(&0, 0)?)
    }
}
