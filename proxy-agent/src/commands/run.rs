//! `sidestep run`: the agent. Source -> plan -> dataplane, until somebody ends it; the datapath stays.
//!
//! One thread does everything in turn (a source only waits for the network or for files); the grace thread
//! of the dataplane and the reader of manifests are the others.

use std::{
    collections::{BTreeSet, HashSet},
    net::IpAddr,
    path::PathBuf,
    process::ExitCode,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use clap::Args;
use nix::{fcntl::Flock, ifaddrs::getifaddrs};
use tokio::{
    io::{Interest, unix::AsyncFd},
    signal::unix::{SignalKind, signal},
    sync::mpsc,
    time::{MissedTickBehavior, interval},
};
use tracing::{debug, error, info, warn};

use super::{Place, cleanup, memory, mount, news::News, no_node::NoNode};
use crate::{
    announce::{self, Announcement, Announcer},
    config::{self, Flags, Settings},
    dataplane::{
        self, Capacity, Dataplane, FlowOptions, Interfaces, Options, ReservedPorts, Wanted, has_tcx,
    },
    plan::{Changes, Family, Planner, Problem, is_api_server},
    report::{Report, RunDir},
    serve::{Applied, Serve},
    source::{self, Batch},
};

/// Arguments of `run`.
#[derive(Debug, Args)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of the command line")]
pub(super) struct Arguments {
    #[command(flatten)]
    place: Place,
    /// Read Service, EndpointSlice and Node objects from the YAML files of this directory, and follow it;
    /// without it, from the API server that the kubeconfig or the pod's service account names
    #[arg(long, value_name = "DIR")]
    manifests: Option<PathBuf>,
    /// Go straight to this API server: the `kubernetes` Service does not work before Sidestep does
    #[arg(long, value_name = "URL", alias = "master", conflicts_with = "manifests", env = "SIDESTEP_SERVER")]
    server: Option<String>,
    #[command(flatten)]
    configuration: Flags,
    /// Room for Service ports in all families, for tables that are made new
    #[arg(long, default_value_t = Capacity::default().services, value_parser = clap::value_parser!(u32).range(16..=1 << 24))]
    max_services: u32,
    /// Room for addresses of Services
    #[arg(long, default_value_t = Capacity::default().frontends, value_parser = clap::value_parser!(u32).range(16..=1 << 24))]
    max_frontends: u32,
    /// Room for endpoints, and for those that an update replaces
    #[arg(long, default_value_t = Capacity::default().endpoints, value_parser = clap::value_parser!(u32).range(16..=1 << 24))]
    max_endpoints: u32,
    /// Room for flows of packets from outside; one that is masqueraded counts twice
    #[arg(long, default_value_t = Capacity::default().flows, value_parser = clap::value_parser!(u32).range(16..=1 << 24))]
    max_flows: u32,
    /// Serve packets from outside at this device, such as `eth0` or `wg*`, and at no others but those that are named too;
    /// `none` for nowhere [default: where they come in, and where they go to other nodes]
    #[arg(
        long, value_name = "NAME", value_delimiter = ',', value_parser = glob::Pattern::new,
        env = "SIDESTEP_INTERFACE"
    )]
    interface: Vec<glob::Pattern>,
    /// Attach to devices as kernels before 6.6 need it
    #[arg(long, hide = true)]
    no_tcx: bool,
    /// Remove everything that is Sidestep's, as `sidestep cleanup` does, and end
    #[arg(long, conflicts_with = "init_only")]
    cleanup: bool,
    /// Mount what the node lacks, as `sidestep mount` does, and end
    #[arg(long)]
    init_only: bool,
    /// Let the kernel programs tell every decision too (at level debug): for debugging only
    #[arg(long)]
    program_log: bool,
    /// What to log, such as `info` or `proxy_agent=debug`
    #[arg(long, default_value = "info", env = "SIDESTEP_LOG")]
    log: String,
    /// kube-proxy's verbosity: 4 and more is `--log debug`
    #[arg(short, long, value_name = "LEVEL", conflicts_with = "log")]
    v: Option<u8>,
}

impl Arguments {
    /// Where packets from outside are served.
    fn wanted(&self) -> Wanted {
        if self.interface.is_empty() {
            return Wanted::Auto;
        }
        let is_name = |pattern: &&glob::Pattern| pattern.as_str() != "none";
        Wanted::Named(self.interface.iter().filter(is_name).cloned().collect())
    }
}

