//! `status` tells an agent that never ran from one that starts, runs, was stopped, failed, or is dead.

use std::time::Duration;

use sidestep_tests::{
    Agent, cluster,
    cluster::{at, service},
    eventually,
    traffic::ask,
};

use super::status;

#[test]
fn status_tells_each_state_of_the_agent_by_name() {
    let cluster = cluster!(1);
    let lab = &cluster.lab;
    cluster.serve("web", &service("web", &["10.96.0.10"])).expect("manifests");
    let says = |words: &str| {
        let text = status(lab);
        assert!(text.contains(words), "{words}: {text}");
    };
    says("`sidestep run` has not run on this node");

    // Nobody answers at this address: it starts for ever.
    let mut waiting = Agent::at(lab, "http://127.0.0.1:9");
    waiting.launch(lab).expect("an agent");
    eventually("it is starting", || status(lab).contains(": starting, still reading"));
    eventually("it says what it waits for", || status(lab).contains("watch of Services: API server: "));
    waiting.stop().expect("it stops");
    says("was stopped; Services stay as they are");

    let mut agent = lab.agent().expect("an agent");
    says(": in sync");
    agent.kill().expect("kill -9");
    says("is dead (killed, or crashed); Services stay as they are");
    cluster.client.run(|| ask(at("10.96.0.10:80"))).expect("an answer");

    let mut failing = Agent::at(lab, "10.0.0.1:6443");
    failing.launch(lab).expect("an agent");
    let status = failing.wait_for_end(Duration::from_secs(10)).expect("it ends");
    assert_eq!(status.code(), Some(1));
    says("ended with: ");
    says("10.0.0.1:6443");
}
