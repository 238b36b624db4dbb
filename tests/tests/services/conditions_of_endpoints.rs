//! The conditions of endpoints, set and unset, as sockets see them.

use std::fmt::{self, Display};

use sidestep_tests::{
    cluster,
    cluster::{Cluster, HTTP_PORT, at, service, slice, spread},
    eventually,
    manifest::Conditions,
    traffic::{Conversation, ask, connect, is_refused},
};

const VIP: &str = "10.96.0.10:80";
const READY: &str = "{ready: true, serving: true, terminating: false}";
const DRAINING: &str = "{ready: false, serving: true, terminating: true}";

/// A slice of the Service `web`, with literal conditions.
struct Slice<'a> {
    name: &'a str,
    /// Backends, each with its conditions.
    endpoints: &'a [(usize, &'a str)],
    cluster: &'a Cluster,
}

impl Display for Slice<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata:\n  name: {}",
            self.name
        )?;
        writeln!(
            f,
            "  namespace: default\n  labels: {{kubernetes.io/service-name: web}}\naddressType: IPv4"
        )?;
        writeln!(f, "ports: [{{name: http, protocol: TCP, port: {HTTP_PORT}}}]\nendpoints:")?;
        for (backend, conditions) in self.endpoints {
            let address = self.cluster.backends[*backend].place.v4;
            writeln!(f, "- {{addresses: [\"{address}\"], conditions: {conditions}}}")?;
        }
        Ok(())
    }
}

/// The endpoints that answer the client, sorted.
fn who(cluster: &Cluster) -> Vec<String> {
    cluster.client.run(|| spread(40, || ask(at(VIP)).map(|answer| answer.server))).into_keys().collect()
}

/// EP-4: unset conditions count as ready, as serving, and as not terminating.
#[test]
fn conditions_that_are_not_set_have_a_meaning() {
    let cluster = cluster!(3);
    let write = |endpoints: &[(usize, &str)]| {
        let slice = Slice { name: "web-1", endpoints, cluster: &cluster };
        cluster.lab.manifests().write("web-endpoints.yaml", &[&slice])
    };
    cluster.lab.manifests().write("web.yaml", &[&service("web", &["10.96.0.10"])]).expect("manifests");
    // Serving and not terminating, but not ready: never used. Terminating, but serving: a last resort.
    let (useless, last) = ((1, "{ready: false}"), (2, "{ready: false, terminating: true}"));
    write(&[(0, "{}"), useless, last]).expect("manifests");
    let _agent = cluster.lab.agent().expect("an agent");
    assert_eq!(who(&cluster), ["pod-0"], "an endpoint without conditions is not ready");

    write(&[useless, last]).expect("manifests");
    eventually("the last resort serves", || who(&cluster) == ["pod-2"]);
    write(&[useless]).expect("manifests");
    eventually("without the last resort the Service refuses", || {
        is_refused(&cluster.client.run(|| connect(at(VIP))))
    });
}

/// EP-6: an address that a new pod reuses while the former one terminates is an ordinary endpoint, whichever slice
/// comes first.
#[test]
fn an_address_that_is_used_again_serves_while_its_former_pod_terminates() {
    let cluster = cluster!(2);
    cluster.lab.manifests().write("web.yaml", &[&service("web", &["10.96.0.10"])]).expect("manifests");
    let write = |first: &str, second: &str| {
        let slice = |name, endpoints| Slice { name, endpoints, cluster: &cluster };
        let (first, second) = ([(0, first)], [(0, second), (1, READY)]);
        let (first, second) = (slice("web-1", &first), slice("web-2", &second));
        cluster.lab.manifests().write("web-endpoints.yaml", &[&first, &second])
    };
    write(DRAINING, READY).expect("manifests");
    let _agent = cluster.lab.agent().expect("an agent");
    assert_eq!(who(&cluster), ["pod-0", "pod-1"]);
    write(DRAINING, DRAINING).expect("manifests");
    eventually("both entries terminate", || who(&cluster) == ["pod-1"]);
    write(READY, DRAINING).expect("manifests");
    eventually("the first entry is the new pod's", || who(&cluster) == ["pod-0", "pod-1"]);
}

/// EP-9: with policy Local a terminating local endpoint precedes ready remote ones; when it is gone, its connections go
/// on (ST-4) and new ones are refused (PO-19).
#[test]
fn the_last_local_endpoint_serves_while_it_terminates() {
    let cluster = cluster!(2);
    let [here, there] = [0, 1].map(|number: usize| cluster.backends[number].place.v4);
    let local = service("web", &["10.96.0.10"]).internal_traffic_local();
    cluster.lab.manifests().write("web.yaml", &[&local]).expect("manifests");
    let write = |slice| cluster.endpoints("web", &slice).expect("manifests");
    write(slice("web").ready(here).ready(there));
    let _agent = cluster.lab.agent().expect("an agent");
    assert_eq!(who(&cluster), ["pod-0", "pod-1"]);
    let connection = || cluster.client.run(|| Conversation::with(at(VIP))).expect("a connection");
    let leaving = |conditions| slice("web").endpoint(here, conditions).on_node("another-node").ready(there);

    write(leaving(Conditions::DRAINING));
    eventually("only the terminating endpoint is local", || who(&cluster) == ["pod-0"]);
    let mut conversation = connection();
    assert_eq!(conversation.ask().expect("an answer").server, "pod-0");

    write(leaving(Conditions::GONE));
    eventually("no endpoint is local", || is_refused(&cluster.client.run(|| connect(at(VIP)))));
    assert_eq!(conversation.ask().expect("ST-4: the connection goes on").server, "pod-0");
}