/// How often the node's own addresses are looked at.
const ADDRESSES: Duration = Duration::from_secs(5);
/// How many batches of events may wait.
const QUEUE: usize = 256;

pub(super) fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    let log = if arguments.v.is_some_and(|level| level >= 4) { "debug" } else { &arguments.log };
    let filter = tracing_subscriber::EnvFilter::try_new(log)
        .with_context(|| format!("--log {log:?} is not a filter"))?;
    let colours = std::io::IsTerminal::is_terminal(&std::io::stderr());
    tracing_subscriber::fmt().with_env_filter(filter).with_ansi(colours).with_writer(std::io::stderr).init();
    if arguments.cleanup {
        return cleanup::run(&arguments.place.into());
    }
    if arguments.init_only {
        return mount::run(&arguments.place.into());
    }
    let settings = Settings::read(&arguments.configuration)?;
    if let Some(path) = &arguments.configuration.write_config_to {
        std::fs::write(path, settings.to_yaml()?).with_context(|| path.display().to_string())?;
        return Ok(ExitCode::SUCCESS);
    }
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(serve(arguments, settings))
}

async fn serve(arguments: Arguments, settings: Settings) -> anyhow::Result<ExitCode> {
    // Before anything else, so that no signal finds the agent half started.
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let (announcer, announcements) = Announcer::new();
    // Before anything is looked at.
    let mut network = dataplane::NetworkChanges::listen()?;
    let mut agent = Agent::start(&arguments, &settings, announcer)?;

    let (events, mut batches) = mpsc::channel::<Batch>(QUEUE);
    let bypass = dataplane::Bypass::open(&arguments.place.pin_dir)?;
    let node = agent.report.node.clone();
    let source = follow(arguments, settings.kubeconfig.clone(), node, bypass, events, announcements);
    let source = tokio::spawn(source);
    let file = settings.file.as_ref().map(|(path, text)| (path.as_path(), text.as_str()));
    let mut reconfigured = std::pin::pin!(config::changed(file));
    let mut addresses = interval(ADDRESSES);
    addresses.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut waiting = Vec::new();
    loop {
        tokio::select! {
            // Address changes first: a NodePort must not miss the address that a Service came with.
            biased;
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
            () = &mut reconfigured => {
                info!("the configuration file has changed: ending, to be started again with it");
                break;
            }
            () = network.next() => {
                let began = Instant::now();
                agent.look_at_network()?;
                network.looked(began);
            }
            _ = addresses.tick() => {
                agent.reserved_ports.keep(Instant::now());
                agent.look_at_addresses()?;
                agent.try_interfaces_again();
            }
            count = batches.recv_many(&mut waiting, QUEUE) => {
                if count == 0 {
                    // The source ended, which it does only with an error.
                    source.await.context("the source ended")??;
                    anyhow::bail!("the source ended");
                }
                agent.serve.queued(waiting.iter().flatten());
                let changes = agent.planner.apply(waiting.drain(..).flatten());
                agent.follow(changes)?;
            }
        }
    }
    source.abort();
    info!("ending; programs and tables stay as they are (`sidestep cleanup` removes them)");
    Ok(ExitCode::SUCCESS)
}

/// Runs the source until nobody listens.
async fn follow(
    arguments: Arguments,
    kubeconfig: Option<PathBuf>,
    node: String,
    bypass: dataplane::Bypass,
    events: mpsc::Sender<Batch>,
    announcements: mpsc::Receiver<Announcement>,
) -> anyhow::Result<()> {
    if let Some(directory) = &arguments.manifests {
        source::manifests::run(directory, events).await?;
    } else {
        let (server, kubeconfig) = (arguments.server.as_deref(), kubeconfig.as_deref());
        let client = source::kube::connect(server, kubeconfig, Some(bypass)).await?;
        let announce = announce::publish(client.clone(), &node, announcements);
        tokio::join!(source::kube::run(client.clone(), &node, events), announce);
    }
    Ok(())
}

/// The stages after the source, and the report about them.
struct Agent {
    planner: Planner,
    dataplane: Dataplane,
    interfaces: Interfaces,
    ebpf: aya::Ebpf,
    /// Held as long as this agent writes the tables.
    _tables_lock: Flock<std::fs::File>,
    options: Options,
    run_dir: RunDir,
    report: Report,
    /// What the kernel would not take, by object.
    refused: Vec<Problem>,
    /// What of the configuration could not be used.
    misconfigured: Vec<Problem>,
    reserved_ports: ReservedPorts,
    no_node: NoNode,
    serve: Serve,
    announcer: Announcer,
}

