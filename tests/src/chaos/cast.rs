//! Who plays: a node with an agent, another node with an agent, pods on both, and a host outside, on which the API server
//! runs too.

use std::{net::SocketAddr, sync::Arc};

use anyhow::{Context, Result};

use super::{Shared, agents::Agents, objects, servers::Server, services::ENDPOINTS};
use crate::{
    Agent, Lab, Place, TwoNodes,
    api_server::{ApiServer, Objects},
    cgroup::Cgroup,
    namespace::Namespace,
    pins::PinDirectory,
    seat::Seat,
    two_nodes::{OTHER_NODE_NAME, OUTSIDE_V4, Variant},
};

/// The port of the API server.
const API_PORT: u16 = 6443;

/// The places; dropped in this order, users before what they use.
#[derive(Debug)]
pub(super) struct Cast {
    /// Two endpoints on each node.
    pub(super) endpoints: [Place; 4],
    /// A pod on each node that is an endpoint of no judged Service: of the others that are made and deleted.
    pub(super) strangers: [Place; 2],
    /// A client's pod on each node.
    pub(super) clients: [Place; 2],
    other: Place,
    _other_pods: Cgroup,
    other_root: Cgroup,
    other_pins: PinDirectory,
    nodes: TwoNodes,
}

impl Cast {
    pub(super) fn assemble() -> Result<Self> {
        let nodes = TwoNodes::new(Variant::DIRECT).context("cannot make the lab")?;
        let name = nodes.lab().name().to_owned();
        // The other node has an agent too here, so its processes and pods are in a cgroup of their own.
        let other_root = nodes.lab().outside().child("other-node")?;
        let other_pods = other_root.child("pods")?;
        let there = |called: &str| -> Result<Place> { Ok(nodes.pod_there(called)?.in_cgroup(&other_pods)) };
        Ok(Self {
            endpoints: [
                nodes.pod_here("here-0")?,
                nodes.pod_here("here-1")?,
                there("there-0")?,
                there("there-1")?,
            ],
            strangers: [nodes.pod_here("stranger-0")?, there("stranger-1")?],
            clients: [nodes.pod_here("client-0")?, there("client-1")?],
            other: nodes.other_node().in_cgroup(&other_root.child("host")?),
            _other_pods: other_pods,
            other_root,
            other_pins: PinDirectory::new(&format!("{name}-other"))?,
            nodes,
        })
    }

    /// The lab's name.
    pub(super) fn name(&self) -> &str {
        self.lab().name()
    }

    fn lab(&self) -> &Lab {
        self.nodes.lab()
    }

    /// A node's own processes.
    pub(super) fn node(&self, number: usize) -> &Place {
        if number == 0 { self.nodes.node() } else { &self.other }
    }

    /// The host outside.
    pub(super) fn outside(&self) -> &Place {
        self.nodes.outside()
    }

    /// The endpoints of this set, each with the number of its node.
    pub(super) fn pods(&self, set: u8) -> Vec<(usize, &Place)> {
        let pods = self.endpoints.iter().enumerate().filter(|(number, _)| set & (1 << number) != 0);
        pods.map(|(number, pod)| (number / 2, pod)).collect()
    }

    /// Starts the servers, each with the number that its answers carry.
    pub(super) fn serve(&self) -> Result<Vec<Server>> {
        let places = self.endpoints.iter().chain(&self.strangers);
        (0..).zip(places).map(|(number, place)| Server::start(place, number)).collect()
    }

    /// The API server with the judged Services.
    pub(super) fn api_server(&self) -> Result<ApiServer> {
        let objects = Objects::default();
        for number in [0, 1] {
            objects.put(objects::node(number, &self.node(number).addresses()));
        }
        for (number, set) in ENDPOINTS.into_iter().enumerate() {
            objects.put(objects::judged(number));
            for slice in objects::slices(super::services::NAMES[number], &self.pods(set)) {
                objects.put(slice);
            }
        }
        ApiServer::start_at(self.outside().namespace(), SocketAddr::from((OUTSIDE_V4, API_PORT)), objects)
    }

    /// The network namespace of the API server.
    pub(super) fn api_namespace(&self) -> Arc<Namespace> {
        Arc::clone(&self.outside().namespace)
    }

    /// Starts an agent on each node, and waits for them.
    pub(super) fn agents(&self, api: &ApiServer, shared: &Shared) -> Result<Agents> {
        let folder = self.lab().folder("other-node")?;
        let run_directory = folder.join("run");
        std::fs::create_dir_all(&run_directory)?;
        let there = Seat {
            place: self.other.clone(),
            root: self.other_root.clone(),
            pin_directory: self.other_pins.path().to_owned(),
            run_directory,
            log: folder.join("agent.log"),
            node_name: OTHER_NODE_NAME,
        };
        let seats = [self.lab().seat(), there];
        Agents::start(seats.map(|seat| Agent::on(seat, Vec::new()).inside()), api.url(), shared)
    }
}
