//! The set-up of `bench nodeport`: a site for each system, and its client.

use std::net::Ipv4Addr;

use anyhow::{Context as _, Result, ensure};
use sidestep_tests::{cgroup::Cgroup, identity::Identity};

use super::{
    floor, receive,
    services::{Endpoint, Services, Transport},
    sidestep::Sidestep,
    site::{Clients, NODE_INSIDE, NODE_POD, Site},
};
use crate::{
    interrupt,
    memory::FlowTables,
    netfilter::Flavour,
    place::Processors,
    progress::Progress,
    tracking,
    worker::{Target, Task, Worker, Workload},
};

/// The name of the row "direct", the denominator of every ratio.
pub(super) const DIRECT: &str = "direct";
/// The name of the same measurement by a second process.
pub(super) const CONTROL: &str = "direct, second process";

/// The name of the row of the [floor].
pub(super) const FLOOR: &str = "floor";

/// The system installed on a node.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum System {
    /// Nothing.
    Nothing,
    /// Programs that end at once, where Sidestep has its own.
    Floor,
    /// Sidestep.
    Sidestep,
    /// Rules.
    Rules(Flavour),
}

impl System {
    /// For people.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Nothing => DIRECT,
            Self::Floor => FLOOR,
            Self::Sidestep => "Sidestep",
            Self::Rules(flavour) => flavour.name(),
        }
    }

    /// The client address that the pod sees.
    const fn source(self, clients: Clients, endpoint: Endpoint) -> Ipv4Addr {
        match (self, endpoint) {
            (Self::Nothing | Self::Floor, _) => clients.address_to_pods(),
            // Answers to a pod come to its node by themselves.
            _ if matches!(clients, Clients::InPod) => clients.address(),
            (Self::Sidestep, Endpoint::Local) => clients.address(),
            (_, Endpoint::Remote) => NODE_INSIDE,
            // kube-proxy masquerades all north-south traffic with policy Cluster, also to local endpoints.
            (Self::Rules(_), Endpoint::Local) => NODE_POD,
        }
    }
}

/// A site with its system. Dropped in the order of the fields.
pub(super) struct Installation {
    /// What.
    pub(super) system: System,
    /// With how many Services.
    pub(super) services: Services,
    /// Where its client is.
    clients: Clients,
    /// Index of its client.
    pub(super) worker: usize,
    /// The agent, where it is Sidestep.
    pub(super) sidestep: Option<Sidestep>,
    site: Site,
}

impl Installation {
    /// For people.
    pub(super) fn name(&self) -> String {
        match self.system {
            System::Nothing | System::Floor => self.system.name().to_owned(),
            System::Sidestep | System::Rules(_) => {
                format!("{}, {}", self.system.name(), self.services.name())
            }
        }
    }

    /// Always the same Service, or the pod itself where there is none.
    pub(super) fn target(&self, transport: Transport, endpoint: Endpoint) -> Target {
        match self.services {
            Services::NONE => endpoint.direct(),
            services => services.hot(self.clients, transport, endpoint),
        }
    }
}

/// The lab. Clients go first.
pub(super) struct Lab {
    /// All clients; what follows refers to them by index.
    pub(super) workers: Vec<Worker>,
    /// What is compared.
    pub(super) installations: Vec<Installation>,
    /// Programs that have read rules.
    pub(super) readers: Vec<&'static str>,
    /// Clients of the site with nothing: two, so that they can be compared with each other.
    pub(super) direct: [usize; 2],
    /// Where clients are.
    pub(super) clients: Clients,
    /// Where clients and servers run.
    pub(super) processors: Processors,
    bare: Site,
    outside: Cgroup,
    root: Cgroup,
}

impl Lab {
    /// Makes everything, each system with each number of Services.
    pub(super) fn new(clients: Clients, sizes: &[Services], progress: &mut Progress) -> Result<Self> {
        progress.stage("making the clients' host, the nodes and the pods");
        let processors = Processors::find()?;
        let root = Cgroup::new(&Identity::new().to_string())?;
        let outside = root.child("outside")?;
        let bare = Site::new(0, clients, &outside, processors)?;
        let workers = vec![bare.worker(&outside, processors)?, bare.worker(&outside, processors)?];
        let mut lab = Self {
            workers,
            installations: Vec::new(),
            readers: Vec::new(),
            direct: [0, 1],
            clients,
            processors,
            bare,
            outside,
            root,
        };
        let rules = [Flavour::Nftables, Flavour::Iptables].map(System::Rules);
        for system in [System::Sidestep, System::Floor].into_iter().chain(rules) {
            let sizes = if system == System::Floor { &[Services::NONE] } else { sizes };
            for &services in sizes {
                interrupt::check()?;
                progress.stage(format!("installing {}, {}", system.name(), services.name()));
                lab.install(system, services)?;
            }
        }
        Ok(lab)
    }

