//! glibc: `getent` calls its `getaddrinfo`, as most programs of a distribution do.

use anyhow::Result;
use sidestep_tests::{container::Container, program, program::Program};

use crate::lookup;

fn addresses(program: &Program, container: &Container, name: &str) -> Result<String> {
    // Without AI_ADDRCONFIG, so that addresses of a family that the pod lacks are sorted instead of left out.
    let text = container.output(program.command(["--no-addrconfig", "ahosts", name]))?;
    let streams = text.lines().filter(|line| line.contains("STREAM"));
    let addresses: Vec<&str> = streams.filter_map(|line| line.split_whitespace().next()).collect();
    Ok(addresses.join("\n"))
}

#[test]
fn glibc_outlives_its_endpoint_and_the_agent() {
    let program = program!("getent");
    lookup::survives(&|container, name| addresses(&program, container, name));
}

#[test]
fn glibc_skips_a_name_server_without_endpoints() {
    let program = program!("getent");
    lookup::skips_a_name_server_without_endpoints(&|container, name| addresses(&program, container, name));
}

#[test]
fn glibc_prefers_ipv4_in_a_pod_without_ipv6() {
    let program = program!("getent");
    lookup::prefers_ipv4_in_a_pod_without_ipv6(&|container, name| addresses(&program, container, name));
}
