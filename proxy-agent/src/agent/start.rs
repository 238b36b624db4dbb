//! Starts the agent: locks and the cgroup, programs and maps first, then the HTTP listeners and the planner; nothing is attached
//! yet.

use std::{
    fmt, fs,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::Context as _;
use tokio::io::{Interest, unix::AsyncFd};
use tracing::{debug, info, warn};

use super::{
    follow::Agent, growth::Growth, missing_node::NoNode, neighbours::Neighbours, report::Report,
    run_dir::RunDir,
};
use crate::{
    announce::{Announcement, Announcer},
    config::Settings,
    dataplane::{
        self, Capacity, Dataplane, FlowOptions, Interfaces, Options, Pins, Progress, ReservedPorts,
        SocketOptions, TakingOver, Wanted,
    },
    plan::{Planner, is_api_server},
    privileges::{capabilities, memory},
    serve::Serve,
    source,
};

/// How often to look whether cgroup2 is mounted.
const CGROUP: Duration = Duration::from_secs(1);

/// What the command line decides, apart from the configuration.
#[derive(Clone, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of the command line")]
pub struct Start {
    /// Directory on a BPF file system for maps and links.
    pub pin_dir: PathBuf,
    /// Directory for the agent's lock and report.
    pub run_dir: PathBuf,
    /// The cgroup whose processes the socket programs serve; nothing for the node's.
    pub cgroup_root: Option<PathBuf>,
    /// Where Services are read from.
    pub objects: Objects,
    /// What tables may grow to.
    pub limits: Capacity,
    /// The devices to attach the packet programs to.
    pub devices: Wanted,
    /// Whether programs are attached to devices as TCX links.
    pub tcx: bool,
    /// Whether new connections to endpoints on other nodes stay off the fast path.
    pub through_stack: bool,
    /// Whose sockets the socket programs serve.
    pub sockets: SocketOptions,
    /// Whether the programs log every decision.
    pub program_log: bool,
    /// Whether to take over from kube-proxy.
    pub take_over: bool,
}

/// Where Services are read from.
#[derive(Clone, Debug)]
pub enum Objects {
    /// The YAML files of a directory.
    Manifests(PathBuf),
    /// An API server: at this address, or where the kubeconfig or the service account says.
    ApiServer(Option<String>),
}

impl fmt::Display for Objects {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Manifests(directory) => write!(f, "manifests in {}", directory.display()),
            Self::ApiServer(Some(server)) => write!(f, "API server {}", source::without_user(server)),
            Self::ApiServer(None) => f.write_str("API server of the kubeconfig or service account"),
        }
    }
}

impl Start {
    /// Takes the run directory.
    pub(super) fn lock(&self) -> anyhow::Result<RunDir> {
        RunDir::lock(&self.run_dir)
            .with_context(|| format!("another agent may be running: cannot lock {}", self.run_dir.display()))
    }

    /// The cgroup to attach to. Waits until cgroup2 is mounted: a node may do that late, and a supervisor that starts the
    /// agent again would wait longer each time.
    pub(super) async fn cgroup_root(&self, run_dir: &RunDir) -> anyhow::Result<PathBuf> {
        if let Some(root) = &self.cgroup_root {
            ensure_cgroup(root)?;
            return Ok(root.clone());
        }
        let mut said = false;
        loop {
            if let Some(root) = dataplane::mounted_cgroup()? {
                return Ok(root);
            }
            if !std::mem::replace(&mut said, true) {
                warn!("{}; waiting for it", dataplane::NO_CGROUP);
                run_dir.waits(&format!("waits: {}", dataplane::NO_CGROUP));
            }
            tokio::time::sleep(CGROUP).await;
        }
    }

    fn options(&self, cgroup_root: PathBuf, settings: &Settings) -> Options {
        Options {
            pin_dir: self.pin_dir.clone(),
            cgroup_root,
            capacity: Capacity::START.within(self.limits),
            program_log: self.program_log,
            sockets: self.sockets,
            flows: FlowOptions {
                source_ports: settings.source_ports,
                timeouts: settings.timeouts,
                limit: self.limits.flows,
                through_stack: self.through_stack,
                of_pods: !self.devices.pods.is_nothing(),
            },
        }
    }
}

