//! Which endpoints does a Service port have, wherever they are and whatever their state?

use proxy_common::{Address, Port, Protocol};

use super::{Family, view::View};
use crate::model::{Conditions, Endpoint, EndpointSlice, Hints};

/// An endpoint of one Service port. Address and port are its identity.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Candidate<'a> {
    /// The pod's address.
    pub(super) address: Address,
    /// The pod's port.
    pub(super) port: Port,
    /// Its conditions.
    pub(super) conditions: Conditions,
    /// Whether it is on this node.
    pub(super) local: bool,
    /// Its hints, if it has any.
    pub(super) hints: Option<&'a Hints>,
}

/// The endpoints of a Service port in one family, each once, in order (EP-7: by address and port).
pub(super) fn candidates<'a>(
    slices: &'a [EndpointSlice],
    name: &str,
    protocol: Protocol,
    family: Family,
    view: View<'_>,
) -> Vec<Candidate<'a>> {
    let mut found = Vec::new();
    for slice in slices {
        for number in ports(slice, name, protocol) {
            for endpoint in slice.endpoints.iter().filter(|endpoint| is_of_family(endpoint, family)) {
                found.push(Candidate {
                    address: endpoint.address,
                    port: Port::new(number),
                    conditions: endpoint.conditions,
                    local: is_local(slice, endpoint, view),
                    hints: slice.hints_of(endpoint),
                });
            }
        }
    }
    // Stable, so that entries for one address and port stay in the order in which they came.
    found.sort_by_key(|candidate| (candidate.address, candidate.port.get()));
    found.dedup_by(|later, earlier| {
        let same = (later.address, later.port) == (earlier.address, earlier.port);
        if same && replaces(later) {
            std::mem::swap(later, earlier);
        }
        same
    });
    found
}

/// FE-1, EP-3: a slice's ports belong to a Service's by name and protocol.
fn ports(slice: &EndpointSlice, name: &str, protocol: Protocol) -> impl Iterator<Item = u16> {
    let matching = move |port: &&crate::model::EndpointPort| *port.name == *name && port.protocol == protocol;
    slice.ports.iter().filter(matching).map(|port| port.port)
}

/// EP-1: each family takes its own.
fn is_of_family(endpoint: &Endpoint, family: Family) -> bool {
    endpoint.address.is_v4() == (family == Family::V4)
}

/// EP-5: an endpoint without a node name is not local.
fn is_local(slice: &EndpointSlice, endpoint: &Endpoint, view: View<'_>) -> bool {
    slice.node_of(endpoint) == Some(view.node)
}

/// EP-6: of several entries for one address and port the last one that is not terminating counts. The
/// address of a pod that terminates may already be another pod's.
fn replaces(later: &Candidate<'_>) -> bool {
    !later.conditions.terminating
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::plan::testing;

    fn find(slices: &[EndpointSlice], name: &str, protocol: Protocol, family: Family) -> Vec<String> {
        candidates(slices, name, protocol, family, testing::view())
            .iter()
            .map(|c| format!("{}:{}{}", c.address, c.port, if c.local { " local" } else { "" }))
            .collect()
    }

    fn slice(ports: Value, endpoints: Value) -> EndpointSlice {
        testing::slice("web-1", "web", "IPv4", ports, endpoints)
    }

    /// FE-1, EP-3: by name and protocol, never by number; EP-6: one address with several ports is several.
    #[test]
    fn slices_match_by_port_name_and_protocol() {
        let slices = [slice(
            json!([
                {"name": "http", "port": 8080},
                {"name": "dns", "port": 53, "protocol": "UDP"},
                {"name": "dns", "port": 5353, "protocol": "TCP"},
            ]),
            json!([{"addresses": ["10.1.0.2"]}, {"addresses": ["10.1.0.1"]}]),
        )];
        for (name, protocol, expected) in [
            ("http", Protocol::Tcp, &["10.1.0.1:8080", "10.1.0.2:8080"][..]),
            ("http", Protocol::Udp, &[]),
            ("dns", Protocol::Udp, &["10.1.0.1:53", "10.1.0.2:53"]),
            ("dns", Protocol::Tcp, &["10.1.0.1:5353", "10.1.0.2:5353"]),
            ("", Protocol::Tcp, &[]),
        ] {
            assert_eq!(find(&slices, name, protocol, Family::V4), expected, "{name}/{protocol}");
        }
    }

    /// EP-1.
    #[test]
    fn each_family_takes_its_own() {
        let ports = json!([{"name": "", "port": 80}]);
        let v6 = testing::slice("web-6", "web", "IPv6", ports.clone(), json!([{"addresses": ["fd00::1"]}]));
        let slices = [v6, slice(ports, json!([{"addresses": ["10.1.0.1"]}]))];
        assert_eq!(find(&slices, "", Protocol::Tcp, Family::V4), ["10.1.0.1:80"]);
        assert_eq!(find(&slices, "", Protocol::Tcp, Family::V6), ["fd00::1:80"]);
    }

    /// EP-5.
    #[test]
    fn local_is_what_names_this_node() {
        let slices = [slice(
            json!([{"name": "", "port": 80}]),
            json!([
                {"addresses": ["10.1.0.1"], "nodeName": "n1"},
                {"addresses": ["10.1.0.2"], "nodeName": "n2"},
                {"addresses": ["10.1.0.3"]},
            ]),
        )];
        assert_eq!(
            find(&slices, "", Protocol::Tcp, Family::V4),
            ["10.1.0.1:80 local", "10.1.0.2:80", "10.1.0.3:80"]
        );
    }

    /// EP-6: one entry for each address and port; a terminating one never replaces another.
    #[test]
    fn duplicates_become_one() {
        let terminating = json!({"ready": false, "serving": true, "terminating": true});
        for (first, second, expected) in [
            (json!({}), json!({"ready": false}), (false, true, false)),
            (json!({}), terminating.clone(), (true, true, false)),
            (terminating.clone(), json!({}), (true, true, false)),
            (terminating.clone(), terminating.clone(), (false, true, true)),
        ] {
            let of = |name: &str, conditions: &Value| {
                let endpoints = json!([{"addresses": ["10.1.0.1"], "conditions": conditions}]);
                testing::slice(name, "web", "IPv4", json!([{"name": "", "port": 80}]), endpoints)
            };
            let (a, b) = (of("web-1", &first), of("web-2", &second));
            let slices = [a, b];
            let found = candidates(&slices, "", Protocol::Tcp, Family::V4, testing::view());
            let Conditions { ready, serving, terminating } = found[0].conditions;
            assert_eq!(found.len(), 1);
            assert_eq!((ready, serving, terminating), expected, "{first} then {second}");
        }
    }
}
