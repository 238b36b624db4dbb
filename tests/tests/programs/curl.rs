//! curl, which connects to a Service by its name.

use anyhow::Result;
use sidestep_tests::{container::Container, program, program::Program};

use crate::trial::Trial;

/// curl's exit status where it cannot connect.
const CANNOT_CONNECT: &str = "exit status: 7";

/// The body of the answer to one request.
pub(crate) fn curl(program: &Program, client: &Container, arguments: &[&str]) -> Result<String> {
    let always = ["--silent", "--show-error", "--fail", "--max-time", "2"];
    client.output(program.command(always.iter().chain(arguments)))
}

#[test]
fn curl_outlives_its_endpoint_and_the_agent() {
    let program = program!("curl");
    let Some(trial) = Trial::start() else { return };
    trial.survives(|client| curl(&program, client, &["http://web.demo.svc/"]));
}

#[test]
fn curl_outlives_its_endpoint_and_the_agent_in_ipv6() {
    let program = program!("curl");
    let Some(trial) = Trial::start() else { return };
    trial.survives(|client| curl(&program, client, &["--ipv6", "http://web-v6.demo.svc/"]));
}

/// PO-13.
#[test]
fn curl_is_refused_at_a_port_that_the_service_does_not_have() {
    let program = program!("curl");
    let Some(trial) = Trial::start() else { return };
    let refused = curl(&program, &trial.client, &["http://web.demo.svc:81/"]).expect_err("a refusal");
    assert!(refused.to_string().contains(CANNOT_CONNECT), "{refused}");
}
