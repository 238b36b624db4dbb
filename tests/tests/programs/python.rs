//! Python's asyncio with one datagram endpoint, which is created and connected once.

use sidestep_tests::program;

use crate::trial::{Trial, WEB};

fn survives(how: &str) {
    let program = program!("python3");
    let Some(trial) = Trial::start() else { return };
    let source =
        trial.client.write("datagrams.py", include_str!("sources/datagrams.py")).expect("the source");
    trial.survives_in(program.command([source.as_os_str(), WEB.as_ref(), "53".as_ref(), how.as_ref()]));
}

#[test]
fn an_unconnected_socket_of_asyncio_outlives_its_endpoint_and_the_agent() {
    survives("unconnected");
}

/// ST-5.
#[test]
fn a_connected_socket_of_asyncio_outlives_its_endpoint_and_the_agent() {
    survives("connected");
}
