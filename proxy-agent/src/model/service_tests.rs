//! Reading Services: one table for each row.

use proxy_common::Protocol;
use serde_json::{Value, json};

use super::super::{Service, service_parts::TrafficPolicy, wire};

#[expect(clippy::needless_pass_by_value, reason = "callers write `json!` in place")]
fn read(spec: Value) -> Option<Service> {
    object(json!({"metadata": {"name": "web", "namespace": "default"}, "spec": spec}))
}

fn object(value: Value) -> Option<Service> {
    Service::read(serde_json::from_value::<wire::Service>(value).expect("a Service"))
}

fn kept(spec: Value) -> Service {
    read(spec).expect("not skipped")
}

fn flaws(service: &Service) -> Vec<&str> {
    service.flaws.iter().map(|flaw| &*flaw.field).collect()
}

/// IN-1: presence of the label, whatever its value.
#[test]
fn a_service_of_another_proxy_is_skipped() {
    for value in ["other", ""] {
        let metadata = json!({"name": "web", "labels": {"service.kubernetes.io/service-proxy-name": value}});
        assert_eq!(object(json!({"metadata": metadata, "spec": {"clusterIP": "10.0.0.1"}})), None);
    }
}

/// IN-2: no address of its own, or not served by nodes.
#[test]
fn headless_and_external_name_are_skipped() {
    assert_eq!(read(json!({"clusterIP": "None"})), None);
    assert_eq!(read(json!({"clusterIPs": ["None"]})), None);
    assert_eq!(read(json!({"type": "ExternalName", "clusterIP": "10.0.0.1"})), None);
    assert_eq!(read(json!({"type": "ExternalName"})), None);
    let without = kept(json!({"clusterIP": "", "ports": [{"port": 80}]}));
    assert!(without.cluster_ips.is_empty());
    assert_eq!(flaws(&without), ["spec.clusterIP"]);
}

/// FE-2: one ClusterIP of each family, as declared; the single field where there is no list.
#[test]
fn cluster_ips_are_one_of_each_family() {
    for (spec, expected, flawed) in [
        (json!({"clusterIP": "10.0.0.1"}), &["10.0.0.1"][..], &[][..]),
        (
            json!({"clusterIP": "10.0.0.1", "clusterIPs": ["10.0.0.1", "fd00::1"]}),
            &["10.0.0.1", "fd00::1"],
            &[],
        ),
        (
            json!({"clusterIPs": ["fd00::1", "10.0.0.1"], "ipFamilies": ["IPv6", "IPv4"]}),
            &["fd00::1", "10.0.0.1"],
            &[],
        ),
        (
            json!({"clusterIPs": ["fd00::1", "10.0.0.1"], "ipFamilies": ["IPv4"]}),
            &["10.0.0.1"],
            &["spec.clusterIPs[0]"],
        ),
        (json!({"clusterIPs": ["10.0.0.1", "10.0.0.2"]}), &["10.0.0.1"], &["spec.clusterIPs[1]"]),
        (json!({"clusterIP": "nonsense"}), &[], &["spec.clusterIP"]),
        (json!({"clusterIP": "127.0.0.1"}), &[], &["spec.clusterIP"]),
    ] {
        let service = kept(spec.clone());
        let ips: Vec<String> = service.cluster_ips.iter().map(|ip| ip.address.to_string()).collect();
        assert_eq!(ips, expected, "{spec}");
        assert_eq!(flaws(&service), flawed, "{spec}");
    }
}

/// FE-3: bad ones are named, the others stay.
#[test]
fn external_ips_are_the_valid_ones() {
    let service = kept(json!({"clusterIP": "10.0.0.1", "externalIPs": ["x", "192.0.2.1", "0.0.0.0"]}));
    assert_eq!(service.external_ips.len(), 1);
    assert_eq!(service.external_ips[0].index, 1);
    assert_eq!(flaws(&service), ["spec.externalIPs[0]", "spec.externalIPs[2]"]);
}

/// FE-5: ipMode nil or VIP; host names and ipMode Proxy are not for nodes.
#[test]
fn load_balancer_ips_are_those_in_mode_vip() {
    let service = object(json!({
        "metadata": {"name": "web"},
        "spec": {"clusterIP": "10.0.0.1"},
        "status": {"loadBalancer": {"ingress": [
            {"hostname": "lb.example"},
            {"ip": "192.0.2.1"},
            {"ip": "192.0.2.2", "ipMode": "Proxy"},
            {"ip": "192.0.2.3", "ipMode": "VIP"},
            {"ip": "bad"},
        ]}},
    }))
    .expect("not skipped");
    let indexes: Vec<u16> = service.load_balancer_ips.iter().map(|ip| ip.index).collect();
    assert_eq!(indexes, [1, 3]);
    assert_eq!(flaws(&service), ["status.loadBalancer.ingress[4].ip"]);
}

