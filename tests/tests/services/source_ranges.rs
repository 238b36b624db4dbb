//! `loadBalancerSourceRanges`: a LoadBalancer IP restricted to some clients, for clients on the node.

use std::{
    net::{IpAddr, SocketAddr},
    sync::atomic::{AtomicBool, AtomicU32, Ordering},
    time::{Duration, Instant},
};

use proxy_agent::dataplane::cannot_restrict;
use sidestep_tests::{
    Agent, Place, bpftool, cluster as new_cluster,
    cluster::{Cluster, DNS, HTTP, at},
    eventually,
    manifest::{Protocol, Service},
    skip,
    topology::{GATEWAY_V4, NODE_V4, pod_v4, pod_v6},
    traffic::{Asker, Conversation, ask, connect, is_refused},
};
use socket2::{Domain, Socket, Type};

const VIPS: [&str; 3] = ["203.0.113.7", "[2001:db8:203::7]", "[::ffff:203.0.113.7]"];
const OPEN: [&str; 4] = ["10.96.0.10", "[fd00:10:96::10]", "198.51.100.7", "[2001:db8:198::7]"];

/// Ranges that contain exactly the lab's first pod, the client.
const CLIENT: [&str; 2] = ["10.244.1.10/32", "fd00:10:244:1::10/128"];
/// Every pod.
const PODS: [&str; 2] = ["10.244.1.0/24", "fd00:10:244:1::/64"];

fn service(ranges: &[&str]) -> Service {
    Service::new("web", &["10.96.0.10", "fd00:10:96::10"])
        .port(HTTP, Protocol::Tcp, 80)
        .node_port(30080)
        .port(DNS, Protocol::Udp, 53)
        .external_ip([198, 51, 100, 7])
        .external_ip([0x2001, 0xdb8, 0x198, 0, 0, 0, 0, 7])
        .load_balancer([203, 0, 113, 7], "VIP")
        .load_balancer([0x2001, 0xdb8, 0x203, 0, 0, 0, 0, 7], "VIP")
        .source_ranges(ranges)
}

fn restrict(cluster: &Cluster, ranges: &[&str]) {
    cluster.serve("web", &service(ranges)).expect("manifests");
}

fn start(cluster: &Cluster, ranges: &[&str]) -> Agent {
    assert_eq!(cluster.client.addresses(), [IpAddr::from(pod_v4(10)), pod_v6(10).into()]);
    restrict(cluster, ranges);
    cluster.lab.agent().expect("an agent")
}

fn tcp(ip: &str) -> SocketAddr {
    at(&format!("{ip}:80"))
}

fn udp(ip: &str) -> SocketAddr {
    at(&format!("{ip}:53"))
}

/// Asserts that every kind of socket at `place` gets answers from these addresses.
fn assert_served(place: &Place, ips: &[&str]) {
    for ip in ips {
        place.run(|| {
            assert!(ask(tcp(ip)).is_ok(), "TCP to {ip} from {}: {:?}", place.name(), ask(tcp(ip)));
            let asker = Asker::for_address(udp(ip)).expect("a socket");
            assert_eq!(asker.ask(udp(ip)).expect("an answer").1, udp(ip), "sendto {ip}");
            let asker = Asker::for_address(udp(ip)).expect("a socket");
            asker.connect(udp(ip)).expect("connect");
            asker.ask_peer().expect("an answer");
        });
    }
}

/// Asserts that these addresses refuse every kind of socket at `place`.
fn assert_refused(place: &Place, ips: &[&str]) {
    for ip in ips {
        place.run(|| {
            let who = place.name();
            assert!(is_refused(&connect(tcp(ip))), "TCP to {ip} from {who}: {:?}", connect(tcp(ip)));
            let asker = Asker::for_address(udp(ip)).expect("a socket");
            assert!(is_refused(&asker.ask(udp(ip))), "sendto {ip} from {who}");
            assert!(is_refused(&asker.connect(udp(ip))), "UDP connect to {ip} from {who}");
        });
    }
}

fn is_served(place: &Place, ip: &str) -> bool {
    place.run(|| ask(tcp(ip)).is_ok())
}

