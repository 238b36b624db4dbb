//! The takeover by the agent itself (`sidestep run --take-over`), in a thread of its own: it waits until kube-proxy is
//! gone and its rules do not change any more, compares, removes the rules that decide, and removes the rest when no
//! connection of kube-proxy's is left.
//!
//! Each step is found from what is there, so that the next agent goes on where this one ended. It never ends: an upgrade
//! of the cluster may bring kube-proxy back.

use std::{
    fmt,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        mpsc::{RecvTimeoutError, Sender, channel},
    },
    time::Duration,
};

use serde::{Deserialize, Serialize};

use super::{
    Error,
    node::{
        kube_proxy::{Rules, not_supported, running},
        netlink::Nftables,
    },
    takeover::Takeover,
};

/// How often to look while something happens.
const PERIOD: Duration = Duration::from_secs(2);
/// How often to look whether there are rules, and whether an obstacle is gone.
const IDLE: Duration = Duration::from_secs(20);
/// How many differences are told.
const TOLD: usize = 10;

/// How far the takeover is.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "camelCase")]
pub enum Progress {
    /// It begins when all Services are installed and a device serves north-south traffic.
    #[default]
    NotBegun,
    /// There are no rules of kube-proxy's.
    Nothing,
    /// kube-proxy still runs, or what may be it.
    KubeProxyRuns {
        /// What runs.
        running: Vec<String>,
    },
    /// The rules were others a moment ago.
    RulesChange,
    /// What Sidestep serves differs in a way that matters.
    Differs {
        /// The differences.
        differences: Vec<String>,
    },
    /// The rules that decide are gone; what connections of kube-proxy's need stays until they are over.
    ConnectionsLeft {
        /// How many, by protocol.
        left: super::Left,
    },
    /// It cannot be done here, or failed; it is tried again.
    Failed {
        /// Why.
        why: String,
    },
}

impl Progress {
    /// What somebody has to do something about.
    pub fn obstacle(&self) -> Option<String> {
        match self {
            Self::Differs { differences } => Some(format!(
                "Sidestep would not serve what kube-proxy serves, so its rules stay ({}); `sidestep takeover --compare` \
                 shows all, `sidestep takeover --despite-differences` removes them nevertheless",
                differences.join("; ")
            )),
            Self::Failed { why } => Some(why.clone()),
            _ => None,
        }
    }
}

impl fmt::Display for Progress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotBegun => {
                f.write_str("begins when all Services are installed and a device serves north-south traffic")
            }
            Self::Nothing => f.write_str("kube-proxy has no rules here"),
            Self::KubeProxyRuns { running } => {
                write!(f, "waiting until kube-proxy is gone: {}", running.join(", "))
            }
            Self::RulesChange => f.write_str("waiting until kube-proxy's rules change no more"),
            Self::Differs { differences } => write!(
                f,
                "kube-proxy's rules stay: {} differences matter (`sidestep takeover --compare`)",
                differences.len()
            ),
            Self::ConnectionsLeft { left } => {
                let each: Vec<String> = left.iter().map(|(name, count)| format!("{name} {count}")).collect();
                write!(f, "new connections are Sidestep's; of kube-proxy's are left: {}", each.join(", "))
            }
            Self::Failed { why } => write!(f, "trying again: {why}"),
        }
    }
}

/// The thread; it ends with this.
#[derive(Debug)]
pub struct TakingOver {
    progress: Arc<Mutex<Progress>>,
    begun: bool,
    /// Lets the thread begin, and stops it when it is dropped.
    thread: Sender<()>,
}

