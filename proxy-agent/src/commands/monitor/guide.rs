//! The names of what events only number: Services by their index, clients by network namespace, Pods by address.

use std::{
    collections::HashMap,
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use proxy_common::{Address, FrontendKey, RefusedPair};

use crate::{
    agent::{Presence, Report},
    commands::{inventory, names::Namespaces},
    dataplane::{Error, Tables, identity},
};

/// How long the agent's report and the names of Services are taken to be as they were.
const PERIOD: Duration = Duration::from_secs(2);

/// Who and what is on this node.
pub(super) struct Guide {
    pin_dir: PathBuf,
    run_dir: PathBuf,
    pub(super) tables: Tables,
    pub(super) report: Option<Report>,
    /// The names of this node's Pods, by their addresses.
    pods: HashMap<IpAddr, String>,
    namespaces: Namespaces,
    services: HashMap<u32, String>,
    /// The Services by their addresses.
    by_address: Option<HashMap<Address, String>>,
    refreshed: Instant,
}

impl Guide {
    pub(super) fn new(pin_dir: &Path, run_dir: &Path) -> Result<Self, Error> {
        let report = Presence::of(run_dir).report;
        Ok(Self {
            pin_dir: pin_dir.to_owned(),
            run_dir: run_dir.to_owned(),
            tables: Tables::open(pin_dir)?,
            pods: pods(report.as_ref()),
            report,
            namespaces: Namespaces::default(),
            services: HashMap::new(),
            by_address: None,
            refreshed: Instant::now(),
        })
    }

    /// Looks once more at what may have changed; returns whether it was time to.
    pub(super) fn refresh(&mut self) -> bool {
        if self.refreshed.elapsed() < PERIOD {
            return false;
        }
        // They may have grown; where they are gone, what was known has to do.
        if let Ok(tables) = Tables::open(&self.pin_dir) {
            self.tables = tables;
        }
        self.report = Presence::of(&self.run_dir).report;
        self.pods = pods(self.report.as_ref());
        self.services.clear();
        self.by_address = None;
        self.refreshed = Instant::now();
        true
    }

    /// Where the tables are pinned.
    pub(super) fn pin_dir(&self) -> &Path {
        &self.pin_dir
    }

    /// The name of a Service port, by its index now.
    pub(super) fn service(&mut self, index: u32) -> String {
        let tables = &self.tables;
        self.services.entry(index).or_insert_with(|| inventory::name_of(tables, index)).clone()
    }

    /// The Service behind an address now, as far as there is one: with its port if it has this one.
    pub(super) fn service_at(&mut self, frontend: &FrontendKey) -> Option<String> {
        if let Some(index) = inventory::service_at(&self.tables, frontend) {
            return Some(self.service(index));
        }
        let tables = &self.tables;
        self.by_address.get_or_insert_with(|| by_address(tables)).get(&frontend.address).cloned()
    }

    /// The Service of an event: by its index if it has one, else by the address.
    pub(super) fn service_of(&mut self, index: u32, frontend: &FrontendKey) -> Option<String> {
        if index == RefusedPair::NO_SERVICE { self.service_at(frontend) } else { Some(self.service(index)) }
    }

    /// Who is in the network namespace with this cookie.
    pub(super) fn client(&mut self, cookie: u64) -> Option<String> {
        self.namespaces.name(cookie, self.report.as_ref()).map(str::to_owned)
    }

    /// The Pod of this node with this address.
    pub(super) fn pod(&self, address: IpAddr) -> Option<String> {
        self.pods.get(&address).cloned()
    }

    /// The agent's process, if it runs.
    pub(super) fn agent(&self) -> Option<u32> {
        self.report.as_ref().map(|report| report.pid)
    }
}

fn pods(report: Option<&Report>) -> HashMap<IpAddr, String> {
    let all = report.into_iter().flat_map(|report| &report.pods);
    all.flat_map(|pod| pod.addresses.iter().map(|address| (*address, pod.name.to_string()))).collect()
}

/// An address and port, unless there is none.
pub(super) fn socket(address: Address, port: u16) -> Option<SocketAddr> {
    (address.words() != [0; 4]).then(|| SocketAddr::new(address.into(), port))
}

/// The Services by their addresses, without ports.
fn by_address(tables: &Tables) -> HashMap<Address, String> {
    let mut found = HashMap::new();
    for (key, frontend) in
        tables.frontends.iter().filter_map(Result::ok).filter(|(key, _)| key.any_address == 0)
    {
        let name = tables.names.get(&frontend.service, 0).ok().and_then(|name| identity(&name));
        found.extend(name.map(|id| (key.address, id.service.to_string())));
    }
    found
}
