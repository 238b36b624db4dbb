//! Which addresses lead to a Service port?

use proxy_common::{Address, FrontendKey, FrontendKind, Port, Protocol};

use super::{AllowedClients, Family, allowed_clients::allowed_clients, view::View};
use crate::model::{Flaw, Listed, Service, ServicePort};

/// A frontend that a Service port claims.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Want {
    /// Its key.
    pub(super) key: FrontendKey,
    /// Its kind.
    pub(super) kind: FrontendKind,
    /// Position in the list of the Service that it comes from.
    index: u16,
}

impl Want {
    /// Whether north-south clients may use it.
    pub(super) fn is_external(&self) -> bool {
        self.kind != FrontendKind::ClusterIp
    }

    /// The field that claims it.
    pub(super) fn field(&self, port: &ServicePort) -> String {
        match self.kind {
            FrontendKind::ClusterIp => format!("spec.clusterIPs[{}]", self.index),
            FrontendKind::NodePort => format!("spec.ports[{}].nodePort", port.index),
            FrontendKind::LoadBalancer => format!("status.loadBalancer.ingress[{}].ip", self.index),
            FrontendKind::ExternalIp => format!("spec.externalIPs[{}]", self.index),
        }
    }
}

/// FE-2: a family without a ClusterIP gets nothing at all.
pub(super) fn families(service: &Service) -> impl Iterator<Item = Family> {
    [Family::V4, Family::V6]
        .into_iter()
        .filter(|family| service.cluster_ips.iter().any(|ip| is_of_family(ip.address, *family)))
}

/// Every frontend of one port in one family, each key once. An address that is listed in several ways is
/// what comes first here: the ClusterIP, an external IP, a LoadBalancer IP.
pub(super) fn wants(service: &Service, port: &ServicePort, family: Family, view: View<'_>) -> Vec<Want> {
    let mut wants = Vec::new();
    let mut add = |want: Want| {
        if !wants.iter().any(|other: &Want| other.key == want.key) {
            wants.push(want);
        }
    };
    let of = |list: &[Listed], kind| addresses(list, port, family, kind).collect::<Vec<_>>();
    of(&service.cluster_ips, FrontendKind::ClusterIp)
        .into_iter()
        .filter(|want| !is_own_address(want.key.address, view))
        .for_each(&mut add);
    of(&service.external_ips, FrontendKind::ExternalIp).into_iter().for_each(&mut add);
    if withheld_because(service, family, view).is_none() {
        of(&service.load_balancer_ips, FrontendKind::LoadBalancer).into_iter().for_each(&mut add);
    }
    node_port(port, family).into_iter().for_each(&mut add);
    wants
}

/// FE-2, FE-3, FE-5: one frontend for each address of the family.
fn addresses(
    list: &[Listed],
    port: &ServicePort,
    family: Family,
    kind: FrontendKind,
) -> impl Iterator<Item = Want> {
    let key = |address| FrontendKey::new(address, Port::new(port.port), port.protocol as u8);
    list.iter().filter(move |listed| is_of_family(listed.address, family)).map(move |listed| Want {
        key: key(listed.address),
        kind,
        index: listed.index,
    })
}

/// FE-4: of any type of Service; TCP and UDP of one number are two.
fn node_port(port: &ServicePort, family: Family) -> Option<Want> {
    let any = if family == Family::V4 { Address::ANY_V4 } else { Address::ANY_V6 };
    let key = FrontendKey::node_port(&any, Port::new(port.node_port?), port.protocol as u8);
    Some(Want { key, kind: FrontendKind::NodePort, index: 0 })
}

/// PO-18: a ClusterIP that is bound on the node (as node-local DNS does) is answered there.
fn is_own_address(address: Address, view: View<'_>) -> bool {
    view.own_addresses.contains(&address)
}

/// ST-8: why LoadBalancer IPs that not everyone may use are not installed, if they are not. Nobody would be let
/// in where clients are unknown; left alone, the traffic goes to the load balancer, which has the ranges too.
fn withheld_because<'a>(service: &Service, family: Family, view: View<'a>) -> Option<&'a str> {
    view.cannot_restrict.filter(|_| allowed_clients(service, family, view) != AllowedClients::Everyone)
}

/// Frontends that a Service claims and that rules deny it (FE-8, PO-18, ST-8).
pub(super) fn withheld(service: &Service, view: View<'_>) -> Vec<Flaw> {
    let mut flaws = Vec::new();
    if families(service).next().is_some() {
        for port in service.ports.iter().filter(|port| port.protocol == Protocol::Sctp) {
            flaws.push(Flaw::new(
                format!("spec.ports[{}].protocol", port.index),
                "SCTP is not served: no program translates it, so this port is left alone; use TCP or UDP instead",
            ));
        }
    }
    for ip in service.cluster_ips.iter().filter(|ip| is_own_address(ip.address, view)) {
        flaws.push(Flaw::new(
            format!("spec.clusterIPs[{}]", ip.index),
            format!(
                "{} is an address of this node, so the process that listens there answers instead of the \
                 Service (as with NodeLocal DNS); remove the address from the node if the Service should answer",
                ip.address
            ),
        ));
    }
    for family in families(service) {
        let listed = service.load_balancer_ips.iter().find(|ip| is_of_family(ip.address, family));
        if let Some(ip) = listed
            && let Some(why) = withheld_because(service, family, view)
        {
            flaws.push(Flaw::new(
                "spec.loadBalancerSourceRanges",
                format!(
                    "the agent cannot identify clients on this node, so their connections to {} go to the load \
                     balancer, which applies the ranges: {why}",
                    ip.address
                ),
            ));
        }
    }
    flaws
}

fn is_of_family(address: Address, family: Family) -> bool {
    address.is_v4() == (family == Family::V4)
}

#[cfg(test)]
#[path = "frontends_tests.rs"]
mod tests;
