//! redis-cli, with a redis-server in each pod.

use std::time::Duration;

use anyhow::{Context as _, Result};
use sidestep_tests::{container::Container, manifest::Protocol, program, program::Program};

use crate::trial::{OWN, Trial};

const PORT: u16 = 6379;

fn trial(server: &Program, client: &Program) -> Option<Trial> {
    let trial = Trial::with_servers(&[(Protocol::Tcp, PORT)], |pod| {
        let arguments = ["--save", "", "--appendonly", "no", "--protected-mode", "no", "--bind", "* -::*"];
        Ok(vec![pod.start(server.command(arguments))?])
    })?;
    trial.wait_for_endpoint(|pod| ask(client, pod));
    Some(trial)
}

fn ask(program: &Program, client: &Container) -> Result<String> {
    server_of(&client.output(program.command(["-h", OWN, "client", "info"]))?)
}

/// The server's address of a connection, from the output of `CLIENT INFO`.
fn server_of(line: &str) -> Result<String> {
    let end = line.split_whitespace().find_map(|word| word.strip_prefix("laddr="));
    let (address, _) = end.and_then(|end| end.rsplit_once(':')).with_context(|| format!("{line:?}"))?;
    Ok(address.to_owned())
}

#[test]
fn redis_cli_outlives_its_endpoint_and_the_agent() {
    let (server, program) = (program!("redis-server"), program!("redis-cli"));
    let Some(trial) = trial(&server, &program) else { return };
    trial.survives(|client| ask(&program, client));
}

/// ST-4: the connection stays with its endpoint as long as that one runs. redis-cli connects again by itself.
#[test]
fn redis_cli_with_one_connection_outlives_its_endpoint_and_the_agent() {
    let (server, program) = (program!("redis-server"), program!("redis-cli"));
    let Some(trial) = trial(&server, &program) else { return };
    let mut session = trial.client.start(program.command(["-h", OWN])).expect("redis-cli starts");
    trial.survives(move |_| server_of(&session.ask("client info", Duration::from_secs(1))?));
}
