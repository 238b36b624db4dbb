//! Rewrites the tables without pause.

use std::net::{IpAddr, Ipv4Addr};

use proxy_agent::{
    dataplane::Dataplane,
    model::ObjectName,
    plan::{AllowedClients, Changes, Family, PlannedEndpoint, ServicePlan, ServicePortId, Target},
};
use proxy_common::{Address, AddressBits, FrontendKey, FrontendKind, Port, Protocol, SourceRange};

use sidestep_tests::random::Random;

use super::endpoints::{CLOSED, FLEETING, MOVING, PORT, STEADY, Vip, endpoint};

/// After this many replacements a Service comes or goes, and an address moves.
const LIFECYCLE: u64 = 8;

/// The protocols; every Service has a port of each.
const PROTOCOLS: [Protocol; 2] = [Protocol::Tcp, Protocol::Udp];

/// The only writer.
#[derive(Debug)]
pub(crate) struct Writer {
    dataplane: Dataplane,
    random: Random,
    /// Which of the Services that come and go are installed.
    present: [bool; FLEETING as usize],
    /// Which of the two Services has the address that moves.
    owner: usize,
    replacements: u64,
    created: u64,
    deleted: u64,
    moved: u64,
}

impl Writer {
    /// Writes through `dataplane`.
    pub(crate) const fn new(dataplane: Dataplane) -> Self {
        Self {
            dataplane,
            random: Random::new(99),
            present: [false; FLEETING as usize],
            owner: 0,
            replacements: 0,
            created: 0,
            deleted: 0,
            moved: 0,
        }
    }

    /// Endpoint sets that were replaced.
    pub(crate) const fn replacements(&self) -> u64 {
        self.replacements
    }

    /// Services that were created.
    pub(crate) const fn created(&self) -> u64 {
        self.created
    }

    /// Services that were deleted.
    pub(crate) const fn deleted(&self) -> u64 {
        self.deleted
    }

    /// How often the address moved.
    pub(crate) const fn moved(&self) -> u64 {
        self.moved
    }

    /// Installs the permanent Services.
    pub(crate) fn create(&mut self) {
        let steady = (0..STEADY).map(|number| (number, Vip::Steady(number)));
        let install = steady
            .chain([(MOVING[0], Vip::Moving), (CLOSED, Vip::Closed)])
            .flat_map(|(number, vip)| self.both(number, vip))
            .collect();
        let vips = (0..STEADY).map(Vip::Steady).chain([Vip::Moving, Vip::Closed]);
        let addresses = vips.map(|vip| (address(vip.address()), AddressBits::CLUSTER_IP)).collect();
        self.apply(&Changes { complete: true, install, addresses, ..Changes::default() });
    }

    /// Replaces a few endpoint sets; now and then a Service comes or goes, or an address moves.
    pub(crate) fn step(&mut self) {
        for _ in 0..LIFECYCLE {
            let number =
                if self.random.below(2_u8) == 0 { self.random.below(4) } else { self.random.below(STEADY) };
            let protocol = if self.random.below(2_u8) == 0 { Protocol::Tcp } else { Protocol::Udp };
            let plan = self.plan(number, protocol, Vip::Steady(number));
            self.apply(&Changes { install: vec![plan], ..Changes::default() });
            self.replacements += 1;
        }
        let protocol = PROTOCOLS[usize::from(self.random.below(2_u8))];
        let plan = self.plan(CLOSED, protocol, Vip::Closed);
        self.apply(&Changes { install: vec![plan], ..Changes::default() });
        self.come_or_go();
        self.move_address();
    }

