//! What one node should install: a pure function of the model.
//!
//! The rules are functions of their own, named after what they decide, with the ids of the rows of the Kubernetes
//! semantics that they keep: which [frontends] lead to a Service port, which endpoints it has ([candidates]), which
//! of them may be used ([usable], [topology]), where traffic goes ([targets]), which clients may use the LoadBalancer
//! IPs ([`allowed_clients`]), which of two Services gets a frontend that both claim ([claims]). The [`Planner`]
//! applies them to the Services that a change touches.

mod addresses;
mod allowed_clients;
mod api_server;
mod arrange;
mod candidates;
mod claims;
mod draft;
mod frontends;
mod health_checks;
mod install;
mod node_addresses;
mod node_port_addresses;
mod planned;
mod planner;
mod precedence;
mod problems;
#[cfg(test)]
pub(crate) mod properties;
mod recalled;
mod tally;
mod targets;
#[cfg(test)]
mod testing;
mod topology;
mod usable;
mod view;

pub use health_checks::HealthCheck;
pub use install::{
    AllowedClients, Changes, Family, PlannedEndpoint, PodWishes, ServicePlan, ServicePortId, Target,
};
pub use node_port_addresses::NodePortAddresses;
pub use planner::Planner;
pub use precedence::{goes_first, is_api_server};
pub use tally::Tally;
