//! The agent's HTTP endpoints: health, health check node ports, and metrics.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    thread,
    time::Duration,
};

use sidestep_tests::{
    Agent, cluster,
    cluster::{Cluster, at, service, slice},
    eventually,
    eventually::wait_for,
    report::Report,
    topology::{NODE_V4, NODE_V6},
    traffic::{ask, is_refused},
};

/// A GET request; returns the whole response, or nothing if no server listens.
pub(crate) fn get(address: SocketAddr, path: &str) -> Option<String> {
    let mut stream = TcpStream::connect(address).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(10))).ok()?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: node\r\nConnection: close\r\n\r\n").ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    Some(answer)
}

fn status(answer: Option<&String>) -> Option<u16> {
    answer?.split(' ').nth(1)?.parse().ok()
}

const TAINTED: &str = "apiVersion: v1
kind: Node
metadata: {name: lab-node}
spec: {taints: [{key: ToBeDeletedByClusterAutoscaler, effect: NoSchedule}]}
status: {addresses: [{type: InternalIP, address: 192.0.2.10}, {type: InternalIP, address: '2001:db8:192::10'}]}
";

const LOAD_BALANCER: &str = "apiVersion: v1
kind: Service
metadata: {name: web, namespace: default}
spec:
  type: LoadBalancer
  clusterIP: 10.96.0.10
  clusterIPs: [10.96.0.10, 'fd00:10:96::10']
  ipFamilies: [IPv4, IPv6]
  externalTrafficPolicy: Local
  healthCheckNodePort: 32000
  ports: [{name: http, port: 80, protocol: TCP}, {name: dns, port: 53, protocol: UDP}]
";

/// HE-1, HE-2: `/healthz` reports a node that is about to be removed, to load balancers; `/livez`, to the kubelet, does
/// not.
#[test]
fn health_follows_the_node() {
    let cluster = cluster!(0);
    let _agent = cluster.lab.agent().expect("an agent");
    let outside = cluster.lab.other_node();
    let health = |path: &str| outside.run(|| get(SocketAddr::from((NODE_V4, 10256)), path));
    eventually("healthy", || status(health("/healthz").as_ref()) == Some(200));
    let answer = health("/healthz").expect("an answer");
    assert!(answer.contains("200 OK") && answer.contains("lastUpdated"), "{answer}");

    cluster.lab.manifests().write_text("node.yaml", TAINTED).expect("manifests");
    eventually("/healthz fails for a node to be removed", || {
        status(health("/healthz").as_ref()) == Some(503)
    });
    assert_eq!(status(health("/livez").as_ref()), Some(200));

    // After the Node is deleted, its last state counts.
    cluster.lab.manifests().write("node.yaml", &[&sidestep_tests::manifest::Node::lab()]).expect("manifests");
    eventually("/healthz succeeds again", || status(health("/healthz").as_ref()) == Some(200));
    cluster.lab.manifests().remove("node.yaml").expect("removed");
    thread::sleep(Duration::from_millis(500));
    assert_eq!(status(health("/healthz").as_ref()), Some(200));
}

/// HE-3: each family has a health check node port. It reports the number of ready local endpoints, and closes with the
/// Service.
#[test]
fn health_check_node_ports_count_local_endpoints() {
    let cluster = cluster!(2);
    let manifests = cluster.lab.manifests();
    manifests.write_text("web.yaml", LOAD_BALANCER).expect("manifests");
    let [a, b] = [0, 1].map(|number: usize| cluster.backends[number].place.v4);
    cluster.endpoints("web", &slice("web").ready(a).ready(b)).expect("manifests");
    let _agent = cluster.lab.agent().expect("an agent");
    let outside = cluster.lab.other_node();
    let asked = |address: SocketAddr| outside.run(|| get(address, "/healthz"));
    let (v4, v6) = (SocketAddr::from((NODE_V4, 32000)), SocketAddr::from((NODE_V6, 32000)));
    eventually("two endpoints are local", || status(asked(v4).as_ref()) == Some(200));
    let answer = asked(v4).expect("an answer");
    assert!(answer.contains("x-load-balancing-endpoint-weight: 2"), "{answer}");
    assert!(answer.contains("\"localEndpoints\":2"), "{answer}");
    assert_eq!(status(asked(v6).as_ref()), Some(503), "no IPv6 endpoint is local");

    cluster.endpoints("web", &slice("web").on_node("another-node").ready(a).ready(b)).expect("manifests");
    eventually("no endpoint is local", || status(asked(v4).as_ref()) == Some(503));
    manifests.remove("web.yaml").expect("removed");
    eventually("the ports are closed", || asked(v4).is_none() && asked(v6).is_none());
}

