//! A client pod, a node that routes, a server pod: three network namespaces and two wires.
//!
//! ```text
//!   client 10.244.1.10 ── 10.244.1.1 node 10.244.2.1 ── 10.244.2.10, .11 server
//! ```
//! Every topology has the same addresses in namespaces of its own, so that rules in one node touch no other. Nobody
//! has to ask for anybody's hardware address: neighbours are written down for good.

use std::{fs, net::Ipv4Addr, path::Path};

use anyhow::{Context as _, Result, bail};
use sidestep_tests::{cgroup::Cgroup, identity::Identity, namespace::Namespace};

use crate::{
    place::Processors,
    server::Server,
    worker::{Target, Worker},
};

/// The client pod's address.
const CLIENT: Ipv4Addr = Ipv4Addr::new(10, 244, 1, 10);
/// The addresses that stand for the endpoints of every Service: both are the server pod's.
pub(crate) const SERVERS: [Ipv4Addr; 2] = [Ipv4Addr::new(10, 244, 2, 10), Ipv4Addr::new(10, 244, 2, 11)];
/// The endpoints' port.
pub(crate) const SERVER_PORT: u16 = 8080;
/// The Services' port.
pub(crate) const SERVICE_PORT: u16 = 80;
/// The pods' addresses, as kube-proxy's `--cluster-cidr`.
pub(crate) const PODS: &str = "10.244.0.0/16";

/// The endpoints, drawn from as a Service would: what "direct" connects to.
pub(crate) const DIRECT: Target = Target { first: SERVERS[0], count: 2, port: SERVER_PORT };

/// The ClusterIP of the Service with this number.
pub(crate) const fn service_address(number: u32) -> Ipv4Addr {
    Ipv4Addr::from_bits(Ipv4Addr::new(10, 96, 0, 1).to_bits() + number)
}

/// A Service in the middle of the first `services`: wherever rules stand in line, it is an average one.
pub(crate) const fn hot(services: u32) -> Target {
    Target { first: service_address(services / 2), count: 1, port: SERVICE_PORT }
}

/// Any of the first `services`.
pub(crate) const fn any(services: u32) -> Target {
    Target { first: service_address(0), count: services, port: SERVICE_PORT }
}

/// The three namespaces, with a server that listens.
#[derive(Debug)]
pub(crate) struct Topology {
    _server: Server,
    /// The client pod.
    pub(crate) client: Namespace,
    /// The node.
    pub(crate) node: Namespace,
    _server_pod: Namespace,
}

impl Topology {
    /// Makes the namespaces and starts the server, in a cgroup that no program is attached to.
    pub(crate) fn new(outside: &Cgroup, processors: Processors) -> Result<Self> {
        let name = Identity::new();
        let node = Namespace::new(format!("{name}-node"))?;
        let client = Namespace::new(format!("{name}-client"))?;
        let server_pod = Namespace::new(format!("{name}-server"))?;
        wire(&node, &client, 1, &[CLIENT])?;
        wire(&node, &server_pod, 2, &SERVERS)?;
        set(&node, "net/ipv4/ip_forward", "1")?;
        set(&client, "net/ipv4/ip_local_port_range", "1024 65535")?;
        set(&server_pod, "net/core/somaxconn", "16384")?;
        set(&server_pod, "net/ipv4/tcp_max_syn_backlog", "16384")?;
        let server = Server::start(&server_pod, outside, processors.server)?;
        Ok(Self { _server: server, client, node, _server_pod: server_pod })
    }

    /// Starts a client in this cgroup.
    pub(crate) fn worker(&self, cgroup: &Cgroup, processors: Processors) -> Result<Worker> {
        Worker::start(&self.client, cgroup, processors.client)
    }

    /// How many connections the node tracks; none where connection tracking is not built in or not loaded.
    pub(crate) fn tracked_connections(&self) -> Result<u64> {
        let file = Path::new("/proc/sys/net/netfilter/nf_conntrack_count");
        if !file.exists() {
            return Ok(0);
        }
        let text = self.node.run(|| fs::read_to_string(file))?.context("nf_conntrack_count")?;
        Ok(text.trim().parse()?)
    }

    /// An error if the node tracks connections or has rules: then it is not what "direct" stands for.
    pub(crate) fn ensure_rule_free(&self) -> Result<()> {
        match self.tracked_connections()? {
            0 => Ok(()),
            tracked => bail!("the node without rules tracks {tracked} connections"),
        }
    }

    /// Lets closed connections be forgotten after a second instead of ten: a benchmark opens thousands a second, and
    /// a full table of them would be measured instead of the rules.
    pub(crate) fn forget_closed_connections(&self) -> Result<()> {
        set(&self.node, "net/netfilter/nf_conntrack_tcp_timeout_close", "1")
    }
}

/// Joins `pod` to the node: subnet `10.244.<number>.0/24`.
fn wire(node: &Namespace, pod: &Namespace, number: u8, addresses: &[Ipv4Addr]) -> Result<()> {
    let gateway = Ipv4Addr::new(10, 244, number, 1);
    let (node_mac, pod_mac) =
        (format!("02:00:00:00:{number:02x}:01"), format!("02:00:00:00:{number:02x}:0a"));
    node.ip_batch(&format!(
        "link add pod{number} address {node_mac} type veth peer name eth0 address {pod_mac} netns {}
addr add {gateway}/24 dev pod{number}
link set pod{number} up
",
        pod.name()
    ))?;
    let each = |line: &dyn Fn(&Ipv4Addr) -> String| addresses.iter().map(line).collect::<Vec<_>>().join("\n");
    let own = each(&|address| format!("addr add {address}/24 dev eth0"));
    pod.ip_batch(&format!(
        "{own}
link set eth0 up
route add default via {gateway}
neigh replace {gateway} lladdr {node_mac} dev eth0 nud permanent
"
    ))?;
    node.ip_batch(&each(&|address| {
        format!("neigh replace {address} lladdr {pod_mac} dev pod{number} nud permanent")
    }))
}

fn set(namespace: &Namespace, switch: &str, value: &str) -> Result<()> {
    let file = format!("/proc/sys/{switch}");
    namespace.run(|| fs::write(&file, value))?.with_context(|| format!("{file} = {value}"))
}
