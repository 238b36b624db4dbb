//! dnsmasq as a cache in front of the cluster's DNS: it forwards from unconnected UDP sockets.

use sidestep_tests::{name_server::ENDPOINT, program};

use crate::{
    dig::dig,
    trial::{NAMES, Trial},
};

#[test]
fn dnsmasq_outlives_its_endpoint_and_the_agent() {
    let (program, client_program) = (program!("dnsmasq"), program!("dig"));
    let Some(mut trial) = Trial::start() else { return };
    let upstream = format!("--server={NAMES}");
    let arguments = [
        "--keep-in-foreground",
        "--conf-file=/dev/null",
        "--pid-file=",
        "--user=root",
        "--no-resolv",
        "--no-hosts",
        "--cache-size=0",
        "--listen-address=127.0.0.1",
        "--bind-interfaces",
        &upstream,
    ];
    trial.run_in_background(program.command(arguments));
    let ask = |client: &_| dig(&client_program, client, "127.0.0.1", &[ENDPOINT, "A"]);
    trial.wait_for_endpoint(ask);
    trial.survives(ask);
}
