//! Objects for the tests of the rules, written short.

use std::{collections::HashSet, sync::LazyLock};

use proxy_common::{Address, Port};
use serde_json::{Value, json};

use super::{candidates::Candidate, view::View};
use crate::model::{Conditions, EndpointSlice, Service, wire};

/// The node `n1`, in zone `a`, with the address 192.168.0.1.
pub(super) fn view() -> View<'static> {
    static OWN: LazyLock<HashSet<Address>> =
        LazyLock::new(|| HashSet::from([Address::from_v4([192, 168, 0, 1])]));
    static ADDRESSES: LazyLock<[Address; 3]> = LazyLock::new(|| {
        ["192.168.0.1", "192.168.0.2", "fd00:168::1"]
            .map(|text| text.parse::<std::net::IpAddr>().expect("an address").into())
    });
    View { node: "n1", zone: Some("a"), own_addresses: &OWN, addresses: &*ADDRESSES, cannot_restrict: None }
}

/// The Service `default/web`.
#[expect(clippy::needless_pass_by_value, reason = "callers write `json!` in place")]
pub(super) fn service(spec: Value) -> Service {
    service_object(json!({"metadata": {"name": "web", "namespace": "default"}, "spec": spec}))
}

/// A Service, whole.
pub(super) fn service_object(object: Value) -> Service {
    Service::read(serde_json::from_value::<wire::Service>(object).expect("a Service")).expect("not skipped")
}

/// An EndpointSlice in `default`.
#[expect(clippy::needless_pass_by_value, reason = "callers write `json!` in place")]
pub(super) fn slice(
    name: &str,
    service: &str,
    address_type: &str,
    ports: Value,
    endpoints: Value,
) -> EndpointSlice {
    let labels = json!({"kubernetes.io/service-name": service});
    let object = json!({
        "metadata": {"name": name, "namespace": "default", "labels": labels},
        "addressType": address_type, "ports": ports, "endpoints": endpoints,
    });
    let wire = serde_json::from_value::<wire::EndpointSlice>(object).expect("an EndpointSlice");
    EndpointSlice::read(wire).expect("kept")
}

/// The endpoint 10.1.0.`host`:80. `state` is words: ready, unready, terminating, gone, local.
pub(super) fn candidate(host: u8, state: &str) -> Candidate<'static> {
    let is = |word: &str| state.split(' ').any(|w| w == word);
    assert!(["ready", "unready", "terminating", "gone"].into_iter().any(is), "{state}");
    Candidate {
        address: Address::from_v4([10, 1, 0, host]),
        port: Port::new(80),
        conditions: Conditions { ready: is("ready"), serving: !is("gone"), terminating: is("terminating") },
        local: is("local"),
        hints: None,
    }
}
