//! Sidestep's shipped programs on a cgroup of their own, and its maps with a number of Services.

use std::{
    fs,
    net::IpAddr,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, ensure};
use aya::Ebpf;
use proxy_agent::{
    dataplane::{self, Capacity, Dataplane, FlowOptions, HOOKS, MAPS, Options, SocketOptions},
    model::ObjectName,
    plan::{AllowedClients, Changes, Family, PlannedEndpoint, ServicePlan, ServicePortId, Target},
};
use proxy_common::{Address, AddressBits, FrontendKey, FrontendKind, Port, Protocol};
use sidestep_tests::{cgroup::Cgroup, identity::Identity, pins::PinDirectory};

use crate::{
    programs::{self, Figures},
    protocol::SERVER_PORT,
    topology::{SERVERS, SERVICE_PORT, service_address},
};

/// Up to this many Services have a UDP port beside their TCP port.
pub(crate) const WITH_UDP: u32 = 1_000;

/// Tables, programs and cgroup. Dropped after the workers in the cgroup.
pub(crate) struct Datapath {
    /// How many Services are installed.
    pub(crate) services: u32,
    /// The cgroup whose processes the programs serve.
    pub(crate) cgroup: Cgroup,
    ebpf: Ebpf,
    options: Options,
    _pins: PinDirectory,
}

impl Datapath {
    /// Loads, installs and attaches; `name` is the cgroup's.
    pub(crate) fn new(parent: &Cgroup, name: &str, services: u32) -> Result<Self> {
        let cgroup = parent.child(name)?;
        let pins = PinDirectory::new(&Identity::new().to_string())?;
        let options = Options {
            pin_dir: pins.path().to_owned(),
            cgroup_root: cgroup.path().to_owned(),
            capacity: Capacity::default(),
            program_log: false,
            sockets: SocketOptions::default(),
            flows: FlowOptions::default(),
        };
        let ebpf = dataplane::load(&options)?;
        let problems = Dataplane::open(&options)?.apply(&plan(services));
        ensure!(problems.is_empty(), "cannot install {services} Services: {:?}", problems[0]);
        let mut datapath = Self { services, cgroup, ebpf, options, _pins: pins };
        datapath.attach()?;
        Ok(datapath)
    }

    /// Attaches the programs.
    pub(crate) fn attach(&mut self) -> Result<()> {
        Ok(dataplane::attach(&mut self.ebpf, &self.options)?)
    }

    /// Detaches the programs; the tables stay.
    pub(crate) fn detach(&self) -> Result<()> {
        for hook in HOOKS.iter().rev() {
            let pin = self.table("links").join(hook.name);
            fs::remove_file(&pin).with_context(|| format!("cannot unpin {}", pin.display()))?;
        }
        Ok(())
    }

    /// Where the tables are pinned.
    pub(crate) fn pin_dir(&self) -> &Path {
        &self.options.pin_dir
    }

    /// The pin of a table.
    pub(crate) fn table(&self, name: &str) -> PathBuf {
        dataplane::abi_dir(&self.options.pin_dir).join(name)
    }

    /// The pins of all tables.
    pub(crate) fn tables(&self) -> impl Iterator<Item = (&'static str, PathBuf)> {
        MAPS.iter().map(|map| (map.name, self.table(map.name)))
    }

    /// The kernel's statistics of a program.
    pub(crate) fn figures(&mut self, program: &str) -> Result<Figures> {
        programs::figures(&mut self.ebpf, program)
    }
}

/// Services with two endpoints each, all of them the server pod.
fn plan(services: u32) -> Changes {
    let tcp = (0..services).map(|number| service(number, Protocol::Tcp));
    let udp = (0..services.min(WITH_UDP)).map(|number| service(number, Protocol::Udp));
    Changes {
        more: false,
        complete: true,
        install: tcp.chain(udp).collect(),
        remove: Vec::new(),
        addresses: (0..services)
            .map(|number| (Address::from(IpAddr::from(service_address(number))), AddressBits::CLUSTER_IP))
            .collect(),
        pods: None,
    }
}

fn service(number: u32, protocol: Protocol) -> ServicePlan {
    let address = Address::from(IpAddr::from(service_address(number)));
    let all = Target::Endpoints(0..2);
    ServicePlan {
        id: ServicePortId {
            service: ObjectName::new("bench", &format!("service-{number}")),
            port: protocol.name().to_ascii_lowercase().into(),
            protocol,
            family: Family::V4,
        },
        frontends: vec![(
            FrontendKey::new(address, Port::new(SERVICE_PORT), protocol as u8),
            FrontendKind::ClusterIp,
        )],
        allowed_clients: AllowedClients::Everyone,
        affinity_seconds: 0,
        endpoints: SERVERS
            .iter()
            .map(|&server| PlannedEndpoint {
                address: Address::from(IpAddr::from(server)),
                port: Port::new(SERVER_PORT),
                local: true,
                serving: true,
            })
            .collect(),
        cluster: all.clone(),
        inside: all.clone(),
        outside: all,
    }
}
