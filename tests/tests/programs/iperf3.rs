//! iperf3, with a server in each pod: a TCP connection controls the measurement, and TCP connections or UDP sockets carry
//! the data, in either direction.

use std::{thread::sleep, time::Duration};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use sidestep_tests::{container::Container, manifest::Protocol, program, program::Program};

use crate::trial::{OWN, Trial};

const PORT: u16 = 5201;

/// Options that each measurement has.
const ALWAYS: [&str; 3] = ["--client", OWN, "--json"];
/// About a quarter of a second each.
const TCP: &[&str] = &["--bytes", "3M", "--bitrate", "100M"];
const UDP: &[&str] = &["--bytes", "600K", "--bitrate", "20M", "--udp"];

fn trial(program: &Program) -> Option<Trial> {
    let trial = Trial::with_servers(&[(Protocol::Tcp, PORT), (Protocol::Udp, PORT)], |pod| {
        Ok(vec![pod.start(program.command(["--server"]))?])
    })?;
    trial.wait_for_endpoint(|client| answered(&trial, measure(program, client, TCP)));
    Some(trial)
}

/// No report names the pod; that of the endpoint is the only server that runs, or that was ever reachable.
fn answered(trial: &Trial, measured: Result<()>) -> Result<String> {
    measured.map(|()| trial.endpoint().place.name().to_owned())
}

/// Measures once; an error if iperf3 reports one, or if no data arrives.
fn measure(program: &Program, client: &Container, options: &[&str]) -> Result<()> {
    check(&client.output(program.command(ALWAYS.iter().chain(options)))?).map(drop)
}

/// The report, if it says that data arrived.
fn check(report: &str) -> Result<Value> {
    let report: Value = serde_json::from_str(report).with_context(|| report.to_owned())?;
    let end = &report["end"];
    let bytes = end["sum_received"]["bytes"].as_u64();
    // Of UDP the sum has what both sides counted.
    let datagrams = end["sum"]["packets"].as_i64().zip(end["sum"]["lost_packets"].as_i64());
    let arrived = bytes.is_some_and(|bytes| bytes > 0) || datagrams.is_some_and(|(sent, lost)| sent > lost);
    ensure!(arrived, "no data arrived: {end}");
    Ok(report)
}

#[test]
fn iperf3_measures_tcp_and_udp_in_both_directions() {
    let program = program!("iperf3");
    let Some(trial) = trial(&program) else { return };
    for protocol in [TCP, UDP] {
        for more in [&[][..], &["--reverse"], &["--parallel", "3"], &["--parallel", "3", "--reverse"]] {
            let options = [protocol, more].concat();
            measure(&program, &trial.client, &options)
                .unwrap_or_else(|error| panic!("{options:?}: {error:#}"));
        }
    }
}

#[test]
fn iperf3_outlives_its_endpoint_and_the_agent() {
    let program = program!("iperf3");
    let Some(mut trial) = trial(&program) else { return };
    trial.replace_endpoint();
    trial.wait_for_endpoint(|client| answered(&trial, measure(&program, client, UDP)));
    trial.agent.kill().expect("the agent is killed");
    for protocol in [TCP, UDP] {
        measure(&program, &trial.client, protocol).expect("a measurement without an agent");
    }
}

#[test]
fn measurements_in_progress_outlive_the_agent() {
    let program = program!("iperf3");
    for protocol in [&["--bitrate", "100M"][..], &["--bitrate", "20M", "--udp"]] {
        let Some(mut trial) = trial(&program) else { return };
        let options = [&ALWAYS[..], &["--time", "2"], protocol].concat();
        let measurement = trial.client.start(program.command(options)).expect("iperf3 starts");
        sleep(Duration::from_millis(700));
        trial.agent.kill().expect("the agent is killed");
        let report = measurement.wait().and_then(|report| check(&report)).expect("data arrives to the end");
        let intervals = report["intervals"].as_array().expect("intervals");
        let is_busy = |interval: &Value| interval["sum"]["bytes"].as_u64() > Some(0);
        assert!(intervals.len() >= 2 && intervals.iter().all(is_busy), "{report}");
    }
}