/// ST-1: TCP and UDP, IPv4, IPv6 and v4-mapped; pods and processes of the node. ClusterIP, external IP and NodePort of
/// the same Service admit all clients.
#[test]
fn only_clients_in_a_range_reach_a_load_balancer_ip() {
    if let Some(why) = cannot_restrict().expect("the kernel answers") {
        skip!("{why}");
    }
    let cluster = new_cluster!(2);
    let other = cluster.lab.pod("second").expect("a pod");
    let agent = start(&cluster, &CLIENT);
    assert_served(&cluster.client, &VIPS);
    for place in [&other, cluster.lab.node()] {
        assert_refused(place, &VIPS);
        assert_served(place, &OPEN);
        place.run(|| ask((NODE_V4, 30080).into())).expect("an answer");
    }
    let status = cluster.lab.sidestep(&["status"]).expect("status");
    let status = String::from_utf8_lossy(&status.stdout).into_owned();
    assert!(status.contains("LoadBalancer only from 10.244.1.10/32"), "{status}");
    assert!(status.contains("source-not-in-ranges"), "{status}");
    assert!(!status.contains("client-unknown"), "a client was unknown: {status}");
    assert!(agent.report().expect("a report").problems.is_empty());
}

/// ST-1: ranges of one family do not restrict the other; a malformed range admits no client, and is reported.
#[test]
fn families_are_restricted_separately() {
    let cluster = new_cluster!(1);
    let agent = start(&cluster, &["192.0.2.99/32"]);
    assert_refused(&cluster.client, &[VIPS[0], VIPS[2]]);
    assert_served(&cluster.client, &[VIPS[1]]);
    restrict(&cluster, &["10.244.1.0/24", "10.244.1.0/42"]);
    eventually("the new ranges are installed", || is_served(&cluster.client, VIPS[0]));
    assert_refused(&cluster.client, &[VIPS[1]]);
    eventually("the report", || {
        agent.report().is_ok_and(|report| report.names("default/web", "spec.loadBalancerSourceRanges[1]"))
    });
}

/// ST-1, ST-8: a process of the node counts by the node's address, or by the address that its socket is bound to. A
/// LoadBalancer IP that is an address of the node counts like the node's address.
#[test]
fn processes_of_the_node_are_admitted_by_the_nodes_address() {
    let cluster = new_cluster!(1);
    let node = cluster.lab.node();
    let _agent = start(&cluster, &["192.0.2.10/32", "2001:db8:192::10/128"]);
    assert_served(node, &VIPS);
    assert_refused(&cluster.client, &VIPS);
    let bound = |ip: IpAddr| {
        node.run(|| {
            let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
            socket.bind(&SocketAddr::new(ip, 0).into()).expect("bind");
            socket.connect(&tcp(VIPS[0]).into())
        })
    };
    bound(NODE_V4.into()).expect("a connection");
    assert!(is_refused(&bound(GATEWAY_V4.into())), "an address of the node outside the ranges is admitted");

    node.namespace().ip_batch("addr add 203.0.113.7/32 dev uplink\n").expect("an address");
    bound([203, 0, 113, 7].into()).expect("a connection");
    assert_served(node, &[VIPS[0]]);
    // Having the LoadBalancer IP as an address does not admit other clients.
    restrict(&cluster, &["10.244.1.0/24"]);
    eventually("the new ranges are installed", || is_served(&cluster.client, VIPS[0]));
    assert!(is_refused(&bound([203, 0, 113, 7].into())));
}

/// ST-1: while ranges change under traffic, clients that both the old and the new ranges admit never fail, and clients
/// that neither admits are always refused. Established connections go on.
#[test]
fn a_change_of_ranges_rejects_and_admits_no_client_by_mistake() {
    let cluster = new_cluster!(2);
    let sometimes = cluster.lab.pod("sometimes").expect("a pod");
    let _agent = start(&cluster, &PODS);
    let mut conversation =
        sometimes.run(|| Conversation::with(tcp(VIPS[0]))).expect("a connection while it was allowed");
    let (over, always, never) = (AtomicBool::new(false), AtomicU32::new(0), AtomicU32::new(0));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            cluster.client.run(|| {
                while !over.load(Ordering::Relaxed) {
                    ask(tcp(VIPS[0])).expect("both ranges admit the client");
                    always.fetch_add(1, Ordering::Relaxed);
                }
            });
        });
        scope.spawn(|| {
            cluster.lab.node().run(|| {
                while !over.load(Ordering::Relaxed) {
                    assert!(
                        is_refused(&connect(tcp(VIPS[0]))),
                        "the node, which neither range admits, was served"
                    );
                    never.fetch_add(1, Ordering::Relaxed);
                }
            });
        });
        for round in 0..10 {
            let (ranges, open) = if round % 2 == 0 { (&CLIENT, false) } else { (&PODS, true) };
            restrict(&cluster, ranges);
            eventually("the new ranges are installed", || is_served(&sometimes, VIPS[0]) == open);
        }
        over.store(true, Ordering::Relaxed);
    });
    println!("{always:?} connections that are always allowed, {never:?} that never are");
    restrict(&cluster, &CLIENT);
    eventually("the new ranges are installed", || !is_served(&sometimes, VIPS[0]));
    conversation.ask().expect("an established connection goes on");

    restrict(&cluster, &[]);
    eventually("the ranges are removed", || is_served(cluster.lab.node(), VIPS[0]));
    for place in [&sometimes, &cluster.client, cluster.lab.node()] {
        assert_served(place, &VIPS);
    }
    let pins = cluster.lab.pin_directory().join("v1");
    let dump = |map: &str| bpftool::json(&["map", "dump", "pinned", pins.join(map).to_str().expect("UTF-8")]);
    eventually("CLIENTS is empty", || dump("CLIENTS").is_ok_and(|all| all == serde_json::json!([])));
}