impl Agent {
    /// Takes the lock of the tables, loads the programs, and adopts the Services installed in the maps.
    pub(super) fn start(
        start: &Start,
        run_dir: RunDir,
        cgroup_root: PathBuf,
        settings: &Settings,
        announcer: Announcer,
    ) -> anyhow::Result<Self> {
        let node = node_name(settings)?;
        let options = start.options(cgroup_root, settings);
        survive(settings.oom_score_adj);
        memory::raise();
        // Before any thread is started, which would keep what it has.
        capabilities::drop_others(listens_below_1024(settings)).context("cannot drop capabilities")?;
        let pins = Pins::lock(&options.pin_dir)?;
        let (mut ebpf, upgrade) =
            dataplane::load_or_upgrade(&options).map_err(|error| match memory::too_low() {
                Some(why) => anyhow::Error::new(error).context(why),
                None => error.into(),
            })?;
        if options.program_log {
            follow_program_log(&mut ebpf);
        }
        let dataplane = Dataplane::open(&options)?;
        let found = dataplane.capacity();
        let source_ports = (!start.devices.is_nothing()).then_some(settings.source_ports);
        let reserved_ports = ReservedPorts::reserve(source_ports, &start.run_dir);
        let interfaces =
            Interfaces::open(&options.pin_dir, dataplane.shared(), start.devices.clone(), start.tcx)?;
        let taking_over =
            start.take_over.then(|| TakingOver::start(&options.pin_dir, &options.cgroup_root)).transpose()?;
        let report = first_report(start, &run_dir, &options.cgroup_root, &node);
        info!(
            version = report.version, node, source = report.source, cgroup = %options.cgroup_root.display(),
            adopted = dataplane.installed().len(), "starting"
        );
        let serve = Serve::start(settings, dataplane.shared(), &node, &report.source)?;
        let mut agent = Self {
            planner: planner(&node, settings, &dataplane)?,
            dataplane,
            interfaces,
            // Before anything is attached.
            neighbours: Neighbours::look(&options),
            ebpf,
            pins,
            options,
            run_dir,
            report,
            growth: Growth::new(start.limits, found),
            not_installed: Vec::new(),
            misconfigured: settings.problems.clone(),
            reserved_ports,
            no_node: NoNode::default(),
            serve,
            announcer,
            taking_over,
            untidy: 0,
        };
        if let Some(upgrade) = upgrade {
            let replaced = agent.interfaces.replace_programs(&mut agent.ebpf);
            let finished = replaced.and_then(|()| upgrade.finish(&agent.dataplane.shared().now()));
            if let Err(error) = finished {
                warn!(%error, "connections from outside that began in the last moment may have to begin again");
            }
        }
        agent.announcer.tell(Announcement::starting());
        agent.write_report();
        Ok(agent)
    }
}

/// CF-2: the configured name, else the host name in lower case.
fn node_name(settings: &Settings) -> anyhow::Result<String> {
    Ok(match &settings.node_name {
        Some(name) => name.clone(),
        None => nix::unistd::gethostname()?.to_string_lossy().to_lowercase(),
    })
}

/// Whether a listener has a port that not everybody may listen at.
fn listens_below_1024(settings: &Settings) -> bool {
    [settings.healthz, settings.metrics].into_iter().flatten().any(|address| address.port() < 1024)
}

/// CF-15.
fn survive(oom_score_adj: i32) {
    if let Err(error) = fs::write("/proc/self/oom_score_adj", oom_score_adj.to_string()) {
        debug!(%error, score = oom_score_adj, "cannot set the OOM score adjustment");
    }
}

fn ensure_cgroup(root: &Path) -> anyhow::Result<()> {
    let processes = root.join("cgroup.procs");
    anyhow::ensure!(
        processes.exists(),
        "--cgroup-root {} is not a directory of cgroup2: {} is missing",
        root.display(),
        processes.display()
    );
    Ok(())
}

fn first_report(start: &Start, run_dir: &RunDir, cgroup_root: &Path, node: &str) -> Report {
    // Until the source has told all Pods, those of before are known.
    let before = run_dir.last_report().filter(|report| report.node == node);
    Report {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        pid: std::process::id(),
        node: node.to_owned(),
        source: start.objects.to_string(),
        cgroup_root: cgroup_root.to_owned(),
        pin_dir: start.pin_dir.clone(),
        synced: false,
        takeover: start.take_over.then(Progress::default),
        devices: Vec::new(),
        pod_devices: Vec::new(),
        host_only: start.sockets.host_only,
        passed_by: Vec::new(),
        pods: before.map(|report| report.pods).unwrap_or_default(),
        problems: Vec::new(),
    }
}

fn planner(node: &str, settings: &Settings, dataplane: &Dataplane) -> anyhow::Result<Planner> {
    let mut planner = Planner::new(node);
    planner.set_node_port_addresses(settings.node_port_addresses.clone());
    planner.set_cannot_restrict(dataplane::cannot_restrict()?);
    // The planner keeps only the plan of `default/kubernetes`: it must not lose the API server's last endpoints.
    for plan in dataplane.recall(|id| is_api_server(&id.service)) {
        planner.recall(plan);
    }
    Ok(planner)
}

/// Reads the programs' log as long as the agent runs, or they do.
pub(super) fn follow_program_log(ebpf: &mut aya::Ebpf) {
    let logger = aya_log::EbpfLogger::init(ebpf).map_err(anyhow::Error::from).and_then(|logger| {
        // SAFETY: the logger owns its descriptor and names the same one as long as it lives.
        unsafe { AsyncFd::register_with_interest(logger, Interest::READABLE) }.map_err(Into::into)
    });
    match logger {
        Ok(mut logger) => {
            tokio::spawn(async move {
                while let Ok(mut ready) = logger.readable_mut().await {
                    ready.get_inner_mut().flush();
                    ready.clear_ready();
                }
            });
        }
        Err(error) => warn!(%error, "cannot read the programs' log"),
    }
}
