//! busybox, statically linked: an nslookup with a resolver of its own, and wget.

use anyhow::{Context as _, Result};
use sidestep_tests::{container::Container, name_server::ENDPOINT, program, program::Program};

use crate::{
    lookup,
    trial::{NAMES, Trial},
};

/// The address in the answer, which follows the one of the name server.
fn nslookup(program: &Program, container: &Container, arguments: &[&str]) -> Result<String> {
    let text =
        container.output(program.command(["nslookup", "-timeout=1", "-type=a"].iter().chain(arguments)))?;
    let answer = text.split_once("\n\n").map(|(_, answer)| answer);
    let address = answer.and_then(|answer| answer.lines().find_map(|line| line.strip_prefix("Address: ")));
    address.map(str::to_owned).with_context(|| format!("no address in {text:?}"))
}

#[test]
fn nslookup_outlives_its_endpoint_and_the_agent() {
    let program = program!("busybox");
    let Some(trial) = Trial::start() else { return };
    trial.survives(|client| nslookup(&program, client, &[ENDPOINT, &NAMES.to_string()]));
}

/// It exits if it cannot connect a UDP socket to a name server.
#[test]
fn nslookup_skips_a_name_server_without_endpoints() {
    let program = program!("busybox");
    lookup::skips_a_name_server_without_endpoints(&|container, name| nslookup(&program, container, &[name]));
}

#[test]
fn wget_outlives_its_endpoint_and_the_agent() {
    let program = program!("busybox");
    let Some(trial) = Trial::start() else { return };
    // Its option for a timeout is left out: with it, the wget of bookworm crashes.
    let arguments = ["wget", "-q", "-O", "-", "http://web.demo.svc/"];
    trial.survives(|client| client.output(program.command(arguments)));
}
