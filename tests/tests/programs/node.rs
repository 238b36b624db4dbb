//! Node.js with one datagram socket, which is created and connected once.

use sidestep_tests::program;

use crate::trial::{Trial, WEB};

fn survives(how: &str) {
    let program = program!("node");
    let Some(trial) = Trial::start() else { return };
    let source =
        trial.client.write("datagrams.js", include_str!("sources/datagrams.js")).expect("the source");
    trial.survives_in(program.command([source.as_os_str(), WEB.as_ref(), "53".as_ref(), how.as_ref()]));
}

#[test]
fn an_unconnected_socket_of_node_outlives_its_endpoint_and_the_agent() {
    survives("unconnected");
}

/// ST-5.
#[test]
fn a_connected_socket_of_node_outlives_its_endpoint_and_the_agent() {
    survives("connected");
}