impl Agent {
    fn start(arguments: &Arguments, settings: &Settings, announcer: Announcer) -> anyhow::Result<Self> {
        let cgroup_root = arguments.place.cgroup_root()?;
        arguments.place.check_bpffs()?;
        let Place { pin_dir, run_dir, .. } = &arguments.place;
        let run_dir = RunDir::lock(run_dir)
            .with_context(|| format!("another agent may be running: cannot lock {}", run_dir.display()))?;
        let node = match &settings.node_name {
            Some(name) => name.clone(),
            None => nix::unistd::gethostname()?.to_string_lossy().to_lowercase(),
        };
        let options = Options {
            pin_dir: pin_dir.clone(),
            cgroup_root,
            capacity: Capacity {
                services: arguments.max_services,
                frontends: arguments.max_frontends,
                endpoints: arguments.max_endpoints,
                flows: arguments.max_flows,
            },
            program_log: arguments.program_log,
            flows: FlowOptions { source_ports: settings.source_ports, timeouts: settings.timeouts },
        };
        if let Err(error) = std::fs::write("/proc/self/oom_score_adj", settings.oom_score_adj.to_string()) {
            debug!(%error, score = settings.oom_score_adj, "the kernel's choice when memory is short stays");
        }
        let processes = options.cgroup_root.join("cgroup.procs");
        anyhow::ensure!(
            processes.exists(),
            "--cgroup-root {} is not a directory of cgroup2: {} is missing",
            options.cgroup_root.display(),
            processes.display()
        );
        let tables_lock = dataplane::lock(pin_dir)?;
        let mut ebpf = dataplane::load(&options)?;
        if options.program_log {
            follow_program_log(&mut ebpf)?;
        }
        let dataplane = Dataplane::open(&options)?;
        let wanted = arguments.wanted();
        let masquerades = (!wanted.is_nothing()).then_some(settings.source_ports);
        let reserved_ports = ReservedPorts::reserve(masquerades, &arguments.place.run_dir);
        let interfaces = Interfaces::open(pin_dir, wanted, !arguments.no_tcx && has_tcx())?;
        let source = match (&arguments.manifests, &arguments.server) {
            (Some(directory), _) => format!("manifests in {}", directory.display()),
            (None, Some(server)) => format!("API server {server}"),
            (None, None) => "API server of the kubeconfig or service account".to_owned(),
        };
        info!(
            version = env!("CARGO_PKG_VERSION"), node, source, cgroup = %options.cgroup_root.display(),
            adopted = dataplane.installed().len(), "starting"
        );
        let report = Report {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            node: node.clone(),
            source,
            cgroup_root: options.cgroup_root.clone(),
            synced: false,
            devices: Vec::new(),
            problems: Vec::new(),
        };
        let serve = Serve::start(settings, pin_dir, &node, &report.source)?;
        let mut planner = Planner::new(&node);
        planner.set_node_port_addresses(settings.node_port_addresses.clone());
        planner.set_cannot_restrict(dataplane::cannot_restrict()?);
        // The way to the API server outlives its list of endpoints; the planner takes no other plan.
        for plan in dataplane.recall(|id| is_api_server(&id.service)) {
            planner.recall(plan);
        }
        let mut agent = Self {
            planner,
            dataplane,
            interfaces,
            ebpf,
            _tables_lock: tables_lock,
            options,
            run_dir,
            report,
            refused: Vec::new(),
            misconfigured: settings.problems.clone(),
            reserved_ports,
            no_node: NoNode::default(),
            serve,
            announcer,
        };
        agent.announcer.tell(Announcement::starting());
        agent.write_report();
        Ok(agent)
    }

