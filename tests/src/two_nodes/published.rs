//! Services with endpoints on both nodes.

use anyhow::Result;

use super::{OTHER_NODE_NAME, TwoNodes};
use crate::{
    agent::NODE_NAME,
    cluster::{Backend, slice},
    manifest::{EndpointSlice, Service},
    place::Place,
    topology::PodRange,
};

impl TwoNodes {
    /// A pod on the node that serves TCP and UDP.
    pub fn backend_here(&self, name: &str) -> Result<Backend> {
        Backend::start(self.pod_here(name)?)
    }

    /// A pod on the other node that serves TCP and UDP.
    pub fn backend_there(&self, name: &str) -> Result<Backend> {
        Backend::start(self.pod_there(name)?)
    }

    /// Writes `<name>.yaml`: a Service with these endpoints, all of them ready, in both families.
    pub fn publish(&self, name: &str, service: &Service, endpoints: &[&Backend]) -> Result<()> {
        let places: Vec<&Place> = endpoints.iter().map(|backend| &backend.place).collect();
        self.publish_places(name, service, &places)
    }

    /// The same with pods, whatever they serve.
    pub fn publish_places(&self, name: &str, service: &Service, pods: &[&Place]) -> Result<()> {
        let [v4, v6] = slices(name, pods);
        self.lab().manifests().write(&format!("{name}.yaml"), &[service, &v4, &v6])
    }
}

/// An `EndpointSlice` of each family with these pods, all of them ready, each on its node.
pub fn slices(name: &str, pods: &[&Place]) -> [EndpointSlice; 2] {
    let on_its_node = |slice: EndpointSlice, pod: &Place| {
        let here = PodRange::HERE.has(pod.v4);
        slice.on_node(if here { NODE_NAME } else { OTHER_NODE_NAME })
    };
    [
        pods.iter().fold(slice(name), |slice, pod| on_its_node(slice, pod).ready(pod.v4)),
        pods.iter().fold(slice(name), |slice, pod| on_its_node(slice, pod).ready(pod.v6)),
    ]
}
