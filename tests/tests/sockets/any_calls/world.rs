//! A lab in which many sockets live side by side: pods, Services whose endpoints change for all of them at once, and
//! somebody who translates.

use std::{
    net::{IpAddr, SocketAddr},
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::Result;
use sidestep_tests::{
    Lab,
    cluster::{Cluster, DNS, DNS_PORT},
    eventually::{SOON, wait_for},
    manifest::{EndpointSlice, Protocol, Service},
    place::Place,
    sockets::udp_peers,
    traffic::{Asker, canonical},
};

use super::{
    calls::{Condition, Endpoints, PODS, Pods, SERVICES, Spelling, Target, Whom},
    elsewhere::Elsewhere,
    proxy::{self, Frontend, Proxy},
};

/// Longest wait for what was sent to be answered. It takes a fraction of a millisecond.
const ANSWERS: Duration = Duration::from_millis(500);
/// How long one look at the tables may take: nobody answers before the change is there.
const INSTALLING: Duration = Duration::from_millis(20);
/// An answer that was sent is in its socket's queue after so long.
const DELIVERED: Duration = Duration::from_millis(2);

const PORT: u16 = 53;
const UNKNOWN_PORT: u16 = 1;
/// The last number of the addresses of the Service that nobody reaches.
const UNREACHABLE: u8 = 99;

/// The lab; the agent goes before it.
pub(super) struct World {
    proxy: Proxy,
    elsewhere: Elsewhere,
    cluster: Cluster,
    endpoints: Endpoints,
    changes: u8,
}

impl World {
    /// Services without endpoints, which the agent serves; and one with an endpoint to which no route leads.
    pub(super) fn of_agent() -> Result<Self> {
        let mut world = Self::new()?;
        let far = named("far", UNREACHABLE);
        let slices =
            [slice("far").ready([10, 99, 0, 1]), slice("far").ready([0xfd00, 0x99, 0, 0, 0, 0, 0, 1])];
        world.cluster.lab.manifests().write("far.yaml", &[&far, &slices[0], &slices[1]])?;
        write(&world.cluster, &world.endpoints, 0)?;
        world.proxy = Proxy::Agent(Box::new(world.cluster.lab.agent()?));
        Ok(world)
    }

    /// The same, served by netfilter.
    pub(super) fn of_netfilter() -> Result<Self> {
        let world = Self::new()?;
        proxy::load_rules(world.cluster.lab.node(), &[])?;
        Ok(world)
    }

    fn new() -> Result<Self> {
        let cluster = Cluster::new(Lab::new()?, PODS)?;
        cluster.route_services_out()?;
        cluster
            .client
            .namespace()
            .ip_batch("route add unreachable 10.99.0.0/16\nroute add unreachable fd00:99::/32\n")?;
        let elsewhere = Elsewhere::start(cluster.lab.other_node());
        let (proxy, endpoints) = (Proxy::Netfilter, Endpoints::default());
        Ok(Self { proxy, elsewhere, cluster, endpoints, changes: 0 })
    }

    /// Whether sockets are translated, not packets: a datagram to nobody is refused at once then, and the kernel has
    /// connected sockets connected to pods.
    pub(super) const fn translates_sockets(&self) -> bool {
        matches!(self.proxy, Proxy::Agent(_))
    }

    /// The pod in which sockets are made.
    pub(super) const fn client(&self) -> &Place {
        &self.cluster.client
    }

    /// The endpoints that there are.
    pub(super) const fn endpoints(&self) -> &Endpoints {
        &self.endpoints
    }

    /// Where those call who were handed a socket.
    pub(super) const fn elsewhere(&self) -> &Elsewhere {
        &self.elsewhere
    }

    /// The end of the agent's log, if there is an agent.
    pub(super) fn log_tail(&self) -> String {
        match &self.proxy {
            Proxy::Agent(agent) => agent.log_tail(),
            Proxy::Netfilter => String::new(),
        }
    }

    /// How many requests pods have had so far.
    pub(super) fn requests(&self) -> u64 {
        self.cluster.backends.iter().map(|backend| backend.udp.requests()).sum()
    }

    /// Waits until so many requests have come to pods, and their answers have come back.
    pub(super) fn settle(&self, requests: u64) {
        let start = Instant::now();
        while self.requests() < requests && start.elapsed() < ANSWERS {
            sleep(Duration::from_micros(200));
        }
        sleep(DELIVERED);
    }

    /// Changes all Services' endpoints, and waits until new sockets get them. Call it in the client's place.
    pub(super) fn change(&mut self, endpoints: &Endpoints) -> Result<()> {
        self.changes += 1;
        self.endpoints = endpoints.clone();
        match &self.proxy {
            Proxy::Agent(_) => {
                write(&self.cluster, endpoints, self.changes)?;
                // This one has been written with the others, and after them.
                let marker = SocketAddr::from(([10, 96, 1, self.changes], PORT));
                wait_for(SOON, "the change is installed", || {
                    let asker = Asker::v4().expect("a socket");
                    asker.socket().set_read_timeout(Some(INSTALLING)).expect("a limit");
                    asker.ask(marker).is_ok()
                })?;
                sleep(Duration::from_millis(20));
            }
            Proxy::Netfilter => {
                let frontends = self.frontends();
                let backends = self.cluster.backends.iter();
                let pods: Vec<IpAddr> = backends.flat_map(|backend| backend.place.addresses()).collect();
                let node = self.cluster.lab.node();
                proxy::load_rules(node, &frontends)?;
                proxy::forget_stale(node, &frontends, &pods)?;
            }
        }
        Ok(())
    }

    /// All Services in both families.
    fn frontends(&self) -> Vec<Frontend> {
        let frontend = |service, spelling| {
            let addresses = |pods: Pods| {
                let family = usize::from(spelling == Spelling::V6);
                pods.into_iter().map(|pod| self.cluster.backends[pod].place.addresses()[family]).collect()
            };
            Frontend {
                address: self.address(Target { whom: Whom::Service(service), spelling }),
                choosable: addresses(self.endpoints.choosable(service)),
                serving: addresses(self.endpoints.serving(service)),
            }
        };
        (0..SERVICES)
            .flat_map(|service| [Spelling::V4, Spelling::V6].map(|spelling| frontend(service, spelling)))
            .collect()
    }

    /// The address that a target stands for.
    pub(super) fn address(&self, target: Target) -> SocketAddr {
        let number = |index: usize| u8::try_from(index + 1).expect("few Services");
        let service = |number: u8, port| match target.spelling {
            Spelling::V6 => ([0xfd00, 0x10, 0x96, 0, 0, 0, 0, hexadecimal(number)], port).into(),
            Spelling::V4 | Spelling::Mapped => ([10, 96, 0, number], port).into(),
        };
        let address: SocketAddr = match target.whom {
            Whom::Service(index) => service(number(index), PORT),
            Whom::UnknownPort(index) => service(number(index), UNKNOWN_PORT),
            Whom::Unreachable if self.translates_sockets() => service(UNREACHABLE, PORT),
            Whom::Unreachable => match target.spelling {
                Spelling::V6 => ([0xfd00, 0x99, 0, 0, 0, 0, 0, 1], PORT).into(),
                Spelling::V4 | Spelling::Mapped => ([10, 99, 0, 1], PORT).into(),
            },
            Whom::Pod(index) => {
                let pod = &self.cluster.backends[index].place;
                match target.spelling {
                    Spelling::V6 => (pod.v6, DNS_PORT).into(),
                    Spelling::V4 | Spelling::Mapped => (pod.v4, DNS_PORT).into(),
                }
            }
        };
        spelled(address, target.spelling)
    }

    /// The target that an address stands for.
    pub(super) fn target(&self, address: SocketAddr) -> Option<Target> {
        let spelling = match address {
            SocketAddr::V4(_) => Spelling::V4,
            SocketAddr::V6(_) if canonical(address).is_ipv4() => Spelling::Mapped,
            SocketAddr::V6(_) => Spelling::V6,
        };
        (0..SERVICES)
            .flat_map(|service| [Whom::Service(service), Whom::UnknownPort(service)])
            .chain((0..PODS).map(Whom::Pod))
            .chain([Whom::Unreachable])
            .map(|whom| Target { whom, spelling })
            .find(|target| self.address(*target) == address)
    }

    /// The client's own address, written so.
    pub(super) fn own(&self, spelling: Spelling, port: u16) -> SocketAddr {
        let client = self.client();
        match spelling {
            Spelling::V4 => (client.v4, port).into(),
            Spelling::V6 => (client.v6, port).into(),
            Spelling::Mapped => (client.v4.to_ipv6_mapped(), port).into(),
        }
    }

    /// Which pod has an address.
    fn pod(&self, address: SocketAddr) -> Option<usize> {
        let ip = canonical(address).ip();
        self.cluster.backends.iter().position(|backend| backend.place.addresses().contains(&ip))
    }

    /// Whom the kernel has the UDP sockets of this namespace connected to: each one's local port, and the pod if it is one.
    /// Call it in the client's place.
    pub(super) fn kernel_peers(&self) -> Result<Vec<(u16, Option<usize>)>> {
        let peers = udp_peers()?;
        Ok(peers.into_iter().map(|(local, peer)| (local.port(), self.pod(peer))).collect())
    }
}

/// An address of IPv4 in IPv6 clothes, if it is to be.
fn spelled(address: SocketAddr, spelling: Spelling) -> SocketAddr {
    match (spelling, address) {
        (Spelling::Mapped, SocketAddr::V4(v4)) => (v4.ip().to_ipv6_mapped(), v4.port()).into(),
        _ => address,
    }
}

/// A number's digits read as hexadecimal ones, so that addresses of both families read alike.
fn hexadecimal(number: u8) -> u16 {
    u16::from_str_radix(&number.to_string(), 16).expect("digits")
}

fn named(name: &str, number: u8) -> Service {
    let ips = [format!("10.96.0.{number}"), format!("fd00:10:96::{number}")];
    Service::new(name, &ips.each_ref().map(String::as_str)).port(DNS, Protocol::Udp, PORT)
}

fn slice(service: &str) -> EndpointSlice {
    EndpointSlice::new(service).port(DNS, Protocol::Udp, DNS_PORT)
}

/// Writes all Services, and one that is new with each change.
fn write(cluster: &Cluster, endpoints: &Endpoints, change: u8) -> Result<()> {
    use sidestep_tests::manifest::Conditions;

    let mut documents = Vec::new();
    for (index, conditions) in endpoints.0.iter().enumerate() {
        let name = format!("service-{index}");
        documents.push(named(&name, u8::try_from(index + 1)?).to_string());
        for family in 0..2 {
            let mut slice = slice(&name);
            for (condition, backend) in conditions.iter().zip(&cluster.backends) {
                let address = backend.place.addresses()[family];
                match condition {
                    Condition::Absent => {}
                    Condition::Ready => slice = slice.endpoint(address, Conditions::READY),
                    Condition::Draining => slice = slice.endpoint(address, Conditions::DRAINING),
                }
            }
            // A slice without endpoints has no family.
            if conditions.iter().any(|condition| *condition != Condition::Absent) {
                documents.push(slice.to_string());
            }
        }
    }
    let marker = Service::new("zz-marker", &[&format!("10.96.1.{change}")]).port(DNS, Protocol::Udp, PORT);
    documents
        .extend([marker.to_string(), slice("zz-marker").ready(cluster.backends[0].place.v4).to_string()]);
    cluster.lab.manifests().write_text("services.yaml", &documents.join("---\n"))
}