    fn come_or_go(&mut self) {
        let number = self.random.below(FLEETING);
        let vip = Vip::Fleeting(number);
        let present = &mut self.present[usize::from(number)];
        *present = !*present;
        if *present {
            self.created += 1;
            let install = self.both(STEADY + number, vip).into();
            let addresses = vec![(address(vip.address()), AddressBits::CLUSTER_IP)];
            self.apply(&Changes { install, addresses, ..Changes::default() });
        } else {
            self.deleted += 1;
            let remove = PROTOCOLS.map(|protocol| id(STEADY + number, protocol)).into();
            let addresses = vec![(address(vip.address()), AddressBits::NONE)];
            self.apply(&Changes { remove, addresses, ..Changes::default() });
        }
    }

    /// One Service takes over another one's address, in one change.
    fn move_address(&mut self) {
        let old = MOVING[self.owner];
        self.owner = 1 - self.owner;
        self.moved += 1;
        let install = self.both(MOVING[self.owner], Vip::Moving).into();
        let remove = PROTOCOLS.map(|protocol| id(old, protocol)).into();
        self.apply(&Changes { install, remove, ..Changes::default() });
    }

    /// Plans for both ports of this Service.
    fn both(&mut self, number: u8, vip: Vip) -> [ServicePlan; 2] {
        PROTOCOLS.map(|protocol| self.plan(number, protocol, vip))
    }

    /// A plan for this Service with a new random choice of endpoints.
    fn plan(&mut self, number: u8, protocol: Protocol, vip: Vip) -> ServicePlan {
        let first = 1 + self.random.below(200);
        let count = 1 + self.random.below(12_u8);
        let endpoints: Vec<PlannedEndpoint> = (first..first + count)
            .map(|last| PlannedEndpoint {
                address: address(endpoint(number, last)),
                port: Port::new(PORT),
                local: false,
                serving: true,
            })
            .collect();
        let all = Target::Endpoints(0..u32::from(count));
        let key = FrontendKey::new(address(vip.address()), Port::new(80), protocol as u8);
        ServicePlan {
            id: id(number, protocol),
            frontends: vec![(
                key,
                if is_restricted(number) { FrontendKind::LoadBalancer } else { FrontendKind::ClusterIp },
            )],
            allowed_clients: if is_restricted(number) {
                self.allowed_clients(vip)
            } else {
                AllowedClients::Everyone
            },
            affinity_seconds: if number.is_multiple_of(4) { 600 } else { 0 },
            endpoints,
            cluster: all.clone(),
            inside: all.clone(),
            outside: all,
        }
    }

    /// A new random choice of source ranges: all candidates contain the clients, for [`Vip::Closed`] none does.
    fn allowed_clients(&mut self, vip: Vip) -> AllowedClients {
        let range = |address: [u8; 4], length| {
            SourceRange::new(Address::from_v4(address), length).expect("a length of IPv4")
        };
        // The clients' pod is the lab's first, 10.244.1.10.
        let mut ranges = match (vip, self.random.below(3_u8)) {
            (Vip::Closed, draw) => vec![range([10, 244, 1, 11 + draw], 32), range([10, 244, 2, 0], 24)],
            (_, 0) => return AllowedClients::Everyone,
            (_, 1) => vec![range([10, 244, 1, 10], 32)],
            (_, _) => vec![range([10, 244, 0, 0], 16), range([10, 244, 1, 11], 32)],
        };
        ranges.push(range([198, 51, 100, self.random.below(200)], 32));
        ranges.sort_unstable();
        AllowedClients::Only(ranges.into())
    }

    fn apply(&mut self, changes: &Changes) {
        let problems = self.dataplane.apply(changes);
        assert!(problems.is_empty(), "{problems:?}");
    }
}

/// Whether the address of this Service is a LoadBalancer IP with source ranges.
const fn is_restricted(number: u8) -> bool {
    number % 4 == 1 || number == CLOSED
}

fn address(ip: Ipv4Addr) -> Address {
    IpAddr::V4(ip).into()
}

fn id(number: u8, protocol: Protocol) -> ServicePortId {
    ServicePortId {
        service: ObjectName::new("stress", &format!("service-{number}")),
        port: "".into(),
        protocol,
        family: Family::V4,
    }
}