/// Ranges stay in force without an agent; a new agent adopts them, writes only differences, and removes unused sets.
#[test]
fn a_restarted_agent_keeps_the_ranges() {
    let cluster = new_cluster!(1);
    let other = cluster.lab.pod("second").expect("a pod");
    let mut agent = start(&cluster, &CLIENT);
    let pins = cluster.lab.pin_directory().join("v1");
    let dump = |map: &str| {
        bpftool::json(&["map", "dump", "pinned", pins.join(map).to_str().expect("UTF-8")]).expect("a dump")
    };
    let ranges = dump("SOURCE_RANGES");
    // A port of TCP and one of UDP in each family.
    assert_eq!(ranges.as_array().map(Vec::len), Some(4), "{ranges}");
    let key = &ranges[0]["formatted"]["key"];
    assert!(
        key["prefix_len"].is_number() && key["data"]["address"]["bytes"].is_array(),
        "bpftool shows no field names: {key}"
    );

    agent.kill().expect("kill -9");
    assert_served(&cluster.client, &VIPS);
    assert_refused(&other, &VIPS);
    agent.restart(&cluster.lab).expect("restart");
    assert_served(&cluster.client, &VIPS);
    assert_refused(&other, &VIPS);
    assert_eq!(dump("SOURCE_RANGES"), ranges, "the new agent wrote unchanged ranges again");

    agent.kill().expect("kill -9");
    restrict(&cluster, &["10.244.1.12/32"]);
    assert_served(&cluster.client, &VIPS);
    agent.restart(&cluster.lab).expect("restart");
    assert_refused(&cluster.client, &[VIPS[0]]);
    assert_served(&other, &VIPS);
    assert_served(&cluster.client, &[VIPS[1]]);
    agent.kill().expect("kill -9");
    agent.restart(&cluster.lab).expect("restart");
    let left = dump("SOURCE_RANGES");
    assert_eq!(left.as_array().map(Vec::len), Some(2), "unused sets are left: {left}");
}

/// ST-8: the agent soon knows a new pod; until then the pod is refused, and it can try again.
#[test]
fn a_new_pod_is_admitted_within_a_moment() {
    let cluster = new_cluster!(1);
    let _agent = start(&cluster, &PODS);
    for name in ["late", "later", "latest"] {
        let created = Instant::now();
        let pod = cluster.lab.pod(name).expect("a pod");
        let mut refusals = 0;
        eventually("the new pod is admitted", || {
            let served = is_served(&pod, VIPS[0]);
            refusals += u32::from(!served);
            served
        });
        println!(
            "{name}: admitted {:?} after its creation began, refused {refusals} times",
            created.elapsed()
        );
        assert!(created.elapsed() < Duration::from_secs(3));
        assert_served(&pod, &VIPS);
    }
}

/// ST-1, ST-8: `explain` shows the client's address, and which of the two reasons applies.
#[test]
fn explain_tells_why_a_client_is_refused() {
    let cluster = new_cluster!(1);
    let other = cluster.lab.pod("second").expect("a pod");
    let _agent = start(&cluster, &CLIENT);
    let explain = |client: &str| {
        let output = cluster.lab.sidestep(&["explain", client, "203.0.113.7:80"]).expect("explain");
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    let of = |place: &Place| format!("netns:{}", place.namespace().name());
    for (client, found) in [
        (of(&cluster.client), &["CLIENTS", "10.244.1.10 -> in a range", "forward"][..]),
        (of(&other), &["10.244.1.12 -> in no range", "source-not-in-ranges"]),
        ("10.244.1.10".to_owned(), &["10.244.1.10 -> in a range", "forward"]),
        ("10.244.1.99".to_owned(), &["source-not-in-ranges"]),
        ("node".to_owned(), &["192.0.2.10 -> in no range"]),
        ("outside".to_owned(), &["outside:ADDRESS", "client-unknown"]),
        ("outside:10.244.1.10".to_owned(), &["10.244.1.10 -> in a range", "forward"]),
        ("outside:198.51.100.7".to_owned(), &["198.51.100.7 -> in no range", "no answer"]),
    ] {
        let text = explain(&client);
        assert!(found.iter().all(|part| text.contains(part)), "{client}: {text}");
    }
}
