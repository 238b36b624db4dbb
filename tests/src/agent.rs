//! `sidestep run` as a process of the lab's node.

use std::{
    ffi::OsString,
    fs::{self, OpenOptions},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Command, ExitStatus, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::{
    api_server::ApiServer, denied::deny, kept::Kept, lab::Lab, pace::within, report::Report, seat::Seat,
};

/// The variable that names the binary to test.
pub const BINARY: &str = "SIDESTEP_BIN";
/// The node's name in manifests (`metadata.name` of the Node, `nodeName` of endpoints).
pub const NODE_NAME: &str = "lab-node";

/// The directory of this layout's tables below the pin directory.
pub const ABI: &str = "v1";

/// Longest wait until an agent has installed everything.
const START: Duration = Duration::from_mins(1);
/// Longest wait for an agent to end after SIGTERM.
const STOP: Duration = Duration::from_secs(10);
/// How much of the log is shown when a test fails.
const TAIL: usize = 60;
/// How many equal readings in a row, 50 ms apart, show that memory has settled.
const SETTLED: usize = 5;

/// A running agent. Dropping it ends the process and leaves the datapath in place.
#[derive(Debug)]
pub struct Agent {
    /// The arguments of `run` that name its source of objects.
    source: Vec<OsString>,
    /// Whether it runs in the cgroup that its programs are attached to.
    inside: bool,
    environment: Vec<(&'static str, OsString)>,
    /// A command that executes it, such as `setpriv` with its arguments.
    wrapper: Vec<OsString>,
    /// The binary of the next start, if it is not the one to test.
    binary: Option<PathBuf>,
    /// System calls that fail, and the error.
    denied: Vec<(libc::c_long, i32)>,
    process: Option<Kept>,
    seat: Seat,
}

impl Agent {
    /// Starts an agent on the lab's node and waits until it has installed the manifests.
    pub fn start(lab: &Lab) -> Result<Self> {
        let mut agent = Self::reading(lab);
        agent.restart(lab)?;
        Ok(agent)
    }

    /// Starts an agent that follows an API server, and waits until it has installed the server's objects.
    pub fn follow(lab: &Lab, server: &ApiServer) -> Result<Self> {
        let mut agent = Self::following(lab, server);
        agent.restart(lab)?;
        Ok(agent)
    }

    /// An agent that follows an API server, not yet started: [`Agent::launch`] starts it without waiting.
    pub fn following(lab: &Lab, server: &ApiServer) -> Self {
        Self::at(lab, &server.url())
    }

    /// An agent for the API server at this URL, not yet started.
    pub fn at(lab: &Lab, server: &str) -> Self {
        Self::new(lab, vec!["--server".into(), server.into()])
    }

    fn new(lab: &Lab, source: Vec<OsString>) -> Self {
        Self::on(lab.seat(), source)
    }

    /// An agent on this node with these arguments of `run`, not yet started.
    pub fn on(seat: Seat, source: Vec<OsString>) -> Self {
        let (environment, wrapper, denied) = (Vec::new(), Vec::new(), Vec::new());
        Self { source, inside: false, environment, wrapper, binary: None, denied, process: None, seat }
    }

    /// An agent that follows the lab's manifests, not yet started.
    pub fn reading(lab: &Lab) -> Self {
        let manifests = lab.manifests().directory().into();
        Self::new(lab, vec!["--manifests".into(), manifests])
    }

    /// Adds these arguments of `run`, from the next start on.
    #[must_use]
    pub fn arguments<T: Into<OsString>>(mut self, arguments: impl IntoIterator<Item = T>) -> Self {
        self.source.extend(arguments.into_iter().map(Into::into));
        self
    }

    /// Starts it for the first time, and waits until it has installed everything.
    pub fn started(mut self, lab: &Lab) -> Result<Self> {
        self.restart(lab)?;
        Ok(self)
    }

    /// Has this command execute the agent from its next start on. The command must not fork.
    #[must_use]
    pub fn wrapped<T: Into<OsString>>(mut self, wrapper: impl IntoIterator<Item = T>) -> Self {
        self.wrapper = wrapper.into_iter().map(Into::into).collect();
        self
    }

    /// Has the next start use this binary; nothing for the one to test.
    pub fn set_binary(&mut self, binary: Option<PathBuf>) {
        self.binary = binary;
    }

    /// Has the next start use these arguments of `run` and this binary.
    pub fn change(&mut self, source: Vec<OsString>, binary: Option<PathBuf>) {
        self.source = source;
        self.binary = binary;
    }

    /// Puts the agent into the cgroup of the node's processes from its next start on, so that the hooks see its
    /// sockets, as on a real node. It must end before the lab.
    #[must_use]
    pub fn inside(mut self) -> Self {
        self.inside = true;
        self
    }

    /// Has a system call fail with this error from the next start on.
    #[must_use]
    pub fn denied(mut self, call: libc::c_long, errno: i32) -> Self {
        self.denied.push((call, errno));
        self
    }

    /// Sets an environment variable from the next start on.
    #[must_use]
    pub fn variable(mut self, name: &'static str, value: impl Into<OsString>) -> Self {
        self.environment.push((name, value.into()));
        self
    }

    /// Starts the agent again, after [`Agent::stop`] or [`Agent::kill`].
    pub fn restart(&mut self, lab: &Lab) -> Result<()> {
        self.launch(lab)?;
        self.wait_until_synced(within(START))
    }

    /// Starts the agent without waiting.
    pub fn launch(&mut self, lab: &Lab) -> Result<()> {
        debug_assert_eq!(
            lab.run_directory().parent(),
            self.seat.run_directory.parent(),
            "another lab's agent"
        );
        self.start_process()
    }

    /// Starts the agent without waiting, wherever it is.
    pub fn start_process(&mut self) -> Result<()> {
        ensure!(self.process.is_none(), "the agent is already running");
        let Seat { place, run_directory, log, node_name, .. } = &self.seat;
        let log = OpenOptions::new().create(true).append(true).open(log).context("the agent's log")?;
        let binary = self.binary.clone().map_or_else(binary, Ok)?;
        let mut command = self.seat.wrapped_command(&self.wrapper, binary, &["run"]);
        command.args(&self.source).args(["--node-name", node_name]);
        // Without the user's kubeconfig.
        command.env_remove("KUBECONFIG").env("HOME", run_directory);
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        // Only the test or demo gets Ctrl-C, and then ends the agent in the proper way.
        command.process_group(0);
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        let node = place.clone();
        // Outside of the lab's cgroups by default, so that these can always be removed.
        let (inside, denied) = (self.inside, self.denied.clone());
        self.process = Some(Kept::start(command, move || {
            if inside {
                node.enter()?;
            } else {
                node.namespace.enter()?;
            }
            denied.iter().try_for_each(|(call, errno)| deny(*call, *errno))
        })?);
        Ok(())
    }

    /// The agent's process id.
    pub fn pid(&self) -> Option<u32> {
        self.process.as_ref().map(|process| process.child.id())
    }

    /// The memory of its own in KiB, once it has been the same for a quarter of a second: what a start or a burst took is
    /// given back a moment after the agent says that it is done.
    pub fn settled_memory(&self) -> Result<u64> {
        let start = Instant::now();
        let mut readings = vec![self.own_memory()?];
        while readings.len() < SETTLED {
            ensure!(start.elapsed() < within(START), "the agent's own memory does not settle");
            std::thread::sleep(Duration::from_millis(50));
            let now = self.own_memory()?;
            readings.retain(|reading| *reading == now);
            readings.push(now);
        }
        Ok(readings[0])
    }

    /// The memory of its own (`RssAnon`), in KiB: the tables that it maps are apart.
    fn own_memory(&self) -> Result<u64> {
        let file = format!("/proc/{}/status", self.pid().context("the agent does not run")?);
        let status = fs::read_to_string(&file).with_context(|| file.clone())?;
        let value =
            status.lines().find_map(|line| line.strip_prefix("RssAnon:")).with_context(|| file.clone())?;
        value.trim().trim_end_matches(" kB").parse().context(file)
    }

    /// How many descriptors it has, but for those that a search has open for milliseconds.
    pub fn descriptors(&self) -> Result<usize> {
        let directory = format!("/proc/{}/fd", self.pid().context("the agent does not run")?);
        let mut least = usize::MAX;
        for _ in 0..SETTLED {
            least = least.min(fs::read_dir(&directory).context(directory.clone())?.count());
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(least)
    }

    /// The agent's report.
    pub fn report(&self) -> Result<Report> {
        Report::read(&self.seat.run_directory)
    }

    /// Ends the agent with SIGTERM and returns its exit status.
    pub fn stop(&mut self) -> Result<ExitStatus> {
        self.signal(Signal::SIGTERM)?;
        let mut process = self.process.take().context("the agent does not run")?;
        let start = Instant::now();
        loop {
            if let Some(status) = process.child.try_wait()? {
                return Ok(status);
            }
            if start.elapsed() > STOP {
                bail!("the agent did not end within {STOP:?} after SIGTERM");
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Waits until the agent has ended by itself; its exit status.
    pub fn wait_for_end(&mut self, patience: Duration) -> Result<ExitStatus> {
        let process = self.process.as_mut().context("the agent does not run")?;
        let start = Instant::now();
        loop {
            if let Some(status) = process.child.try_wait()? {
                self.process = None;
                return Ok(status);
            }
            ensure!(start.elapsed() < patience, "the agent still runs after {patience:?}");
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// Kills the agent with SIGKILL, like a crash.
    pub fn kill(&mut self) -> Result<()> {
        let mut process = self.process.take().context("the agent does not run")?;
        process.child.kill()?;
        process.child.wait()?;
        Ok(())
    }

    /// The end of the agent's log.
    pub fn log_tail(&self) -> String {
        let text = fs::read_to_string(&self.seat.log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(TAIL)..].join("\n")
    }

    /// How many lines of its log, and of the logs of those before it in its place, say this.
    pub fn logged(&self, text: &str) -> usize {
        let log = fs::read_to_string(&self.seat.log).unwrap_or_default();
        log.lines().filter(|line| line.contains(text)).count()
    }

    /// Sends it a signal, such as SIGSTOP.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        let pid = self.pid().context("the agent does not run")?;
        kill(Pid::from_raw(pid.try_into()?), signal).context("kill")
    }

    /// Whether it has installed everything; an error if it has ended.
    pub fn is_synced(&mut self) -> Result<bool> {
        let pid = self.pid();
        if let Ok(report) = self.report()
            && report.synced
            && Some(report.pid) == pid
        {
            return Ok(true);
        }
        if let Some(process) = &mut self.process
            && let Some(status) = process.child.try_wait()?
        {
            self.process = None;
            bail!("the agent ended with {status} before it was synced:\n{}", self.log_tail());
        }
        Ok(false)
    }

    /// Waits until a started agent has installed everything.
    pub fn wait_until_synced(&mut self, patience: Duration) -> Result<()> {
        let start = Instant::now();
        while !self.is_synced()? {
            ensure!(
                start.elapsed() < patience,
                "the agent was not synced within {patience:?}:\n{}",
                self.log_tail()
            );
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- end of the agent's log\n{}\n---", self.log_tail());
        }
        if self.process.is_some()
            && let Err(error) = self.stop()
        {
            eprintln!("agent: {error:#}");
        }
    }
}

/// `sidestep` with these arguments and the lab's directories.
pub(crate) fn command(lab: &Lab, arguments: &[&str]) -> Result<Command> {
    Ok(lab.seat().wrapped_command(&[], binary()?, arguments))
}

/// The binary to test: the one that [`BINARY`] names, else the newest that cargo has built.
pub fn binary() -> Result<PathBuf> {
    if let Some(path) = std::env::var_os(BINARY) {
        return Ok(path.into());
    }
    let target = std::env::var_os("CARGO_TARGET_DIR")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../target"), PathBuf::from);
    let newest = ["release", "debug"]
        .map(|profile| target.join(profile).join("sidestep"))
        .into_iter()
        .filter_map(|path| Some((path.metadata().ok()?.modified().ok()?, path)))
        .max();
    match newest {
        Some((_, path)) => Ok(path.canonicalize()?),
        None => bail!(
            "no sidestep binary in {}: run `cargo xtask test`, which builds it, or set {BINARY}",
            target.display()
        ),
    }
}
