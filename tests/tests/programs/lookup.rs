//! Rules for `getaddrinfo` and `nslookup` of every C library.

use anyhow::{Context as _, Result};
use sidestep_tests::{container::Container, name_server::ENDPOINT, topology::GATEWAY_V6};

use crate::trial::{EMPTY, NAMES, Trial, WEB};

/// Runs a program that prints the addresses of a name, one a line, in the order of `getaddrinfo`.
pub(crate) type Lookup<'a> = &'a dyn Fn(&Container, &str) -> Result<String>;

/// The scenario of [`Trial::survives`].
pub(crate) fn survives(lookup: Lookup<'_>) {
    let Some(trial) = Trial::start() else { return };
    trial.survives(|client| lookup(client, ENDPOINT));
}

/// The second name server is asked where the first one is a Service without endpoints.
pub(crate) fn skips_a_name_server_without_endpoints(lookup: Lookup<'_>) {
    let Some(trial) = Trial::start() else { return };
    let client = Container::new(&trial.cluster.lab, trial.client.place(), &[EMPTY, NAMES]);
    let client = client.expect("a container");
    let answer = lookup(&client, ENDPOINT).expect("an answer");
    assert!(trial.is_from_endpoint(&answer), "{answer}");
}

/// In a pod without IPv6 the IPv4 address of a Service is first.
///
/// `getaddrinfo` connects a UDP socket to each address of a name, at a port of its own choice, to learn which ones have a
/// route (RFC 6724, section 2).
pub(crate) fn prefers_ipv4_in_a_pod_without_ipv6(lookup: Lookup<'_>) {
    let Some(trial) = Trial::start() else { return };
    let place = trial.client.place();
    let without_v6 = format!("route del default via {GATEWAY_V6}\naddr del {}/64 dev eth0\n", place.v6);
    place.namespace().ip_batch(&without_v6).expect("the pod loses IPv6");
    for name in ["web.demo.svc", "web-global.demo.svc"] {
        let addresses = lookup(&trial.client, name).expect("addresses");
        let first = addresses.lines().next().context("no address").expect("an address");
        assert_eq!((addresses.lines().count(), first), (2, WEB), "{name}: {addresses}");
    }
}
