//! The north-south frontends among the installed ones: their NodePorts, and their families.
//!
//! It counts frontends as they are added and removed, so no change needs a pass over all Services.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use proxy_common::{FrontendKey, FrontendKind, Protocol};

use super::pinned::Tables;
use crate::ports::PortSet;

/// IP families.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Families {
    /// IPv4.
    pub v4: bool,
    /// IPv6.
    pub v6: bool,
}

/// Counts of installed frontends.
#[derive(Default, Debug)]
pub struct Exposed {
    /// How many frontends have each number: one for each family and protocol.
    counts: BTreeMap<u16, u32>,
    node_ports: PortSet,
    /// External frontends of IPv4 and of IPv6.
    families: [u64; 2],
}

impl Exposed {
    /// What is in the pinned tables, for those who do not write them.
    pub fn installed(tables: &Tables) -> Self {
        let mut exposed = Self::default();
        for (key, frontend) in tables.frontends.iter().filter_map(Result::ok) {
            if let Some(kind) = FrontendKind::from_number(frontend.kind) {
                exposed.add(&[(key, kind)]);
            }
        }
        exposed
    }

    /// Frontends that are installed from now on.
    pub(crate) fn add(&mut self, frontends: &[(FrontendKey, FrontendKind)]) {
        for (key, kind) in frontends.iter().filter(|(key, kind)| is_exposed(key, *kind)) {
            self.families[usize::from(!key.address.is_v4())] += 1;
            if *kind == FrontendKind::NodePort {
                let number = key.port.get();
                *self.counts.entry(number).or_default() += 1;
                self.node_ports.insert(number);
            }
        }
    }

    /// Frontends that were added before, and are no more.
    pub(crate) fn remove(&mut self, frontends: &[(FrontendKey, FrontendKind)]) {
        for (key, kind) in frontends.iter().filter(|(key, kind)| is_exposed(key, *kind)) {
            let family = &mut self.families[usize::from(!key.address.is_v4())];
            *family = family.saturating_sub(1);
            if *kind == FrontendKind::NodePort {
                let number = key.port.get();
                let left = self.counts.get(&number).map_or(0, |count| count.saturating_sub(1));
                if left == 0 {
                    self.counts.remove(&number);
                    self.node_ports.remove(number);
                } else {
                    self.counts.insert(number, left);
                }
            }
        }
    }

    /// The numbers of NodePorts.
    pub fn node_ports(&self) -> &PortSet {
        &self.node_ports
    }

    /// The families with north-south frontends.
    pub fn families(&self) -> Families {
        let [v4, v6] = self.families.map(|count| count > 0);
        Families { v4, v6 }
    }
}

/// The endpoints of Services with north-south frontends, in the pinned tables.
pub fn exposed_endpoints(tables: &Tables) -> BTreeSet<IpAddr> {
    let services: BTreeSet<u32> = tables
        .frontends
        .iter()
        .filter_map(Result::ok)
        .filter(|(key, frontend)| {
            FrontendKind::from_number(frontend.kind).is_some_and(|kind| is_exposed(key, kind))
        })
        .map(|(_, frontend)| frontend.service)
        .collect();
    let live = (1..tables.states.len()).filter_map(|id| {
        let state = tables.states.load(id).filter(|state| state.bits != 0)?;
        tables.endpoints.load(state.slot).filter(|endpoint| endpoint.id == id)
    });
    live.filter(|endpoint| services.contains(&endpoint.service))
        .map(|endpoint| endpoint.address.into())
        .collect()
}

/// SCTP is not served.
fn is_exposed(key: &FrontendKey, kind: FrontendKind) -> bool {
    kind != FrontendKind::ClusterIp && key.protocol != Protocol::Sctp as u8
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use proxy_common::Port;

    use super::*;

    fn node_port(v6: bool, number: u16, protocol: Protocol) -> (FrontendKey, FrontendKind) {
        let any = if v6 { IpAddr::V6(Ipv6Addr::UNSPECIFIED) } else { Ipv4Addr::UNSPECIFIED.into() };
        (FrontendKey::node_port(&any.into(), Port::new(number), protocol as u8), FrontendKind::NodePort)
    }

    #[test]
    fn a_number_is_in_use_until_its_last_frontend_goes() {
        let mut exposed = Exposed::default();
        let (tcp, udp) = (node_port(false, 30053, Protocol::Tcp), node_port(true, 30053, Protocol::Udp));
        exposed.add(&[tcp, udp, node_port(false, 30080, Protocol::Tcp)]);
        assert_eq!(exposed.node_ports().to_string(), "30053,30080");
        assert_eq!(exposed.families(), Families { v4: true, v6: true });
        exposed.remove(&[udp]);
        assert_eq!(exposed.node_ports().to_string(), "30053,30080");
        assert_eq!(exposed.families(), Families { v4: true, v6: false });
        exposed.remove(&[tcp]);
        assert_eq!(exposed.node_ports().to_string(), "30080");
    }

    #[test]
    fn frontends_that_are_not_north_south_do_not_count() {
        let mut exposed = Exposed::default();
        let address = IpAddr::from([10, 96, 0, 10]).into();
        let key = FrontendKey::new(address, Port::new(80), Protocol::Tcp as u8);
        exposed.add(&[(key, FrontendKind::ClusterIp), node_port(false, 30132, Protocol::Sctp)]);
        assert_eq!(
            (exposed.node_ports().to_string(), exposed.families()),
            (String::new(), Families::default())
        );
        exposed.add(&[(key, FrontendKind::LoadBalancer)]);
        assert_eq!(exposed.node_ports().to_string(), "");
        assert_eq!(exposed.families(), Families { v4: true, v6: false });
    }
}
