//! What kube-proxy's rules serve: the frontends in its maps (mode nftables) or its chains (mode iptables), and what
//! clients get there. Pure.

use std::collections::BTreeMap;

use proxy_common::{Address, FrontendKey, Port};

use super::{
    super::netlink::{Ruleset, Verdict},
    chains::{Chains, Client},
    names,
    served::{Choice, Served, Serves},
    statement::{Action, Statement, address_of, port_of},
};

/// What a table of mode nftables serves.
pub(super) fn of_nftables(ruleset: &Ruleset<Statement>, table: &str, v4: bool) -> Serves {
    let mut chains = Chains::new(ruleset, table, v4);
    let mut frontends = BTreeMap::new();
    let elements = |map: &str| ruleset.sets.get(map).map_or(&[][..], |map| map.elements.as_slice()).iter();
    for (map, is_node_port) in [("service-ips", false), ("service-nodeports", true)] {
        for element in elements(map) {
            let Some(key) = key(&element.key, v4, is_node_port) else { continue };
            let Some(Verdict::To(chain)) = &element.verdict else { continue };
            let served = Served {
                service: names::service_of(chain).or_else(|| element.comment.clone()),
                inside: chains.choice(chain, Client::Inside),
                outside: chains.choice(chain, Client::Outside),
                clients: None,
            };
            frontends.insert(key, served);
        }
    }
    for element in elements("firewall-ips") {
        let key = key(&element.key, v4, false);
        let Some(served) = key.and_then(|key| frontends.get_mut(&key)) else { continue };
        if let Some(Verdict::To(chain)) = &element.verdict {
            (served.clients, _) = chains.restricted(chain);
        }
    }
    for (map, is_node_port) in [("no-endpoint-services", false), ("no-endpoint-nodeports", true)] {
        for element in elements(map) {
            let Some(key) = key(&element.key, v4, is_node_port) else { continue };
            let refused = || Served { service: element.comment.clone(), ..Served::default() };
            frontends.entry(key).or_insert_with(refused);
        }
    }
    let node_addresses = chains.addresses("nodeport-ips").into_iter();
    // Single addresses: a range would be everything (`--nodeport-addresses 0.0.0.0/0`).
    let node_addresses =
        node_addresses.filter(|(first, last)| first == last).map(|(first, _)| first).collect();
    Serves { frontends, node_addresses, not_understood: chains.not_understood }
}

/// What the tables of mode iptables serve: `nat`, and those chains of `filter` that refuse.
pub(super) fn of_iptables(nat: &Ruleset<Statement>, filter: &Ruleset<Statement>, v4: bool) -> Serves {
    let (nat_name, filter_name) = if v4 { ("ip nat", "ip filter") } else { ("ip6 nat", "ip6 filter") };
    let mut chains = Chains::new(nat, nat_name, v4);
    let mut frontends = BTreeMap::new();
    for entered in [names::SERVICES, names::NODE_PORTS] {
        for statement in chains.statements(entered) {
            let Action::To(chain) = &statement.action else { continue };
            let place = (statement.destination, statement.port, statement.protocol);
            let Some(key) = frontend(place, entered == names::NODE_PORTS, v4) else { continue };
            let (clients, led) =
                if names::restricts(chain) { chains.restricted(chain) } else { (None, None) };
            let chain = led.as_ref().unwrap_or(chain);
            let served = Served {
                service: statement.comment.as_deref().and_then(names::service_in),
                inside: chains.choice(chain, Client::Inside),
                outside: chains.choice(chain, Client::Outside),
                clients,
            };
            frontends.insert(key, served);
        }
    }
    let mut refusing = Chains::new(filter, filter_name, v4);
    for entered in names::REFUSING {
        for statement in refusing.statements(entered) {
            let place = (statement.destination, statement.port, statement.protocol);
            let Some(key) = frontend(place, statement.at_node, v4) else { continue };
            if statement.action != Action::Refused {
                continue;
            }
            let service = statement.comment.as_deref().and_then(names::service_in);
            let refused = Served { service, ..Served::default() };
            frontends.entry(key).or_insert(refused);
        }
    }
    let mut not_understood = chains.not_understood;
    not_understood.extend(refusing.not_understood);
    Serves { frontends, not_understood, ..Serves::default() }
}

impl Serves {
    /// Both.
    pub(crate) fn and(mut self, other: Self) -> Self {
        let Self { frontends, node_addresses, not_understood } = other;
        self.frontends.extend(frontends);
        self.node_addresses.extend(node_addresses);
        self.not_understood.extend(not_understood);
        self
    }
}

impl Served {
    /// What clients outside get, and those of the node.
    pub(crate) const fn choices(&self) -> [&Choice; 2] {
        [&self.inside, &self.outside]
    }
}

/// The frontend in a map's key: address, protocol, port; of a NodePort without the address.
fn key(key: &[u8], v4: bool, is_node_port: bool) -> Option<FrontendKey> {
    let size = match (is_node_port, v4) {
        (true, _) => 0,
        (false, true) => 4,
        (false, false) => 16,
    };
    let (address, rest) = key.split_at_checked(size)?;
    let (protocol, port) = rest.split_at_checked(4)?;
    let address = if is_node_port { None } else { Some(address_of(address)?) };
    frontend((address, port_of(port), protocol.first().copied()), is_node_port, v4)
}

fn frontend(
    (address, port, protocol): (Option<Address>, Option<Port>, Option<u8>),
    is_node_port: bool,
    v4: bool,
) -> Option<FrontendKey> {
    let (port, protocol) = (port?, protocol?);
    if is_node_port {
        let any = address_of(if v4 { &[0; 4] } else { &[0; 16] })?;
        return Some(FrontendKey::node_port(&any, port, protocol));
    }
    Some(FrontendKey::new(address?, port, protocol))
}
