//! Programs that connect a UDP socket once and only write to it, as clients of statsd and syslog do.

use std::{
    thread::sleep,
    time::{Duration, Instant},
};

use sidestep_tests::{eventually, program};

use crate::trial::{Trial, WEB};

/// Longest time until datagrams arrive at the new endpoint.
const LIMIT: Duration = Duration::from_secs(2);

/// Calls `write` all the time, and waits until datagrams arrive: at the endpoint, at the one that replaces it, and without
/// an agent.
fn survives(mut trial: Trial, mut write: impl FnMut()) {
    let mut received = |trial: &Trial| {
        write();
        trial.endpoint().udp.requests()
    };
    eventually("the endpoint receives a datagram", || received(&trial) > 0);
    trial.replace_endpoint();
    let replaced = Instant::now();
    while received(&trial) == 0 {
        assert!(replaced.elapsed() < LIMIT, "the new endpoint received nothing within {LIMIT:?}");
        sleep(Duration::from_millis(5));
    }
    println!("first datagram at the new endpoint after {:?}", replaced.elapsed());
    trial.agent.kill().expect("the agent is killed");
    let before = received(&trial);
    eventually("the endpoint receives datagrams without an agent", || received(&trial) > before + 3);
}

/// Shell scripts write metrics to `/dev/udp`.
#[test]
fn a_bash_that_only_writes_outlives_its_endpoint_and_the_agent() {
    let program = program!("bash");
    let Some(mut trial) = Trial::start() else { return };
    let script = format!("exec 3>/dev/udp/{WEB}/53; while :; do echo 'a:1|c' >&3; sleep 0.02; done");
    trial.run_in_background(program.command(["-c", &script]));
    survives(trial, || ());
}

#[test]
fn a_logger_that_only_writes_outlives_its_endpoint_and_the_agent() {
    let program = program!("logger");
    let Some(trial) = Trial::start() else { return };
    let arguments = ["--udp", "--server", WEB, "--port", "53"];
    let mut writer = trial.client.start(program.command(arguments)).expect("logger starts");
    survives(trial, move || writer.write_line("a message").expect("logger reads its input"));
}