/// HE-4: metrics of each Service, and the metric names of kube-proxy's dashboards.
#[test]
fn metrics_count_what_happened_to_each_service() {
    let cluster = cluster!(2);
    cluster.serve("web", &service("web", &["10.96.0.10"])).expect("manifests");
    cluster.lab.manifests().write("empty.yaml", &[&service("empty", &["10.96.0.99"])]).expect("manifests");
    let sticky = service("sticky", &["10.96.0.20"]).client_ip_affinity(600);
    cluster.serve("sticky", &sticky).expect("manifests");
    let _agent = cluster.lab.agent().expect("an agent");
    cluster.client.run(|| {
        (0..4).for_each(|_| drop(ask(at("10.96.0.20:80")).expect("an answer")));
        (0..5).for_each(|_| drop(ask(at("10.96.0.10:80")).expect("an answer")));
        assert!(ask(at("10.96.0.99:80")).is_err());
    });
    let metrics = metrics(&cluster);
    let of = |metric: &str, service: &str, port: &str, protocol: &str| {
        format!(
            "{metric}{{namespace=\"default\",service=\"{service}\",port=\"{port}\",protocol=\"{protocol}\",ip_family=\"IPv4\"}}"
        )
    };
    for (name, value) in [
        (of("sidestep_service_connections_total", "web", "http", "TCP"), "5"),
        (of("sidestep_service_connections_total", "web", "dns", "UDP"), "0"),
        (of("sidestep_service_connections_total", "sticky", "http", "TCP"), "4"),
        (of("sidestep_service_affinity_hits_total", "sticky", "http", "TCP"), "3"),
        (of("sidestep_service_affinity_hits_total", "web", "http", "TCP"), "0"),
        (
            of("sidestep_service_refusals_total", "empty", "http", "TCP")
                .replace('}', ",reason=\"no-endpoints\"}"),
            "1",
        ),
        (of("sidestep_service_endpoints", "web", "http", "TCP"), "2"),
        (of("sidestep_service_endpoints", "empty", "http", "TCP"), "0"),
        ("sidestep_table_entries{table=\"services\"}".into(), "6"),
        ("sidestep_table_entries{table=\"frontends\"}".into(), "6"),
        ("sidestep_table_entries{table=\"endpoints\"}".into(), "8"),
        ("sidestep_refusals_total{reason=\"no-endpoints\"}".into(), "1"),
        ("sidestep_problems".into(), "0"),
        ("sidestep_synced".into(), "1"),
        ("kubeproxy_sync_proxy_rules_duration_seconds_count{ip_family=\"IPv4\"}".into(), "1"),
        ("kubeproxy_sync_proxy_rules_service_changes_total".into(), "3"),
        ("kubeproxy_sync_proxy_rules_service_changes_pending".into(), "0"),
        ("kubeproxy_sync_proxy_rules_endpoint_changes_pending".into(), "0"),
        ("kubeproxy_sync_proxy_rules_no_local_endpoints_total{traffic_policy=\"internal\"}".into(), "0"),
    ] {
        let line = format!("{name} {value}\n");
        assert!(metrics.contains(&line), "no line {line}in\n{metrics}");
    }
}

/// A Service counts as without local endpoints only for the policies that are Local.
#[test]
fn services_without_local_endpoints_are_counted_by_policy() {
    let cluster = cluster!(1);
    let elsewhere = |name: &str| slice(name).on_node("another-node").ready(cluster.backends[0].place.v4);
    let manifests = cluster.lab.manifests();
    manifests
        .write("in.yaml", &[&service("in", &["10.96.0.30"]).internal_traffic_local()])
        .expect("manifests");
    let out = service("out", &["10.96.0.31"]).external_ip([198, 51, 100, 31]).external_traffic_local();
    manifests.write("out.yaml", &[&out]).expect("manifests");
    cluster.endpoints("in", &elsewhere("in")).expect("manifests");
    cluster.endpoints("out", &elsewhere("out")).expect("manifests");
    let _agent = cluster.lab.agent().expect("an agent");
    let metrics = metrics(&cluster);
    for policy in ["internal", "external"] {
        // Each has a TCP and a UDP port.
        let line =
            format!("kubeproxy_sync_proxy_rules_no_local_endpoints_total{{traffic_policy=\"{policy}\"}} 2\n");
        assert!(metrics.contains(&line), "no line {line}in\n{metrics}");
    }
}

