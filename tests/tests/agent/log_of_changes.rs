//! The agent's log says which Services and endpoints were added, updated and removed.

use sidestep_tests::{
    Agent, cluster,
    cluster::{HTTP, HTTP_PORT},
    eventually,
    manifest::{Conditions, EndpointSlice, Protocol, Service},
};

/// Waits for a line of the log that contains all `parts` in this order.
fn says(agent: &Agent, parts: &[&str]) {
    eventually(&format!("a line with {parts:?}"), || {
        agent.log_tail().lines().any(|line| {
            let found = parts.iter().try_fold(line, |rest, part| Some(rest.split_once(part)?.1));
            found.is_some()
        })
    });
}

#[test]
fn the_log_names_added_updated_and_removed_services() {
    let cluster = cluster!(3);
    let service = |name: &str, ip: &str| Service::new(name, &[ip]).port(HTTP, Protocol::Tcp, 80);
    let slice = || EndpointSlice::new("web").port(HTTP, Protocol::Tcp, HTTP_PORT);
    let [a, b, c] = [0, 1, 2].map(|number| cluster.backends[number].place.v4);
    let manifests = cluster.lab.manifests();
    for number in 1..=3 {
        let name = format!("old-{number}");
        let service = service(&name, &format!("10.96.1.{number}"));
        manifests.write(&format!("{name}.yaml"), &[&service]).expect("manifests");
    }
    let agent = cluster.lab.agent().expect("an agent");
    says(&agent, &["all Services are installed", "services=3"]);
    assert!(
        !agent.log_tail().contains(" added"),
        "the first plan is more than one line:\n{}",
        agent.log_tail()
    );

    manifests.write("web.yaml", &[&service("web", "10.96.0.10")]).expect("manifests");
    let web = "service=default/web:http/TCP";
    says(&agent, &["added", web, "frontends=[10.96.0.10:80/TCP ClusterIP]", "endpoints=[]", "no-endpoints"]);
    cluster.endpoints("web", &slice().ready(a).ready(b)).expect("manifests");
    let added = format!("endpoints_added=[{a}:{HTTP_PORT}, {b}:{HTTP_PORT}]");
    says(&agent, &["updated", web, &added, "endpoints=2"]);
    cluster
        .endpoints("web", &slice().ready(b).endpoint(a, Conditions::DRAINING).ready(c))
        .expect("manifests");
    let (added, draining) =
        (format!("endpoints_added=[{c}:{HTTP_PORT}]"), format!("draining=[{a}:{HTTP_PORT}]"));
    says(&agent, &["updated", web, &added, &draining, "endpoints=2"]);
    cluster.endpoints("web", &slice().ready(c)).expect("manifests");
    says(&agent, &["updated", web, &format!("endpoints_removed=[{b}:{HTTP_PORT}]"), "endpoints=1"]);
    manifests.write("web.yaml", &[&service("web", "10.96.0.11")]).expect("manifests");
    let moved =
        ["frontends_added=[10.96.0.11:80/TCP ClusterIP]", "frontends_removed=[10.96.0.10:80/TCP ClusterIP]"];
    says(&agent, &["updated", web, moved[0], moved[1], "endpoints=1"]);
    manifests.remove("web.yaml").expect("removal");
    says(&agent, &["removed", web, "frontends=[10.96.0.11:80/TCP ClusterIP]"]);
}
