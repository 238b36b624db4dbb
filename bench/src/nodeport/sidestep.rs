//! Sidestep on a site's node: the shipped agent, reading manifests, with a pin directory and cgroup of its own.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use sidestep_tests::{
    agent, cgroup::Cgroup, identity::Identity, namespace::Namespace, pins::PinDirectory, report::Report,
};

use super::site::SITE_NODES;
use crate::place::{self, Urgency};

/// Longest wait for everything to be installed.
const PATIENCE: Duration = Duration::from_mins(1);

/// A running agent; dropping it removes what it has installed.
pub(super) struct Sidestep {
    agent: Child,
    directory: PathBuf,
    /// Where its tables and links are.
    pub(super) pins: PinDirectory,
    _cgroup: Cgroup,
}

impl Sidestep {
    /// Starts the agent on this node and waits until everything is installed.
    pub(super) fn new(parent: &Cgroup, node: &Namespace, manifests: &str) -> Result<Self> {
        let name = Identity::new().to_string();
        let cgroup = parent.child(&name)?;
        let pins = PinDirectory::new(&name)?;
        let directory = std::env::temp_dir().join(&name);
        for child in ["manifests", "run"] {
            fs::create_dir_all(directory.join(child)).with_context(|| directory.display().to_string())?;
        }
        fs::write(directory.join("manifests/bench.yaml"), manifests)?;
        let log = File::create(directory.join("log"))?;
        let mut command = Command::new(agent::binary()?);
        command.arg("run").arg("--manifests").arg(directory.join("manifests"));
        command.args(["--node-name", SITE_NODES[0]]).arg("--pin-dir").arg(pins.path());
        command.arg("--run-dir").arg(directory.join("run")).arg("--cgroup-root").arg(cgroup.path());
        command.env_remove("KUBECONFIG").env("HOME", &directory);
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        // Outside of the cgroup that it attaches to, so that the cgroup can always be removed.
        place::put(&mut command, node, parent, Vec::new(), Urgency::Ordinary)?;
        let agent = command.spawn().context("cannot start the agent")?;
        let mut sidestep = Self { agent, directory, pins, _cgroup: cgroup };
        sidestep.wait_until_synced()?;
        Ok(sidestep)
    }

    fn wait_until_synced(&mut self) -> Result<()> {
        let start = Instant::now();
        loop {
            let report = Report::read(&self.directory.join("run"));
            if report.is_ok_and(|report| report.synced && report.pid == self.agent.id()) {
                return Ok(());
            }
            if let Some(status) = self.agent.try_wait()? {
                bail!("the agent ended with {status}:\n{}", self.log());
            }
            if start.elapsed() > PATIENCE {
                bail!("the agent was not synced within {PATIENCE:?}:\n{}", self.log());
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    fn log(&self) -> String {
        fs::read_to_string(self.directory.join("log")).unwrap_or_default()
    }

    /// The directory of its pinned tables.
    pub(super) fn tables(&self) -> PathBuf {
        proxy_agent::dataplane::abi_dir(Path::new(self.pins.path()))
    }
}

impl Drop for Sidestep {
    fn drop(&mut self) {
        if let Ok(pid) = i32::try_from(self.agent.id()) {
            // Give it a moment to end properly; programs and tables disappear with the pins.
            let _ = kill(Pid::from_raw(pid), Signal::SIGTERM);
        }
        let start = Instant::now();
        while start.elapsed() < Duration::from_secs(5) && matches!(self.agent.try_wait(), Ok(None)) {
            std::thread::sleep(Duration::from_millis(5));
        }
        let _ = self.agent.kill();
        let _ = self.agent.wait();
        let _ = fs::remove_dir_all(&self.directory);
    }
}
