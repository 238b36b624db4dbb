//! Services with endpoints on both nodes.

use std::net::IpAddr;

use anyhow::Result;

use super::{OTHER_NODE_NAME, TwoNodes};
use crate::{
    agent::NODE_NAME,
    cluster::{Backend, slice},
    manifest::{Conditions, EndpointSlice, Service},
    place::Place,
    topology::PodRange,
};

impl TwoNodes {
    /// Makes a pod on the node with TCP and UDP servers.
    pub fn backend_here(&self, name: &str) -> Result<Backend> {
        Backend::start(self.pod_here(name)?)
    }

    /// Makes a pod on the other node with TCP and UDP servers.
    pub fn backend_there(&self, name: &str) -> Result<Backend> {
        Backend::start(self.pod_there(name)?)
    }

    /// Writes `<name>.yaml`: a Service with these endpoints, all of them ready, in both families.
    pub fn publish(&self, name: &str, service: &Service, endpoints: &[&Backend]) -> Result<()> {
        let places: Vec<&Place> = endpoints.iter().map(|backend| &backend.place).collect();
        self.publish_places(name, service, &places)
    }

    /// The same with pods, whatever servers they have.
    pub fn publish_places(&self, name: &str, service: &Service, pods: &[&Place]) -> Result<()> {
        let file = format!("{name}.yaml");
        if pods.is_empty() {
            return self.lab().manifests().write(&file, &[service]);
        }
        let [v4, v6] = slices(name, &pods.iter().map(|pod| (*pod, Conditions::READY)).collect::<Vec<_>>());
        self.lab().manifests().write(&file, &[service, &v4, &v6])
    }
}

/// An `EndpointSlice` of each family with these pods, each on its node.
pub fn slices(name: &str, pods: &[(&Place, Conditions)]) -> [EndpointSlice; 2] {
    let with = |slice: EndpointSlice, pod: &Place, address: IpAddr, conditions| {
        let here = PodRange::HERE.has(pod.v4);
        slice.on_node(if here { NODE_NAME } else { OTHER_NODE_NAME }).endpoint(address, conditions)
    };
    [0, 1].map(|family| {
        pods.iter().fold(slice(name), |slice, (pod, conditions)| {
            with(slice, pod, pod.addresses()[family], *conditions)
        })
    })
}
