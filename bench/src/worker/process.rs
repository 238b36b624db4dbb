//! The benchmark's side of a worker.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    os::fd::{AsFd as _, RawFd},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
};

use anyhow::{Context as _, Result, bail};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use sidestep_tests::{cgroup::Cgroup, namespace::Namespace};

use super::{Answer, Done, Task};
use crate::{
    interrupt,
    place::{self, Urgency},
    sink::Sink,
};

/// After so many milliseconds a worker is given up.
const PATIENCE: u16 = 30_000;

/// A worker; stopped and reaped on drop.
#[derive(Debug)]
pub(crate) struct Worker {
    child: Child,
    tasks: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Worker {
    /// Starts a worker in this namespace and cgroup, on this processor, that can see what arrives in these sinks.
    pub(crate) fn start(
        namespace: &Namespace,
        cgroup: &Cgroup,
        processor: usize,
        sinks: &[Sink],
        urgency: Urgency,
    ) -> Result<Self> {
        let sinks: Vec<RawFd> = sinks.iter().map(Sink::descriptor).collect();
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["worker", &processor.to_string()]).args(sinks.iter().map(RawFd::to_string));
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        place::put(&mut command, namespace, cgroup, sinks, urgency)?;
        let mut child = command.spawn().context("cannot start a worker")?;
        let tasks = child.stdin.take().context("the worker's input")?;
        let answers = BufReader::new(child.stdout.take().context("the worker's output")?);
        Ok(Self { child, tasks, answers })
    }

    /// Runs a task to its end.
    pub(crate) fn run(&mut self, task: &Task) -> Result<Done> {
        interrupt::check()?;
        let mut line = serde_json::to_string(task)?;
        line.push('\n');
        self.tasks.write_all(line.as_bytes()).with_context(|| gone(task))?;
        let mut ready = [PollFd::new(self.answers.get_ref().as_fd(), PollFlags::POLLIN)];
        if poll(&mut ready, PollTimeout::from(PATIENCE)).unwrap_or_default() == 0 {
            interrupt::check()?;
            bail!("no answer to {task:?} within {} s", PATIENCE / 1000);
        }
        line.clear();
        self.answers.read_line(&mut line).with_context(|| gone(task))?;
        if line.is_empty() {
            interrupt::check()?;
            bail!(gone(task));
        }
        let answer: Answer = serde_json::from_str(&line).with_context(|| line.clone())?;
        answer.map_err(anyhow::Error::msg)
    }
}

fn gone(task: &Task) -> String {
    format!("a worker ended while it was asked for {task:?}")
}

impl Drop for Worker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
