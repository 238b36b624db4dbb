//! `cargo xtask build-and-load`: the kernel programs on a cgroup of their own, for inspection and experiments.
//!
//! Only processes that are moved into the lab's cgroup see the Services. The command changes nothing else on the
//! machine, and removes everything when it ends.

mod cgroup;
mod inspect;
mod pins;

use std::fs::{self, File};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};

use crate::build::{agent, kernel};
use crate::setup::{self, Need};
use crate::{process, workspace};

/// How long the first synchronization may take.
const SYNC_LIMIT: Duration = Duration::from_secs(30);

/// What to load, and for how long.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Directory of manifests to serve
    ///
    /// Services and EndpointSlices as YAML files, relative to the repository. Edit them while the agent runs: it follows
    /// the directory.
    #[arg(long, default_value = "deploy/demo")]
    manifests: PathBuf,
    /// End after this many seconds
    ///
    /// Without it the command ends at Ctrl-C. Either way it removes everything that it made.
    #[arg(long)]
    seconds: Option<u64>,
    /// Build the agent with optimizations
    ///
    /// The kernel programs are always optimized.
    #[arg(long)]
    release: bool,
}

/// Builds, loads and attaches the programs, shows the result, and waits.
pub(crate) fn run(args: &Args) -> Result<()> {
    ensure!(nix::unistd::geteuid().is_root(), "loading programs into the kernel needs root: use sudo");
    setup::ensure(&[Need::KernelBuild, Need::Network])?;
    kernel::build()?;
    let binary = agent::build(if args.release { agent::Profile::Release } else { agent::Profile::Dev })?;
    let manifests = fs::canonicalize(workspace::path("").join(&args.manifests))
        .with_context(|| format!("cannot read the manifests in {}", args.manifests.display()))?;

    let stop = stop_signal()?;
    let mut lab = Lab::start(binary, &manifests)?;
    if lab.wait_until_synced(&stop)? {
        inspect::print(&lab.binary, lab.cgroup.path(), lab.pins.path(), &lab.run)?;
        println!("\nThe agent's log: {}", lab.log.display());
        match args.seconds {
            Some(seconds) => println!("Ends by itself after {seconds} s, or at Ctrl-C."),
            None => println!("Ctrl-C ends it, and removes everything."),
        }
        lab.wait(&stop, args.seconds.map(Duration::from_secs))?;
    }
    lab.end()
}

/// A receiver that gets a message at Ctrl-C.
fn stop_signal() -> Result<Receiver<()>> {
    let (send, receive) = mpsc::channel();
    ctrlc::set_handler(move || {
        let _ = send.send(());
    })?;
    Ok(receive)
}

/// A running agent on a cgroup and a bpffs of its own; dropping it removes all three.
struct Lab {
    binary: PathBuf,
    log: PathBuf,
    run: PathBuf,
    agent: Child,
    // Dropped in this order, after `Drop::drop` has stopped the agent.
    pins: pins::Pins,
    cgroup: cgroup::Cgroup,
}

impl Lab {
    fn start(binary: PathBuf, manifests: &Path) -> Result<Self> {
        let cgroup = cgroup::Cgroup::create("sidestep-lab")?;
        let pins = pins::Pins::create(Path::new("/run/sidestep-lab/bpf"))?;
        let run = PathBuf::from("/run/sidestep-lab/run");
        // The report of an earlier agent must not be taken for this one's.
        let _ = fs::remove_dir_all(&run);
        fs::create_dir_all(&run)?;
        let log = workspace::target("lab/agent.log");
        fs::create_dir_all(workspace::target("lab"))?;
        let file = File::create(&log).with_context(|| format!("cannot write {}", log.display()))?;
        let mut command = Command::new(&binary);
        command.arg("run").arg("--manifests").arg(manifests).args(["--node-name", "lab"]);
        command.arg("--cgroup-root").arg(cgroup.path()).arg("--pin-dir").arg(pins.path());
        // The machine's own devices and ports are not the lab's.
        command.args(["--interface", "none"]);
        command.arg("--run-dir").arg(&run).stdout(file.try_clone()?).stderr(file);
        // Only this command gets Ctrl-C; it then stops the agent.
        let agent = command.process_group(0).spawn().with_context(|| process::line(&command))?;
        Ok(Self { binary, log, run, agent, pins, cgroup })
    }

    /// Waits until the agent reports that it has installed the manifests; false if `stop` comes first.
    fn wait_until_synced(&mut self, stop: &Receiver<()>) -> Result<bool> {
        let start = Instant::now();
        loop {
            let report = fs::read_to_string(self.run.join("report.json")).unwrap_or_default();
            let report: serde_json::Value = serde_json::from_str(&report).unwrap_or_default();
            if report["synced"] == true {
                for problem in report["problems"].as_array().into_iter().flatten() {
                    println!("problem: {problem}");
                }
                return Ok(true);
            }
            if let Some(status) = self.agent.try_wait()? {
                bail!(self.ended(status));
            }
            ensure!(
                start.elapsed() < SYNC_LIMIT,
                "the agent has not installed the manifests after {} s; see its log, {}",
                SYNC_LIMIT.as_secs(),
                self.log.display()
            );
            match stop.recv_timeout(Duration::from_millis(50)) {
                Err(RecvTimeoutError::Timeout) => {}
                Ok(()) | Err(RecvTimeoutError::Disconnected) => return Ok(false),
            }
        }
    }

    /// Waits for Ctrl-C, for `limit`, or for the agent's end, which is an error.
    fn wait(&mut self, stop: &Receiver<()>, limit: Option<Duration>) -> Result<()> {
        let start = Instant::now();
        while limit.is_none_or(|limit| start.elapsed() < limit) {
            if let Ok(()) | Err(RecvTimeoutError::Disconnected) =
                stop.recv_timeout(Duration::from_millis(200))
            {
                break;
            }
            if let Some(status) = self.agent.try_wait()? {
                bail!(self.ended(status));
            }
        }
        Ok(())
    }

    /// Stops the agent and removes its programs with `sidestep cleanup`.
    fn end(mut self) -> Result<()> {
        self.stop_agent();
        process::run(Command::new(&self.binary).arg("cleanup").arg("--pin-dir").arg(self.pins.path()))
    }

    fn stop_agent(&mut self) {
        // A stopped agent leaves the datapath in place; `cleanup` and the drops remove it.
        let _ = self.agent.kill();
        let _ = self.agent.wait();
        // The cgroup can be removed once the kernel has seen the last process leave it.
        thread::sleep(Duration::from_millis(10));
    }

    fn ended(&self, status: ExitStatus) -> String {
        let log = fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        let tail = lines[lines.len().saturating_sub(25)..].join("\n  ");
        format!("the agent ended ({status}); the end of {}:\n  {tail}", self.log.display())
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        self.stop_agent();
        let _ = fs::remove_dir_all(&self.run);
    }
}