/// A Service that reuses another one's index in the tables does not inherit its counts.
#[test]
fn a_service_begins_to_count_at_zero() {
    let cluster = cluster!(0);
    let manifests = cluster.lab.manifests();
    let capacity = ["--max-services", "16"];
    let agent = Agent::reading(&cluster.lab).arguments(capacity);
    let _agent = agent.started(&cluster.lab).expect("an agent");
    for number in 1..=40 {
        let (name, address) = (format!("empty-{number}"), at(&format!("10.96.2.{number}:80")));
        let service = service(&name, &[&address.ip().to_string()]);
        manifests.write("empty.yaml", &[&service]).expect("manifests");
        cluster.client.run(|| eventually("refused", || is_refused(&ask(address))));
        // Before the Service was installed, its address was unreachable, not refused.
        let line = format!(
            "service=\"{name}\",port=\"http\",protocol=\"TCP\",ip_family=\"IPv4\",reason=\"no-endpoints\"}} 1\n"
        );
        let metrics = metrics(&cluster);
        assert!(metrics.contains(&line), "no line {line}in\n{metrics}");
    }
}

/// The network programming latency counts from the endpoints controller's annotation.
#[test]
fn network_programming_time_counts_from_the_trigger() {
    let cluster = cluster!(1);
    cluster.serve("web", &service("web", &["10.96.0.10"])).expect("manifests");
    let _agent = cluster.lab.agent().expect("an agent");
    let count = "kubeproxy_network_programming_duration_seconds_count";
    assert!(metrics(&cluster).contains(&format!("{count} 0\n")));
    // A trigger time in the future is later than the agent's start.
    let slice = slice("web").ready(cluster.backends[0].place.v4).to_string();
    let annotated = slice.replace(
        "metadata:\n",
        "metadata:\n  annotations: {endpoints.kubernetes.io/last-change-trigger-time: '2999-01-01T00:00:00.5Z'}\n",
    );
    cluster
        .lab
        .manifests()
        .write_text("more.yaml", &annotated.replace("web-ipv4", "web-more"))
        .expect("manifests");
    eventually("the metric counts one change", || metrics(&cluster).contains(&format!("{count} 1\n")));
}

/// CF-17: a change of the configuration file ends the agent with success; the report names unknown fields (CF-6).
#[test]
fn a_change_of_the_configuration_ends_the_agent() {
    let cluster = cluster!(0);
    let file = cluster.lab.run_directory().join("kube-proxy.conf");
    let text = "apiVersion: kubeproxy.config.k8s.io/v1alpha1\nkind: KubeProxyConfiguration\n\
                hostnameOverride: LAB-NODE\nhealthzBindAddress: 127.0.0.1:10300\nfoo: bar\n";
    fs::write(&file, text).expect("written");
    let (manifests, path) = (cluster.lab.manifests(), file.to_str().expect("a path"));
    let arguments = ["run", "--config", path, "--manifests", manifests.directory().to_str().expect("a path")];
    thread::scope(|scope| {
        let run = scope.spawn(|| cluster.lab.sidestep(&arguments).expect("the agent runs"));
        let directory = cluster.lab.run_directory();
        let limit = Duration::from_secs(20);
        let synced = wait_for(limit, "synced", || Report::read(&directory).is_ok_and(|report| report.synced));
        let report = Report::read(&directory);
        let health = cluster.lab.node().run(|| get(at("127.0.0.1:10300"), "/healthz"));
        // End the agent even if it did not sync.
        fs::write(&file, format!("{text}oomScoreAdj: 0\n")).expect("written");
        let output = run.join().expect("it ends");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        synced.expect("synced");
        assert_eq!(status(health.as_ref()), Some(200), "{health:?}");
        assert!(report.expect("a report").names("kube-proxy.conf", "foo"));
    });
}

/// The response to a scrape on the node.
fn metrics(cluster: &Cluster) -> String {
    cluster.lab.node().run(|| get(at("127.0.0.1:10249"), "/metrics")).expect("metrics")
}