/// FE-1, FE-4, FE-8: name and protocol identify a port; a bad port does not take the others with it.
#[test]
fn ports_are_known_by_name_and_protocol() {
    let service = kept(json!({"clusterIP": "10.0.0.1", "ports": [
        {"name": "dns", "port": 53, "protocol": "UDP", "nodePort": 30053},
        {"name": "dns", "port": 53, "protocol": "TCP", "targetPort": "whatever"},
        {"name": "zero", "port": 0},
        {"name": "huge", "port": 70000},
        {"name": "odd", "port": 80, "protocol": "HTTP"},
        {"name": "dns", "port": 54, "protocol": "UDP"},
        {"name": "np", "port": 81, "nodePort": 70000},
        {"name": "missing"},
        {"name": "sctp", "port": 82, "protocol": "SCTP", "nodePort": 0},
    ]}));
    let ports: Vec<_> =
        service.ports.iter().map(|port| (port.index, &*port.name, port.protocol, port.node_port)).collect();
    assert_eq!(
        ports,
        [
            (0, "dns", Protocol::Udp, Some(30053)),
            (1, "dns", Protocol::Tcp, None),
            (6, "np", Protocol::Tcp, None),
            (8, "sctp", Protocol::Sctp, None),
        ]
    );
    assert_eq!(
        flaws(&service),
        [
            "spec.ports[2].port",
            "spec.ports[3].port",
            "spec.ports[4].protocol",
            "spec.ports[5].name",
            "spec.ports[6].nodePort",
            "spec.ports[7].port",
        ]
    );
}

/// ST-2: 1 to 86400 seconds, 10800 by default.
#[test]
fn affinity_is_client_ip_with_a_timeout() {
    let timeout = |seconds: i64| {
        json!({"clusterIP": "10.0.0.1", "sessionAffinity": "ClientIP",
               "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": seconds}}})
    };
    for (spec, seconds, flawed) in [
        (json!({"clusterIP": "10.0.0.1"}), 0, false),
        (json!({"clusterIP": "10.0.0.1", "sessionAffinity": "None"}), 0, false),
        (json!({"clusterIP": "10.0.0.1", "sessionAffinity": "ClientIP"}), 10_800, false),
        (json!({"clusterIP": "10.0.0.1", "sessionAffinity": "Cookie"}), 0, true),
        (timeout(1), 1, false),
        (timeout(86_400), 86_400, false),
        (timeout(0), 10_800, true),
        (timeout(86_401), 10_800, true),
        (timeout(-5), 10_800, true),
    ] {
        let service = kept(spec.clone());
        assert_eq!(service.affinity_seconds, seconds, "{spec}");
        assert_eq!(!service.flaws.is_empty(), flawed, "{spec}");
    }
}

#[test]
fn a_policy_with_a_typo_is_cluster_and_named() {
    let service = kept(json!({"clusterIP": "10.0.0.1", "internalTrafficPolicy": "Local",
                              "externalTrafficPolicy": "local"}));
    assert_eq!((service.internal, service.external), (TrafficPolicy::Local, TrafficPolicy::Cluster));
    assert_eq!(flaws(&service), ["spec.externalTrafficPolicy"]);
}

#[test]
fn explicit_nulls_and_unknown_fields_are_fine() {
    let service = object(json!({
        "metadata": {"name": "web", "creationTimestamp": "2024-01-01T00:00:00Z", "labels": null,
                     "managedFields": [{"manager": "kubectl"}]},
        "spec": {"clusterIP": "10.0.0.1", "ports": null, "externalIPs": null, "selector": {"app": "web"}},
        "status": {"loadBalancer": {}},
    }))
    .expect("not skipped");
    assert_eq!(service.created, 1_704_067_200);
    assert!(service.flaws.is_empty());
}

/// ST-1: an entry that cannot be read is named, and remembered.
#[test]
fn source_ranges_are_kept_as_far_as_they_can_be_read() {
    let service =
        kept(json!({"clusterIP": "10.0.0.1", "loadBalancerSourceRanges": ["10.0.0.0/8", "fd00::/130"]}));
    let found = service.source_ranges.as_ref().expect("some are written");
    assert!(found.unreadable);
    assert_eq!(found.ranges.iter().map(ToString::to_string).collect::<Vec<_>>(), ["10.0.0.0/8"]);
    assert_eq!(kept(json!({"clusterIP": "10.0.0.1", "loadBalancerSourceRanges": []})).source_ranges, None);
    assert_eq!(flaws(&service), ["spec.loadBalancerSourceRanges[1]"]);
}

#[test]
fn a_name_without_room_in_the_tables_is_not_installed() {
    let service = object(json!({"metadata": {"name": "a".repeat(64)},
                                "spec": {"clusterIP": "10.0.0.1", "ports": [{"port": 80}]}}))
    .expect("not skipped");
    assert!(service.ports.is_empty());
    assert_eq!(flaws(&service), ["metadata.name"]);
}