impl TakingOver {
    /// Starts the thread, which does nothing before [`TakingOver::begin`].
    pub fn start(pin_dir: &Path, cgroup_root: &Path) -> Result<Self, Error> {
        let progress = Arc::new(Mutex::new(Progress::NotBegun));
        let (thread, told_to) = channel::<()>();
        let (told, mut steps) = (Arc::clone(&progress), Steps::of(pin_dir, cgroup_root));
        std::thread::Builder::new()
            .name("takeover".to_owned())
            .spawn(move || {
                if told_to.recv().is_err() {
                    return;
                }
                loop {
                    let now =
                        steps.step().unwrap_or_else(|error| Progress::Failed { why: error.to_string() });
                    let wait = match now {
                        Progress::Nothing | Progress::Failed { .. } => IDLE,
                        _ => PERIOD,
                    };
                    let before = std::mem::replace(
                        &mut *told.lock().unwrap_or_else(PoisonError::into_inner),
                        now.clone(),
                    );
                    if before != now {
                        tracing::info!("takeover from kube-proxy: {now}");
                    }
                    if told_to.recv_timeout(wait) != Err(RecvTimeoutError::Timeout) {
                        break;
                    }
                }
            })
            .map_err(Error::system("starting a thread", "takeover"))?;
        Ok(Self { progress, begun: false, thread })
    }

    /// The tables are complete, and the programs attached.
    pub fn begin(&mut self) {
        if !std::mem::replace(&mut self.begun, true) {
            // A thread that is gone has said why.
            let _ = self.thread.send(());
        }
    }

    /// How far it is.
    pub fn progress(&self) -> Progress {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// What is known from one step to the next.
struct Steps {
    pin_dir: PathBuf,
    cgroup_root: PathBuf,
    /// Open while there is something to take over.
    takeover: Option<Takeover>,
    /// The rules of the last look.
    seen: Option<Rules>,
    /// What is left of the rules when it is over: chains that somebody else makes, too.
    rest: Option<Rules>,
}

impl Steps {
    fn of(pin_dir: &Path, cgroup_root: &Path) -> Self {
        let (pin_dir, cgroup_root) = (pin_dir.to_owned(), cgroup_root.to_owned());
        Self { pin_dir, cgroup_root, takeover: None, seen: None, rest: None }
    }

    fn step(&mut self) -> Result<Progress, Error> {
        if let Some(why) = not_supported() {
            return Ok(Progress::Failed { why });
        }
        // A kernel without netfilter has no rules.
        let Ok(nftables) = Nftables::new() else { return Ok(Progress::Nothing) };
        let rules = Rules::read(&nftables)?;
        if rules.is_empty() || self.rest.as_ref() == Some(&rules) {
            (self.takeover, self.seen) = (None, None);
            return Ok(Progress::Nothing);
        }
        if rules.decides() { self.decide(rules) } else { self.finish(&nftables) }
    }

    /// Removes the rules that decide, if nothing speaks against it.
    fn decide(&mut self, rules: Rules) -> Result<Progress, Error> {
        let running = running(std::process::id()).all();
        if !running.is_empty() {
            self.seen = None;
            return Ok(Progress::KubeProxyRuns { running });
        }
        if self.seen.as_ref() != Some(&rules) {
            self.seen = Some(rules);
            return Ok(Progress::RulesChange);
        }
        let takeover = self.takeover()?;
        let compared = takeover.compare(false)?;
        for rule in &compared.not_understood {
            tracing::warn!("not understood of kube-proxy's: {rule}");
        }
        let differences: Vec<String> = compared.that_matter().map(ToString::to_string).take(TOLD).collect();
        if !differences.is_empty() {
            return Ok(Progress::Differs { differences });
        }
        takeover.remove()?;
        tracing::info!(
            frontends = compared.frontends,
            "removed kube-proxy's rules: new connections are ours"
        );
        Ok(Progress::ConnectionsLeft { left: takeover.left()? })
    }

    /// Removes the rest, if no connection is left.
    fn finish(&mut self, nftables: &Nftables) -> Result<Progress, Error> {
        let takeover = self.takeover()?;
        let left = takeover.left()?;
        if !left.is_empty() {
            return Ok(Progress::ConnectionsLeft { left });
        }
        takeover.finish()?;
        self.rest = Some(Rules::read(nftables)?);
        (self.takeover, self.seen) = (None, None);
        Ok(Progress::Nothing)
    }

    fn takeover(&mut self) -> Result<&mut Takeover, Error> {
        Ok(match &mut self.takeover {
            Some(open) => open,
            closed => closed.insert(Takeover::open(&self.pin_dir, &self.cgroup_root)?),
        })
    }
}
