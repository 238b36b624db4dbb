//! Reading EndpointSlices: one table for each row.

use serde_json::{Value, json};

use super::*;

fn read(slice: Value) -> Option<EndpointSlice> {
    EndpointSlice::read(serde_json::from_value(slice).expect("an EndpointSlice"))
}

#[expect(clippy::needless_pass_by_value, reason = "callers write `json!` in place")]
fn slice(endpoints: Value) -> EndpointSlice {
    read(json!({
        "metadata": {"name": "web-1", "namespace": "default", "labels": {(SERVICE_NAME): "web"}},
        "addressType": "IPv4",
        "ports": [{"name": "", "port": 8080}],
        "endpoints": endpoints,
    }))
    .expect("kept")
}

/// IN-3: slices without a Service and of headless Services are ignored.
#[test]
fn slices_are_kept_when_they_belong_to_a_service_with_addresses() {
    for (labels, kept) in [
        (json!({(SERVICE_NAME): "web"}), true),
        (json!({(SERVICE_NAME): "web", "endpointslice.kubernetes.io/managed-by": "me"}), true),
        (json!({(SERVICE_NAME): "web", (HEADLESS): ""}), false),
        (json!({(SERVICE_NAME): ""}), false),
        (json!({}), false),
        (json!(null), false),
    ] {
        let metadata = json!({"name": "s", "namespace": "default", "labels": labels});
        let slice = read(json!({"metadata": metadata, "addressType": "IPv4"}));
        assert_eq!(slice.is_some(), kept, "{metadata}");
    }
}

/// EP-1: a slice of host names is ignored; an address of the other family is named.
#[test]
fn a_slice_is_of_one_family() {
    let of = |address_type: &str| {
        read(json!({
            "metadata": {"name": "s", "labels": {(SERVICE_NAME): "web"}},
            "addressType": address_type,
            "endpoints": [{"addresses": ["10.0.0.1"]}, {"addresses": ["fd00::1"]}],
        }))
    };
    assert_eq!(of("FQDN"), None);
    for (address_type, kept, flaw) in
        [("IPv4", "10.0.0.1", "endpoints[1].addresses[0]"), ("IPv6", "fd00::1", "endpoints[0].addresses[0]")]
    {
        let slice = of(address_type).expect("kept");
        assert_eq!(slice.endpoints.len(), 1);
        assert_eq!(slice.endpoints[0].address.to_string(), kept);
        assert_eq!(&*slice.flaws[0].field, flaw);
    }
    assert_eq!(&*of("IPv5").expect("kept").flaws[0].field, "addressType");
}

/// EP-2: the first address only; without one there is no endpoint.
#[test]
fn an_endpoint_is_its_first_address() {
    let slice = slice(json!([
        {"addresses": ["10.0.0.1", "10.0.0.2"]},
        {"addresses": []},
        {},
        {"addresses": ["bad"]},
        {"addresses": ["010.0.0.3"]},
    ]));
    let texts: Vec<String> = slice.endpoints.iter().map(|endpoint| endpoint.address.to_string()).collect();
    assert_eq!(texts, ["10.0.0.1", "10.0.0.3"]);
    assert_eq!(&*slice.flaws[0].field, "endpoints[3].addresses[0]");
}

/// EP-3: a port needs a name and a number; "all ports" (no list) yields nothing.
#[test]
fn ports_have_names_and_numbers() {
    let slice = read(json!({
        "metadata": {"name": "s", "labels": {(SERVICE_NAME): "web"}},
        "addressType": "IPv4",
        "ports": [
            {"name": "http", "port": 8080},
            {"port": 8081},
            {"name": "all"},
            {"name": "zero", "port": 0},
            {"name": "odd", "port": 1, "protocol": "ODD"},
            {"name": "dns", "port": 53, "protocol": "UDP"},
        ],
    }))
    .expect("kept");
    let names: Vec<&str> = slice.ports.iter().map(|port| &*port.name).collect();
    assert_eq!(names, ["http", "dns"]);
    let fields: Vec<&str> = slice.flaws.iter().map(|flaw| &*flaw.field).collect();
    assert_eq!(fields, ["ports[3].port", "ports[4].protocol"]);
}

/// EP-3: an API server fills in the name of an unnamed port; manifests never met one.
#[test]
fn defaults_of_the_api_name_an_unnamed_port() {
    let wire: wire::EndpointSlice = serde_json::from_value(json!({
        "metadata": {"name": "s", "labels": {(SERVICE_NAME): "web"}},
        "addressType": "IPv4",
        "ports": [{"port": 8080}],
    }))
    .expect("an EndpointSlice");
    let slice = EndpointSlice::read(wire.with_api_defaults()).expect("kept");
    assert_eq!(&*slice.ports[0].name, "");
}

/// EP-4: ready and serving unless said otherwise; terminating only when said so.
#[test]
fn conditions_have_defaults() {
    for (written, expected) in [
        (json!(null), (true, true, false)),
        (json!({}), (true, true, false)),
        (json!({"ready": false}), (false, true, false)),
        (json!({"ready": false, "serving": false}), (false, false, false)),
        (json!({"ready": false, "serving": true, "terminating": true}), (false, true, true)),
    ] {
        let slice = slice(json!([{"addresses": ["10.0.0.1"], "conditions": written}]));
        let Conditions { ready, serving, terminating } = slice.endpoints[0].conditions;
        assert_eq!((ready, serving, terminating), expected, "{written}");
    }
}

#[test]
fn nodes_and_hints_are_those_of_the_endpoint() {
    let slice = slice(json!([
        {"addresses": ["10.0.0.1"], "nodeName": "n1", "hints": {"forZones": [{"name": "a"}]}},
        {"addresses": ["10.0.0.2"], "nodeName": "n2", "hints": {"forZones": [{"name": "b"}], "forNodes": [{"name": "n2"}]}},
        {"addresses": ["10.0.0.3"], "nodeName": "n1", "hints": {"forZones": [{"name": "a"}]}},
        {"addresses": ["10.0.0.4"]},
    ]));
    let nodes: Vec<_> = slice.endpoints.iter().map(|endpoint| slice.node_of(endpoint)).collect();
    assert_eq!(nodes, [Some("n1"), Some("n2"), Some("n1"), None]);
    let hints: Vec<_> = slice.endpoints.iter().map(|endpoint| slice.hints_of(endpoint)).collect();
    assert_eq!(hints[0], hints[2]);
    assert_eq!(&*hints[1].expect("hints").nodes[0], "n2");
    assert_eq!(hints[3], None);
    assert_eq!((slice.nodes.len(), slice.hints.len()), (2, 2));
}

#[test]
fn a_huge_slice_is_cut_and_named() {
    let endpoints: Vec<Value> =
        (0..5000).map(|i| json!({"addresses": [format!("10.0.{}.{}", i / 250, i % 250 + 1)]})).collect();
    let slice = slice(json!(endpoints));
    assert_eq!(slice.endpoints.len(), 1000);
    assert_eq!(&*slice.flaws[0].field, "endpoints");
    assert!(slice.flaws[0].message.contains("5000"), "{:?}", slice.flaws);
}

/// Ten thousand slices of ten endpoints stay below 10 MB.
#[test]
fn endpoints_are_small() {
    assert!(size_of::<Endpoint>() <= 32, "{}", size_of::<Endpoint>());
    assert!(size_of::<EndpointSlice>() <= 136, "{}", size_of::<EndpointSlice>());
}
