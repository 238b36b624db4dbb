//! The agent without its source: the stages after it, one after the other, and the report about them.

use std::{
    collections::{BTreeSet, HashSet},
    net::IpAddr,
    time::Instant,
};

use anyhow::Context as _;
use nix::{fcntl::Flock, ifaddrs::getifaddrs};
use tokio::io::{Interest, unix::AsyncFd};
use tracing::{debug, error, info, warn};

use super::{change_log::News, memory, missing_node::NoNode};
use crate::commands::{Place, run::Arguments};
use crate::{
    agent::report::{Report, RunDir},
    announce::{Announcement, Announcer},
    config::Settings,
    dataplane::{self, Capacity, Dataplane, FlowOptions, Interfaces, Options, ReservedPorts, has_tcx},
    plan::{Changes, Family, Planner, Problem, is_api_server},
    serve::{Applied, Serve},
    source::Batch,
};

/// The stages after the source, and the report about them.
pub(crate) struct Agent {
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
    pub(crate) fn start(
        arguments: &Arguments,
        settings: &Settings,
        announcer: Announcer,
    ) -> anyhow::Result<Self> {
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
            flows: FlowOptions {
                source_ports: settings.source_ports,
                timeouts: settings.timeouts,
                through_stack: arguments.through_stack,
            },
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
        let wanted = arguments.wanted(settings.masquerade_all);
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

    /// The node's name.
    pub(crate) fn node(&self) -> &str {
        &self.report.node
    }

    /// Follows what the source has said, and leaves nothing of it.
    pub(crate) fn take(&mut self, batches: &mut Vec<Batch>) -> anyhow::Result<()> {
        self.serve.queued(batches.iter().flatten());
        let changes = self.planner.apply(batches.drain(..).flatten());
        self.follow(changes)
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
        if changes.complete || self.report.synced {
            let exposed = self.dataplane.exposed();
            self.reserved_ports.set_node_ports(exposed.node_ports(), Instant::now());
            self.interfaces.set_served(exposed.families());
        }
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
    pub(crate) fn look_at_network(&mut self) -> anyhow::Result<()> {
        self.look_at_addresses()?;
        if self.report.synced {
            self.interfaces.look(&mut self.ebpf);
            self.write_report();
        }
        Ok(())
    }

    /// When [`Self::keep_reservation`] has something to do.
    pub(crate) fn reservation_due(&self) -> Instant {
        self.reserved_ports.due()
    }

    /// Reserves NodePorts that came, and what others have given back.
    pub(crate) fn keep_reservation(&mut self) {
        self.reserved_ports.keep(Instant::now());
        self.write_report();
    }

    /// Looks at what nobody tells of: the node's addresses, devices that could not be used.
    pub(crate) fn look_around(&mut self) -> anyhow::Result<()> {
        self.look_at_addresses()?;
        self.try_interfaces_again();
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