    fn install(&mut self, system: System, services: Services) -> Result<()> {
        let clients = self.clients;
        let site = Site::new(self.installations.len() + 1, clients, &self.outside, self.processors)?;
        let mut sidestep = None;
        match system {
            System::Nothing => {}
            System::Floor => {
                let served = self.served().context("the floor comes after Sidestep")?;
                floor::attach(&site, &served.site)?;
            }
            System::Sidestep => {
                sidestep = Some(Sidestep::new(&self.root, &site.node, &services.manifests(clients))?);
            }
            System::Rules(flavour) => {
                self.readers.push(flavour.install(&services.ruled(clients), &site.node)?);
            }
        }
        self.workers.push(site.worker(&self.outside, self.processors)?);
        let worker = self.workers.len() - 1;
        self.installations.push(Installation { system, services, clients, worker, sidestep, site });
        Ok(())
    }

    /// A node that Sidestep serves.
    fn served(&self) -> Option<&Installation> {
        self.installations.iter().find(|installation| installation.system == System::Sidestep)
    }

    /// An error unless every pod sees the expected client address, in both protocols, with each installation.
    pub(super) fn ensure_translated(&mut self) -> Result<()> {
        for endpoint in Endpoint::ALL {
            for worker in self.direct {
                let expected = System::Nothing.source(self.clients, endpoint);
                for workload in [Workload::Who, Workload::DatagramWho] {
                    ensure_seen(&mut self.workers[worker], workload, endpoint.direct(), expected)
                        .with_context(|| format!("{DIRECT}, {}", endpoint.name()))?;
                }
            }
            for installation in &self.installations {
                let worker = &mut self.workers[installation.worker];
                let expected = installation.system.source(self.clients, endpoint);
                for (workload, transport) in
                    [(Workload::Who, Transport::Tcp), (Workload::DatagramWho, Transport::Udp)]
                {
                    let target = installation.target(transport, endpoint);
                    ensure_seen(worker, workload, target, expected).with_context(|| {
                        format!("{}, {}, {transport:?}", installation.name(), endpoint.name())
                    })?;
                }
            }
        }
        Ok(())
    }

    /// An error if a node tracks connections unexpectedly, or does not track them as expected.
    pub(super) fn ensure_tracking(&self) -> Result<()> {
        self.bare.ensure_untracked().context(DIRECT)?;
        for installation in &self.installations {
            let Installation { system, site, .. } = installation;
            match system {
                System::Rules(_) => {
                    let tracked = tracking::tracked(&site.node)?;
                    ensure!(tracked > 0, "{} tracks no connection", installation.name());
                }
                System::Nothing | System::Floor | System::Sidestep => {
                    site.ensure_untracked().with_context(|| installation.name())?;
                }
            }
        }
        Ok(())
    }

    /// Bytes of the tables for flows on a node that Sidestep serves.
    pub(super) fn flow_tables(&self) -> Result<FlowTables> {
        let sidestep = self.served().and_then(|installation| installation.sidestep.as_ref());
        FlowTables::of(&sidestep.context("no node with Sidestep")?.tables())
    }

    /// Makes every node receive its uplink's packets on a thread of its own.
    pub(super) fn receive_on_threads(&self) -> Result<()> {
        let sites = self.installations.iter().map(|installation| &installation.site);
        for site in std::iter::once(&self.bare).chain(sites) {
            receive::on_a_thread(site, self.processors.server)?;
        }
        Ok(())
    }
}

fn ensure_seen(worker: &mut Worker, workload: Workload, target: Target, expected: Ipv4Addr) -> Result<()> {
    let seen = worker.run(&Task { workload, target, operations: 1 })?.seen.context("no address")?;
    ensure!(seen == expected, "the pod sees {seen} instead of {expected}");
    Ok(())
}
