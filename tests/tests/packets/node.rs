//! A node for packets: Services in real tables, with the real programs.

use std::net::{IpAddr, SocketAddr};

use aya::{Ebpf, maps::HashMap};
use proxy_agent::{
    dataplane::{Capacity, Dataplane, FlowOptions, Options, SocketOptions, load_all},
    model::ObjectName,
    plan::{AllowedClients, Changes, Family, PlannedEndpoint, ServicePlan, ServicePortId, Target},
};
use proxy_common::{
    Address, AddressBits, FrontendKey, FrontendKind, Interface, Port, Protocol, Reason, SourceRange,
};
use sidestep_tests::{Lab, packets::HARDWARE_ADDRESS, topology::PodRange};

/// The protocols; every Service has both.
pub(crate) const PROTOCOLS: [Protocol; 2] = [Protocol::Tcp, Protocol::Udp];
/// The port of every frontend but NodePorts.
pub(crate) const PORT: u16 = 80;
/// The port of every endpoint.
const ENDPOINT_PORT: u16 = 8080;

/// A Service; the number is the last part of its addresses, and of its NodePort 300xx.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    /// Local and remote endpoints.
    Cluster = 10,
    /// The same with externalTrafficPolicy Local.
    Local = 11,
    /// Local, without a local endpoint.
    NoneHere = 12,
    /// No endpoints.
    None = 13,
    /// LoadBalancer IPs for some clients only.
    Ranges = 14,
    /// One remote endpoint.
    Remote = 15,
    /// One local endpoint.
    Here = 16,
}

pub(crate) const KINDS: [Kind; 7] =
    [Kind::Cluster, Kind::Local, Kind::NoneHere, Kind::None, Kind::Ranges, Kind::Remote, Kind::Here];

impl Kind {
    /// The endpoints for north-south clients: `(local, remote)`.
    const fn endpoints(self) -> (u8, u8) {
        match self {
            Self::Cluster | Self::Ranges => (2, 2),
            Self::Local => (2, 0),
            Self::NoneHere | Self::None => (0, 0),
            Self::Remote => (0, 1),
            Self::Here => (1, 0),
        }
    }

    /// The addresses of the endpoints for north-south clients.
    pub(crate) fn targets(self, v6: bool) -> Vec<SocketAddr> {
        let (here, elsewhere) = self.endpoints();
        let ours = (0..here).map(|number| (1, number));
        let others = (0..elsewhere).map(|number| (2, number));
        ours.chain(others)
            .map(|(node, number)| SocketAddr::new(pod(v6, node, self as u8 * 10 + number), ENDPOINT_PORT))
            .collect()
    }

    /// Its frontends: NodePort, LoadBalancer IP, external IP, ClusterIP.
    pub(crate) fn frontends(self, node: IpAddr) -> [SocketAddr; 4] {
        let v6 = node.is_ipv6();
        [
            SocketAddr::new(node, 30_000 + self as u16),
            SocketAddr::new(vip(v6, 113, self as u8), PORT),
            SocketAddr::new(vip(v6, 114, self as u8), PORT),
            SocketAddr::new(vip(v6, 115, self as u8), PORT),
        ]
    }

    /// Whether a client may use a LoadBalancer IP.
    pub(crate) fn admits(self, client: IpAddr) -> bool {
        self != Self::Ranges
            || match client {
                IpAddr::V4(client) => client.octets()[0] == 198,
                IpAddr::V6(client) => client.octets()[0] == 0xfd,
            }
    }

    fn plan(self, v6: bool, protocol: Protocol) -> ServicePlan {
        let endpoint = |address: SocketAddr| PlannedEndpoint {
            address: address.ip().into(),
            port: Port::new(address.port()),
            local: is_here(address.ip()),
            serving: true,
        };
        let refusal = match self {
            Self::NoneHere => Some(Reason::NoLocalEndpoints),
            Self::None => Some(Reason::NoEndpoints),
            _ => None,
        };
        let endpoints: Vec<PlannedEndpoint> = self.targets(v6).into_iter().map(endpoint).collect();
        let count = u32::try_from(endpoints.len()).expect("few");
        let all = refusal.map_or(Target::Endpoints(0..count), Target::Refuse);
        let any: IpAddr = if v6 { [0; 16].into() } else { [0; 4].into() };
        let [node_port, load_balancer, external, cluster] = self.frontends(any);
        let key = |address: SocketAddr| {
            FrontendKey::new(address.ip().into(), Port::new(address.port()), protocol as u8)
        };
        let node_key = FrontendKey::node_port(&any.into(), Port::new(node_port.port()), protocol as u8);
        let mut frontends = vec![
            (node_key, FrontendKind::NodePort),
            (key(load_balancer), FrontendKind::LoadBalancer),
            (key(external), FrontendKind::ExternalIp),
            (key(cluster), FrontendKind::ClusterIp),
        ];
        frontends.sort_unstable();
        let range = if v6 {
            SourceRange::new("fd00::".parse::<IpAddr>().expect("an address").into(), 8)
        } else {
            SourceRange::new(IpAddr::from([198, 0, 0, 0]).into(), 8)
        };
        let allowed_clients = match self {
            Self::Ranges => AllowedClients::Only([range.expect("a length")].into()),
            _ => AllowedClients::Everyone,
        };
        ServicePlan {
            id: ServicePortId {
                service: ObjectName::new("default", &format!("service-{}", self as u8)),
                port: "".into(),
                protocol,
                family: if v6 { Family::V6 } else { Family::V4 },
            },
            frontends,
            allowed_clients,
            affinity_seconds: 0,
            endpoints,
            cluster: all.clone(),
            inside: all.clone(),
            outside: all,
        }
    }
}

