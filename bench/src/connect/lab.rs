//! The set-up of `bench connect`. Dropped in the order of use: clients, rules, programs, namespaces, cgroups.

use anyhow::Result;
use sidestep_tests::{cgroup::Cgroup, identity::Identity};

use super::{
    Scale,
    listener::{Ear, Listened},
    ruled::RuledNode,
};
use crate::{
    comparisons::{Comparison, Comparisons},
    datapath::Datapath,
    interrupt,
    netfilter::Flavour,
    options::Options,
    part::Part,
    place::Processors,
    progress::Progress,
    topology::Topology,
    worker::Worker,
};

/// The lab.
pub(super) struct Lab {
    /// All clients; what follows refers to them by index.
    pub(super) workers: Vec<Worker>,
    /// Clients without programs: two, so that they can be compared with each other.
    pub(super) direct: [usize; 2],
    /// Clients of [`Lab::datapaths`], in the same order.
    pub(super) served: Vec<usize>,
    /// Clients of [`Lab::comparisons`].
    pub(super) compared: Vec<(Comparison, usize)>,
    /// Sidestep with listeners, and its clients.
    pub(super) listened: Vec<(Listened, usize)>,
    /// Nodes with rules, and their clients.
    pub(super) ruled: Vec<(RuledNode, usize)>,
    /// Other programs, on the tables of [`Lab::usual`].
    pub(super) comparisons: Option<Comparisons>,
    /// Sidestep, once for each number of Services.
    pub(super) datapaths: Vec<Datapath>,
    /// The node without rules.
    pub(super) topology: Topology,
    /// Where clients and servers run.
    pub(super) processors: Processors,
    outside: Cgroup,
    root: Cgroup,
}

/// The number of Services at which programs are compared.
pub(super) const USUAL: u32 = 1_000;

impl Lab {
    /// Makes everything.
    pub(super) fn new(options: &Options, scale: &Scale, progress: &mut Progress) -> Result<Self> {
        progress.stage("making the pods and the node");
        let processors = Processors::find()?;
        let root = Cgroup::new(&Identity::new().to_string())?;
        let outside = root.child("outside")?;
        let topology = Topology::new(&outside, processors)?;
        // Filled step by step, so that the order of dropping holds also where a step fails.
        let mut lab = Self {
            workers: Vec::new(),
            direct: [0, 1],
            served: Vec::new(),
            compared: Vec::new(),
            listened: Vec::new(),
            ruled: Vec::new(),
            comparisons: None,
            datapaths: Vec::new(),
            topology,
            processors,
            outside,
            root,
        };
        for _ in lab.direct {
            lab.workers.push(lab.topology.worker(&lab.outside, processors)?);
        }
        for &services in scale.sizes {
            interrupt::check()?;
            progress.stage(format!("installing {services} Services"));
            lab.datapaths.push(Datapath::new(&lab.root, &format!("services-{services}"), services)?);
            let cgroup = lab.datapaths[lab.datapaths.len() - 1].cgroup.clone();
            let worker = lab.client(&cgroup)?;
            lab.served.push(worker);
        }
        if let Some(object) = &options.object {
            let comparisons = Comparisons::new(object, &lab.datapaths[lab.usual()], &lab.root)?;
            let cgroups = comparisons.cgroups().to_vec();
            lab.comparisons = Some(comparisons);
            for (comparison, cgroup) in cgroups {
                let worker = lab.client(&cgroup)?;
                lab.compared.push((comparison, worker));
            }
        }
        if options.wants(Part::Listening) {
            for ear in Ear::ALL {
                progress.stage(format!("listening to {}", ear.title()));
                let listened = Listened::new(&lab.root, ear, USUAL)?;
                let worker = lab.client(&listened.datapath.cgroup.clone())?;
                lab.listened.push((listened, worker));
            }
        }
        for flavour in [Flavour::Nftables, Flavour::Iptables] {
            for &services in scale.ruled {
                interrupt::check()?;
                progress.stage(format!("loading rules for {services} Services into {}", flavour.name()));
                let node = RuledNode::new(flavour, services, &lab.outside, processors)?;
                lab.workers.push(node.worker(&lab.outside, processors)?);
                lab.ruled.push((node, lab.workers.len() - 1));
            }
        }
        Ok(lab)
    }

    /// Starts a client on the node without rules; gives its index.
    fn client(&mut self, cgroup: &Cgroup) -> Result<usize> {
        self.workers.push(self.topology.worker(cgroup, self.processors)?);
        Ok(self.workers.len() - 1)
    }

    /// The place in [`Lab::datapaths`] of the tables on which programs are compared.
    pub(super) fn usual(&self) -> usize {
        self.datapaths.iter().position(|path| path.services == USUAL).unwrap_or_default()
    }

    /// The programs that use socket storage, with a client of each.
    pub(super) fn storages(&self) -> Vec<(&'static str, usize)> {
        let small = self.compared.iter().filter(|(comparison, _)| comparison.connect == "small4");
        let usual = ("48 bytes of socket storage (shipped)", self.served[self.usual()]);
        std::iter::once(usual).chain(small.map(|(comparison, worker)| (comparison.title, *worker))).collect()
    }
}
