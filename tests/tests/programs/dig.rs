//! dig, which opens a socket for each query: a connected one over UDP.

use anyhow::Result;
use sidestep_tests::{
    container::Container,
    name_server::{ENDPOINT, LONG},
    program,
    program::Program,
};

use crate::trial::{NAMES, NAMES_V6, Trial};

/// Sends one query, once, and returns the data of its answer.
pub(crate) fn dig(program: &Program, container: &Container, server: &str, query: &[&str]) -> Result<String> {
    let server = format!("@{server}");
    let arguments = ["+short", "+tries=1", "+time=1", &server];
    container.output(program.command(arguments.iter().chain(query)))
}

#[test]
fn dig_outlives_its_endpoint_and_the_agent() {
    let program = program!("dig");
    let Some(trial) = Trial::start() else { return };
    trial.survives(|client| dig(&program, client, &NAMES.to_string(), &[ENDPOINT, "A"]));
}

#[test]
fn dig_outlives_its_endpoint_and_the_agent_in_ipv6() {
    let program = program!("dig");
    let Some(trial) = Trial::start() else { return };
    trial.survives(|client| dig(&program, client, NAMES_V6, &[ENDPOINT, "AAAA"]));
}

#[test]
fn dig_outlives_its_endpoint_and_the_agent_over_tcp() {
    let program = program!("dig");
    let Some(trial) = Trial::start() else { return };
    trial.survives(|client| dig(&program, client, &NAMES.to_string(), &["+tcp", ENDPOINT, "A"]));
}

#[test]
fn a_truncated_answer_is_fetched_over_tcp() {
    let program = program!("dig");
    let Some(trial) = Trial::start() else { return };
    let lines = |query: &[&str]| {
        let answer = dig(&program, &trial.client, &NAMES.to_string(), query).expect("an answer");
        answer.lines().count()
    };
    assert_eq!(lines(&[LONG, "TXT"]), 10);
    assert_eq!(lines(&["+ignore", LONG, "TXT"]), 0, "over UDP alone the answer is empty");
}