/// A pod of this node (1) or the other one (2).
fn pod(v6: bool, node: u8, number: u8) -> IpAddr {
    if v6 {
        IpAddr::from([0xfd00, 0x10, 0x244, u16::from(node), 0, 0, 0, u16::from(number)])
    } else {
        IpAddr::from([10, 244, node, number])
    }
}

/// Whether a pod is on this node.
pub(crate) fn is_here(pod: IpAddr) -> bool {
    match pod {
        IpAddr::V4(pod) => pod.octets()[2] == 1,
        IpAddr::V6(pod) => pod.segments()[3] == 1,
    }
}

fn vip(v6: bool, network: u8, number: u8) -> IpAddr {
    if v6 {
        IpAddr::from([0xfd00, 0x203, u16::from(network), 0, 0, 0, 0, u16::from(number)])
    } else {
        IpAddr::from([203, 0, network, number])
    }
}

/// The node. Namespace and maps go with the lab.
pub(crate) struct Node {
    pub(crate) programs: Ebpf,
    /// Its addresses, with which it also masquerades.
    pub(crate) addresses: [IpAddr; 2],
    /// The device towards the other node.
    pub(crate) uplink: u32,
    /// The source ports of masqueraded packets.
    pub(crate) source_ports: std::ops::RangeInclusive<u16>,
    dataplane: Dataplane,
}

impl Node {
    /// Loads the programs and installs the Services; the caller must be on the lab's node.
    pub(crate) fn new(lab: &Lab, flows: u32) -> Self {
        let (here, other) = (lab.node(), lab.other_node());
        let [v4, v6] = PodRange::THERE.cidrs();
        let routes = format!("route add {v4} via {}\nroute add {v6} via {}\n", other.v4, other.v6);
        here.namespace().ip_batch(&routes).expect("routes to the other node's pods");
        // The programs leave frames for other hardware addresses alone.
        let hardware = HARDWARE_ADDRESS.map(|byte| format!("{byte:02x}")).join(":");
        here.namespace()
            .ip_batch(&format!("link set uplink address {hardware}\n"))
            .expect("a hardware address");
        let options = Options {
            pin_dir: lab.pin_directory().to_owned(),
            cgroup_root: lab.root().path().to_owned(),
            capacity: Capacity { services: 64, frontends: 256, endpoints: 256, clients: 256, flows },
            program_log: false,
            sockets: SocketOptions::default(),
            flows: FlowOptions::default(),
        };
        let mut programs = load_all(&options).expect("the programs load");
        let uplink = nix::net::if_::if_nametoindex("uplink").expect("the node's device");
        let interfaces = programs.map_mut("INTERFACES").expect("the object has it");
        let mut interfaces: HashMap<_, u32, Interface> = interfaces.try_into().expect("a hash");
        // Connections begin at recorded devices only.
        let [v4, v6] = lab.node().addresses().map(Address::from);
        interfaces.insert(uplink, Interface { v4, v6, longest: 0, flags: 0 }, 0).expect("recorded");
        let mut dataplane = Dataplane::open(&options).expect("the tables");
        let addresses = lab.node().addresses();
        let mut changes = Changes { complete: true, ..Changes::default() };
        for node in addresses {
            let v6 = node.is_ipv6();
            changes.addresses.push((node.into(), AddressBits::NODE));
            for kind in KINDS {
                changes.install.extend(PROTOCOLS.map(|protocol| kind.plan(v6, protocol)));
                let [_, load_balancer, external, cluster] =
                    kind.frontends(node).map(|address| address.ip().into());
                changes.addresses.extend([
                    (load_balancer, AddressBits::VIP),
                    (external, AddressBits::VIP),
                    (cluster, AddressBits::CLUSTER_IP),
                ]);
            }
        }
        let problems = dataplane.apply(&changes);
        assert!(problems.is_empty(), "{problems:?}");
        let ports = options.flows.source_ports;
        let last = ports.first() + (ports.count() - 1);
        Self { programs, addresses, uplink, source_ports: ports.first()..=last, dataplane }
    }

    /// The Service with this frontend, and whether the frontend is a LoadBalancer IP.
    pub(crate) fn service(&self, address: SocketAddr) -> Option<(Kind, bool)> {
        let node = self.addresses[usize::from(address.is_ipv6())];
        KINDS.into_iter().find_map(|kind| {
            let place = kind.frontends(node).into_iter().position(|frontend| frontend == address)?;
            Some((kind, place == 1))
        })
    }

    /// The node's counters, for failure messages.
    pub(crate) fn totals(&self) -> Vec<(u32, u64)> {
        let totals = &self.dataplane.tables().totals;
        (0..totals.len())
            .filter_map(|index| Some((index, totals.load(index)?)))
            .filter(|(_, count)| *count > 0)
            .collect()
    }

    /// Whether an address is a frontend's, at whatever port.
    pub(crate) fn is_ours(&self, address: IpAddr) -> bool {
        let node = self.addresses[usize::from(address.is_ipv6())];
        KINDS.into_iter().any(|kind| kind.frontends(node).iter().any(|frontend| frontend.ip() == address))
    }
}

/// Whether an address is a ClusterIP.
pub(crate) fn is_cluster_ip(address: IpAddr) -> bool {
    KINDS.into_iter().any(|kind| vip(address.is_ipv6(), 115, kind as u8) == address)
}