    /// Installs changes, attaches the programs once everything is installed, and reports.
    fn follow(&mut self, mut changes: Changes) -> anyhow::Result<()> {
        let began = Instant::now();
        let mut families: BTreeSet<Family> = changes.families().collect();
        while changes.more {
            self.install(&changes);
            changes = self.planner.next_part();
            families.extend(changes.families());
        }
        self.install(&changes);
        if changes.complete {
            // Not before: a Service that is not installed yet would not be a Service.
            dataplane::attach(&mut self.ebpf, &self.options)?;
            self.report.synced = true;
            self.interfaces.set_node(self.planner.node_addresses());
            self.interfaces.look(&mut self.ebpf);
            info!(services = self.dataplane.installed().len(), "everything is installed");
            memory::give_back();
        } else if self.report.synced && self.interfaces.set_node(self.planner.node_addresses()) {
            self.interfaces.look(&mut self.ebpf);
        }
        self.write_report();
        self.serve.applied(Applied {
            changes: &changes,
            families,
            took: began.elapsed(),
            tally: self.planner.take_tally(),
            node_eligible: self.planner.is_node_eligible(),
            health_checks: self.planner.health_checks(),
            problems: self.report.problems.len(),
            synced: self.report.synced,
        });
        Ok(())
    }

    fn install(&mut self, changes: &Changes) {
        if changes.is_empty() {
            return;
        }
        let news = News::of(changes, &self.dataplane);
        self.refused = self.dataplane.apply(changes);
        if let Some(news) = news {
            news.tell(changes);
        }
    }

    /// Follows devices, addresses and routes.
    fn look_at_network(&mut self) -> anyhow::Result<()> {
        self.look_at_addresses()?;
        if self.report.synced {
            self.interfaces.look(&mut self.ebpf);
            self.write_report();
        }
        Ok(())
    }

    /// Looks again at devices if something is wrong with one.
    fn try_interfaces_again(&mut self) {
        if self.report.synced && !self.interfaces.problems().is_empty() {
            self.interfaces.look(&mut self.ebpf);
            self.write_report();
        }
    }

    /// Follows the addresses of the node's interfaces; those of kube-ipvs0 stand for Services.
    fn look_at_addresses(&mut self) -> anyhow::Result<()> {
        let interfaces = match getifaddrs() {
            Ok(interfaces) => interfaces,
            Err(error) => {
                warn!(%error, "the node's addresses cannot be listed; the last known ones stay");
                return Ok(());
            }
        };
        let addresses = interfaces
            .filter(|interface| interface.interface_name != "kube-ipvs0")
            .filter_map(|interface| interface.address)
            .filter_map(|address| {
                let v4 = address.as_sockaddr_in().map(|found| IpAddr::V4(found.ip()));
                v4.or_else(|| address.as_sockaddr_in6().map(|found| IpAddr::V6(found.ip())))
            })
            .filter(|address| !address.is_loopback())
            .collect();
        let changes = self.planner.set_local_addresses(addresses);
        self.follow(changes)
    }

    fn write_report(&mut self) {
        let mut problems = self.planner.problems();
        problems.extend(self.refused.iter().chain(&self.misconfigured).cloned());
        let node = &self.report.node;
        // What the source says of the Node, that it cannot be listed, is nearer to the cause.
        let told = problems.iter().any(|problem| problem.object.strip_prefix("Node ") == Some(node));
        let (synced, known) = (self.report.synced, told || self.planner.knows_node());
        problems.extend(self.no_node.problem(node, synced, known, Instant::now()));
        problems.extend(self.dataplane.problems());
        problems.extend(self.reserved_ports.problem().cloned());
        problems.extend(self.interfaces.problems().iter().cloned());
        self.report.devices = self.interfaces.devices();
        let of_listeners = problems.len();
        problems.extend(self.serve.problems());
        let known: HashSet<&Problem> = self.report.problems.iter().collect();
        for (number, problem) in problems.iter().enumerate() {
            if known.contains(problem) {
                continue;
            }
            warn!("{problem}");
            self.announcer.tell(if number < of_listeners {
                Announcement::not_installed(problem, node)
            } else {
                Announcement::not_listening(problem, node)
            });
        }
        self.report.problems = problems;
        if let Err(error) = self.run_dir.write(&self.report) {
            error!(%error, "the report for `sidestep status` could not be written");
        }
    }
}

/// Reads what the programs tell, for as long as the agent runs.
fn follow_program_log(ebpf: &mut aya::Ebpf) -> anyhow::Result<()> {
    let logger = aya_log::EbpfLogger::init(ebpf).context("reading the programs' log")?;
    // SAFETY: the logger owns its descriptor and names the same one as long as it lives.
    let mut logger = unsafe { AsyncFd::register_with_interest(logger, Interest::READABLE) }?;
    tokio::spawn(async move {
        while let Ok(mut ready) = logger.readable_mut().await {
            ready.get_inner_mut().flush();
            ready.clear_ready();
        }
    });
    Ok(())
}
