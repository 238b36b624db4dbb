//! The objects as they are written: in YAML, and in the API server's JSON.
//!
//! Only the fields that are used, each of the widest type that the API allows, since one object that does
//! not decode would make a whole list fail. `null` means the same as nothing. Metadata is slim from the
//! first byte: `managedFields`, and annotations but three, are passed over without being kept.

mod endpoint_slice;
pub(in crate::model) mod metadata;
mod node;
mod pod;
mod service;

pub use endpoint_slice::{Conditions, Endpoint, EndpointPort, EndpointSlice, HintTarget, Hints};
pub use node::{Node, NodeAddress, NodeSpec, NodeStatus, Taint};
pub use pod::{Pod, PodIp, PodSpec, PodStatus};
pub use service::{
    ClientIpConfig, LoadBalancerIngress, LoadBalancerStatus, Service, ServicePort, ServiceSpec,
    ServiceStatus, SessionAffinityConfig,
};

/// Makes a type known to kube's client and watcher.
macro_rules! resource {
    ($name:ident, $scope:ty, $group:literal, $plural:literal) => {
        impl kube::Resource for $name {
            type DynamicType = ();
            type Scope = $scope;

            fn kind((): &()) -> std::borrow::Cow<'_, str> {
                stringify!($name).into()
            }

            fn group((): &()) -> std::borrow::Cow<'_, str> {
                $group.into()
            }

            fn version((): &()) -> std::borrow::Cow<'_, str> {
                "v1".into()
            }

            fn plural((): &()) -> std::borrow::Cow<'_, str> {
                $plural.into()
            }

            fn meta(&self) -> &k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta {
                &self.metadata
            }

            fn meta_mut(&mut self) -> &mut k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta {
                &mut self.metadata
            }
        }
    };
}

resource!(Service, k8s_openapi::NamespaceResourceScope, "", "services");
resource!(EndpointSlice, k8s_openapi::NamespaceResourceScope, "discovery.k8s.io", "endpointslices");
resource!(Pod, k8s_openapi::NamespaceResourceScope, "", "pods");
resource!(Node, k8s_openapi::ClusterResourceScope, "", "nodes");
