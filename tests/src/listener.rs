//! `sidestep monitor`, as it listens while a test does something.

use std::{
    io::{BufRead as _, BufReader, Read as _},
    process::{Child, ChildStderr, Stdio},
    sync::{Arc, Mutex},
    thread::{self, JoinHandle},
};

use anyhow::{Context as _, Result, ensure};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::Value;

use crate::{
    agent,
    eventually::{SOON, wait_for},
    lab::Lab,
};

/// A listener; killed on drop.
#[derive(Debug)]
pub struct Listener {
    child: Kept,
    events: Arc<Mutex<Vec<Value>>>,
    /// Reads what it prints, to its end.
    reader: JoinHandle<()>,
    stderr: BufReader<ChildStderr>,
}

impl Listener {
    /// Starts `sidestep monitor` with these arguments on the node, and waits until it listens.
    pub fn start(lab: &Lab, arguments: &[&str]) -> Result<Self> {
        let arguments = [&["monitor", "--output", "json"], arguments].concat();
        let mut command = agent::command(lab, &arguments)?;
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = lab.node().namespace().run(|| command.spawn())?.context("cannot run sidestep")?;
        let stdout = BufReader::new(child.stdout.take().context("no pipe")?);
        let mut stderr = BufReader::new(child.stderr.take().context("no pipe")?);
        let events = Arc::<Mutex<Vec<Value>>>::default();
        let told = Arc::clone(&events);
        // The thread ends with the process.
        let reader = thread::spawn(move || {
            for line in stdout.lines().map_while(Result::ok) {
                let event = serde_json::from_str(&line).unwrap_or(Value::String(line));
                told.lock().expect("a list").push(event);
            }
        });
        let mut said = String::new();
        stderr.read_line(&mut said)?;
        ensure!(said.starts_with("listening"), "sidestep monitor: {said}");
        Ok(Self { child: Kept(child), events, reader, stderr })
    }

    /// The id of the process.
    pub fn pid(&self) -> u32 {
        self.child.0.id()
    }

    /// Everything that it has told so far.
    pub fn events(&self) -> Vec<Value> {
        self.events.lock().expect("a list").clone()
    }

    /// Waits until this many events meet a condition, and returns those.
    pub fn wait_for(&self, count: usize, condition: impl Fn(&Value) -> bool) -> Vec<Value> {
        let mut found = Vec::new();
        let waited = wait_for(SOON, "the listener is told", || {
            found = self.events().into_iter().filter(|event| condition(event)).collect();
            found.len() >= count
        });
        assert!(waited.is_ok(), "{} of {count} within {SOON:?}: {:#?}", found.len(), self.events());
        found
    }

    /// Ends it as Ctrl-C does; returns all that it has told, and what it said on standard error.
    pub fn interrupt(self) -> Result<(Vec<Value>, String)> {
        let Self { mut child, events, reader, mut stderr } = self;
        kill(Pid::from_raw(child.0.id().cast_signed()), Signal::SIGINT)?;
        let mut said = String::new();
        stderr.read_to_string(&mut said)?;
        let status = child.0.wait()?;
        ensure!(status.success(), "it ended with {status}: {said}");
        ensure!(reader.join().is_ok(), "the reader panicked");
        let events = events.lock().expect("a list").clone();
        Ok((events, said))
    }

    /// Kills it, so that it cannot say that it ends.
    pub fn kill(self) -> Result<()> {
        let Self { mut child, .. } = self;
        child.0.kill()?;
        child.0.wait()?;
        Ok(())
    }
}

/// A process that ends with its value.
#[derive(Debug)]
struct Kept(Child);

impl Drop for Kept {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
