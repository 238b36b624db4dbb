//! Whom the socket programs pass by: these clients' sockets are served by the hooks, as those of all pods, until their
//! network namespace shows that its own rules or routes must see the Service's address.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    process::Command,
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use sidestep_tests::{
    Agent, Place, TwoNodes,
    cluster::HTTP_PORT,
    eventually, in_both_extremes, in_every_variant,
    netfilter::{nft, restore},
    pace::within,
    topology::{CLUSTER_IPS, GATEWAY_V4, GATEWAY_V6},
    traffic::{Asker, Conversation, Sidecar, TcpServer, ask, connect},
    two_nodes::{WayIn, cluster_ips, web},
};

use crate::{assert_served, by_packets, serve};

in_every_variant!(a_cluster_in_a_pod_keeps_its_own_services, a_pod_with_a_route_of_its_own_to_services);
in_both_extremes!(
    a_sidecar_sees_the_services_address,
    a_namespace_within_a_pod_is_noticed_when_it_asks,
    what_has_an_endpoint_keeps_it_and_what_is_new_passes,
    a_socket_that_was_passed_by_goes_on_when_its_pod_is_served,
    nobody_is_passed_by_if_that_is_not_wanted,
    a_pod_says_whether_it_is_passed_by,
    sockets_of_the_node_alone,
);

/// How often the agent looks at all namespaces in any case.
const PERIOD: Duration = Duration::from_secs(5);
/// Where sidecars listen.
const SIDECAR: u16 = 15_001;

/// A pod's sockets, which the hooks serve. What they let through follows the pod's default route.
fn hooked(nodes: &TwoNodes, name: &str) -> Place {
    let pod = nodes.pod_here(name).expect("a pod");
    let _ = by_packets(nodes, &pod);
    pod
}

/// How a client in this place reaches Services, as `explain` says.
fn path(nodes: &TwoNodes, place: &Place) -> String {
    let client = format!("netns:{}", place.namespace().name());
    let told = nodes.lab().sidestep(&["explain", &client, "10.96.0.10:80", "-o", "json"]).expect("it runs");
    let told: serde_json::Value = serde_json::from_slice(&told.stdout).expect("JSON");
    told["path"].as_str().expect("a path").to_owned()
}

fn wait_until_passed(nodes: &TwoNodes, place: &Place, why: &str) {
    let took = eventually("it is passed by", || path(nodes, place).starts_with("packets"));
    println!("{why}: passed by after {took:?}");
    let told = path(nodes, place);
    assert!(told.contains(&format!(": {why}, ")), "{told}");
}

fn wait_until_served(nodes: &TwoNodes, place: &Place) {
    eventually("it is passed by no more", || path(nodes, place).starts_with("socket"));
}

/// PO-25: an inner cluster has the same Service address. Its own rules decide; what they leave is a client behind the pod.
fn a_cluster_in_a_pod_keeps_its_own_services(nodes: &TwoNodes) {
    let outer = nodes.backend_there("outer").expect("a pod");
    let pod = hooked(nodes, "cluster-in-a-pod");
    let inner = nodes.client_behind(&pod).expect("a namespace").in_cgroup(pod.cgroup());
    for (family, range) in ["ip", "ip6"].into_iter().zip(TwoNodes::BEHIND) {
        let masquerade = format!(
            "table {family} m {{ chain p {{ type nat hook postrouting priority 100; {family} saddr {range} oifname eth0 \
             masquerade; }}; }}\n"
        );
        nft(&pod, &masquerade).expect("rules");
    }
    let [v4, v6] = inner.addresses();
    let _server = TcpServer::start(&inner, "inner", HTTP_PORT).expect("a server");
    let rules = format!(
        "table ip kube {{ chain o {{ type nat hook output priority -100; ip daddr 10.96.0.10 tcp dport 80 dnat to \
         {v4}:{HTTP_PORT}; }}; }}\n\
         table ip6 kube {{ chain o {{ type nat hook output priority -100; ip6 daddr fd00:10:96::10 tcp dport 80 dnat to \
         [{v6}]:{HTTP_PORT}; }}; }}\n"
    );
    nft(&inner, &rules).expect("rules");
    let mut agent = serve(nodes, &[&outer]);
    // It was there when the agent started: its first connection is right.
    for way in cluster_ips() {
        let answer = inner.run(|| ask(way.tcp)).unwrap_or_else(|error| panic!("{way:?}: {error}"));
        assert_eq!(answer.server, "inner", "{way:?}");
        let datagram = inner.run(|| Asker::for_address(way.udp)?.ask(way.udp)).expect("an answer");
        assert_eq!((datagram.0.server.as_str(), datagram.1), ("outer", way.udp));
        assert!(pod.addresses().contains(&datagram.0.client.ip()), "a client behind the pod: {datagram:?}");
        // The pod's own sockets are not concerned.
        assert_eq!(pod.run(|| ask(way.tcp)).expect("an answer").server, "outer");
    }
    wait_until_passed(nodes, &inner, "nested");
    // The maps say so while no agent runs, and the next one takes it from there.
    agent.kill().expect("a running agent");
    let restarted = AtomicBool::new(false);
    let answers = std::thread::scope(|scope| {
        let asked = scope.spawn(|| {
            inner.run(|| {
                let mut answers = BTreeMap::<String, usize>::new();
                while !restarted.load(Ordering::Relaxed) {
                    *answers.entry(ask(cluster_ips()[0].tcp).expect("an answer").server).or_default() += 1;
                }
                answers
            })
        });
        agent.restart(nodes.lab()).expect("an agent");
        restarted.store(true, Ordering::Relaxed);
        asked.join().expect("no panic")
    });
    assert!(answers.len() == 1 && answers.contains_key("inner"), "{answers:?}");
    nft(&inner, "delete table ip kube\ndelete table ip6 kube\n").expect("rules");
    for way in cluster_ips() {
        assert_served_behind(&inner, way, &pod);
    }
}

/// PO-25: it comes while the agent runs, and nothing is mounted for it on the node. What it asks first is still translated.
fn a_namespace_within_a_pod_is_noticed_when_it_asks(nodes: &TwoNodes) {
    let server = nodes.backend_there("there").expect("a pod");
    let _agent = serve(nodes, &[&server]);
    let pod = hooked(nodes, "cluster-in-a-pod");
    let inner = nodes.client_behind(&pod).expect("a namespace").in_cgroup(pod.cgroup());
    let [way, _] = cluster_ips();
    // Whether there is an answer, nobody has promised.
    let _ = inner.run(|| std::net::TcpStream::connect_timeout(&way.tcp, Duration::from_millis(20)));
    let began = Instant::now();
    wait_until_passed(nodes, &inner, "nested");
    assert!(
        began.elapsed() < within(PERIOD / 2),
        "{:?}: no sooner than without having asked",
        began.elapsed()
    );
}

fn assert_served_behind(client: &Place, way: WayIn, pod: &Place) {
    assert_served(client, way, "outer", |ip| pod.addresses().contains(&ip));
}

/// A kind of rules, and how they get into a pod.
type Kind<'a> = (&'a str, &'a dyn Fn(&Place));

/// PO-26: the redirection is one of nftables, of the iptables that is in it, or of the older one.
fn a_sidecar_sees_the_services_address(nodes: &TwoNodes) {
    let server = nodes.backend_there("there").expect("a pod");
    let _agent = serve(nodes, &[&server]);
    let by_nft = |pod: &Place| {
        let of_family = |family: &str| {
            format!(
                "table {family} mesh {{ chain o {{ type nat hook output priority -100; meta l4proto tcp fib daddr type != \
                 local redirect to :{SIDECAR}; }}; }}\n"
            )
        };
        nft(pod, &(of_family("ip") + &of_family("ip6"))).expect("rules");
    };
    let by_iptables = |variant: &'static str| {
        move |pod: &Place| {
            let rules = format!(
                "*nat\n:MESH - [0:0]\n-A OUTPUT -p tcp -m addrtype ! --dst-type LOCAL -j MESH\n-A MESH -p tcp -j REDIRECT \
                 --to-ports {SIDECAR}\nCOMMIT\n"
            );
            for program in ["iptables", "ip6tables"] {
                restore(pod, &format!("{program}{variant}-restore"), &rules).expect("rules");
            }
        }
    };
    let kinds: [Kind<'_>; 3] = [
        ("nftables", &by_nft),
        ("iptables-nft", &by_iptables("-nft")),
        ("iptables-legacy", &by_iptables("-legacy")),
    ];
    for (kind, load) in kinds {
        let pod = hooked(nodes, &format!("app-{}", kind.len()));
        let _sidecar = Sidecar::start(&pod, SIDECAR).expect("a sidecar");
        let [way, _] = cluster_ips();
        assert_eq!(pod.run(|| ask(way.tcp)).expect("an answer").server, "there", "before the rules");
        load(&pod);
        wait_until_passed(nodes, &pod, "redirects");
        for way in cluster_ips() {
            let seen: SocketAddr =
                pod.run(|| Sidecar::seen(way.tcp)).unwrap_or_else(|error| panic!("{kind}: {error}"));
            assert_eq!(seen, way.tcp, "{kind}");
        }
        // What the sidecar leaves alone is served all the same.
        let answer = pod.run(|| Asker::for_address(way.udp)?.ask(way.udp)).expect("an answer");
        assert_eq!((answer.0.server.as_str(), answer.1), ("there", way.udp), "{kind}");
    }
}

/// PO-26: the pod's default route is a VPN's, and its route to Services leads to the node.
fn a_pod_with_a_route_of_its_own_to_services(nodes: &TwoNodes) {
    let server = nodes.backend_there("there").expect("a pod");
    let pod = hooked(nodes, "vpn");
    let _agent = serve(nodes, &[&server]);
    let [way4, way6] = cluster_ips();
    assert_eq!(pod.run(|| ask(way4.tcp)).expect("an answer").server, "there");
    let routes = |verb: &str| {
        let [v4, v6] = CLUSTER_IPS;
        format!("route {verb} {v4} via {GATEWAY_V4}\nroute {verb} {v6} via {GATEWAY_V6}\n")
    };
    let vpn = "link add vpn0 type veth peer name vpn1\nlink set vpn1 up\nlink set vpn0 up\naddr add 10.200.0.2/24 dev \
               vpn0\naddr add fd00:10:200::2/64 dev vpn0 nodad\nroute replace default dev vpn0\nroute replace default via \
               fd00:10:200::1 dev vpn0\n";
    pod.namespace().ip_batch(&(vpn.to_owned() + &routes("add"))).expect("routes");
    wait_until_passed(nodes, &pod, "routes");
    for way in [way4, way6] {
        assert_served(&pod, way, "there", |ip| pod.addresses().contains(&ip));
    }
    // As it was before: an endpoint's address has the route that a Service's has.
    let back = format!(
        "link del vpn0\nroute del {}\nroute del {}\nroute add default via {GATEWAY_V4}\nroute add default via {GATEWAY_V6}\n",
        CLUSTER_IPS[0], CLUSTER_IPS[1]
    );
    pod.namespace().ip_batch(&back).expect("routes");
    wait_until_served(nodes, &pod);
    assert_served(&pod, way4, "there", |ip| pod.addresses().contains(&ip));
}

/// A UDP socket with an endpoint keeps it (QUIC, DTLS), as a connection does; others pass.
fn what_has_an_endpoint_keeps_it_and_what_is_new_passes(nodes: &TwoNodes) {
    let servers = [nodes.backend_here("here").expect("a pod"), nodes.backend_there("there").expect("a pod")];
    let pod = hooked(nodes, "app");
    let _agent = serve(nodes, &servers.each_ref());
    let mut begun: Vec<_> = cluster_ips()
        .into_iter()
        .map(|way| {
            pod.run(|| {
                let mut talk = Conversation::over(connect(way.tcp)?)?;
                let (asker, peer) = (Asker::for_address(way.udp)?, Asker::for_address(way.udp)?);
                peer.connect(way.udp)?;
                let names = [talk.ask()?.server, asker.ask(way.udp)?.0.server, peer.ask_peer()?.0.server];
                Ok::<_, std::io::Error>((way, talk, asker, peer, names))
            })
            .unwrap_or_else(|error| panic!("{way:?}: {error}"))
        })
        .collect();
    let rule = "table inet mesh { chain o { type nat hook output priority -100; ip daddr 10.96.9.9 tcp dport 1 redirect to :1; }; }\n";
    nft(&pod, rule).expect("rules");
    wait_until_passed(nodes, &pod, "redirects");
    for (way, talk, asker, peer, names) in &mut begun {
        for _ in 0..3 {
            let ask = || {
                let (datagram, from) = asker.ask(way.udp)?;
                assert_eq!(from, way.udp);
                Ok::<_, std::io::Error>([talk.ask()?.server, datagram.server, peer.ask_peer()?.0.server])
            };
            assert_eq!(&pod.run(ask).expect("it goes on"), names);
        }
        assert_eq!(
            talk.peer().expect("a peer"),
            way.tcp,
            "what was translated at the socket says the Service"
        );
    }
    let client = |ip| pod.addresses().contains(&ip);
    for way in cluster_ips() {
        for _ in 0..4 {
            let answer = pod.run(|| ask(way.tcp)).expect("an answer");
            assert!(client(answer.client.ip()), "{answer:?}");
        }
    }
    let events = nodes.lab().sidestep(&["status", "-o", "json"]).expect("it runs");
    let events: serde_json::Value = serde_json::from_slice(&events.stdout).expect("JSON");
    assert!(events["events"]["passed-sockets"].as_u64() >= Some(8), "{}", events["events"]);
}

/// A UDP socket that was connected to the Service's address itself goes on with it when the hooks serve its namespace again:
/// IPv6 sockets show the hooks each datagram to an IPv4 peer.
fn a_socket_that_was_passed_by_goes_on_when_its_pod_is_served(nodes: &TwoNodes) {
    let server = nodes.backend_there("there").expect("a pod");
    let pod = hooked(nodes, "app");
    let rule = "table inet mesh { chain o { type nat hook output priority -100; ip daddr 10.96.9.9 tcp dport 1 redirect to :1; }; }\n";
    nft(&pod, rule).expect("rules");
    let _agent = serve(nodes, &[&server]);
    wait_until_passed(nodes, &pod, "redirects");
    let [way, _] = cluster_ips();
    let IpAddr::V4(address) = way.udp.ip() else { panic!("an IPv4 address") };
    let mapped = SocketAddr::new(address.to_ipv6_mapped().into(), way.udp.port());
    let asker = pod.run(|| {
        let asker = Asker::v6()?;
        asker.connect(mapped)?;
        asker.ask_peer()?;
        Ok::<_, std::io::Error>(asker)
    });
    let asker = asker.expect("an answer");
    nft(&pod, "delete table inet mesh\n").expect("rules");
    wait_until_served(nodes, &pod);
    for _ in 0..3 {
        assert_eq!(pod.run(|| asker.ask_peer()).expect("it goes on").0.server, "there");
    }
}

fn nobody_is_passed_by_if_that_is_not_wanted(nodes: &TwoNodes) {
    let server = nodes.backend_there("there").expect("a pod");
    let pod = hooked(nodes, "app");
    let _sidecar = Sidecar::start(&pod, SIDECAR).expect("a sidecar");
    let rule = format!(
        "table inet mesh {{ chain o {{ type nat hook output priority -100; meta l4proto tcp fib daddr type != local redirect \
         to :{SIDECAR}; }}; }}\n"
    );
    nft(&pod, &rule).expect("rules");
    nodes.publish("web", &web(), &[&server]).expect("manifests");
    let agent = Agent::reading(nodes.lab()).arguments(["--no-bypass-detection"]);
    let _agent = agent.started(nodes.lab()).expect("an agent");
    std::thread::sleep(Duration::from_secs(1));
    assert!(path(nodes, &pod).starts_with("socket"), "{}", path(nodes, &pod));
    for way in cluster_ips() {
        let seen = pod.run(|| Sidecar::seen(way.tcp)).expect("an answer");
        assert_eq!(seen.port(), HTTP_PORT, "an endpoint's address");
    }
}

/// The annotation of a Pod, whose processes are in a cgroup with its uid.
fn a_pod_says_whether_it_is_passed_by(nodes: &TwoNodes) {
    const UID: &str = "0a1b2c3d-0000-4000-8000-0123456789ab";
    let server = nodes.backend_there("there").expect("a pod");
    let pod = hooked(nodes, "app");
    let cgroup = pod.cgroup().child(&format!("pod{UID}")).expect("a cgroup");
    let inside = pod.in_cgroup(&cgroup);
    let mut pause = inside.run(|| Command::new("sleep").arg("120").spawn()).expect("its first process");
    let say = |value: &str| {
        let written = format!(
            "apiVersion: v1\nkind: Pod\nmetadata:\n  name: app\n  uid: {UID}\n  annotations:\n    sidestep.dev/socket-lb: \
             \"{value}\"\n"
        );
        nodes.lab().manifests().write("pod.yaml", &[&written]).expect("a manifest");
    };
    say("off");
    let agent = serve(nodes, &[&server]);
    wait_until_passed(nodes, &pod, "annotated");
    for way in cluster_ips() {
        assert_served(&inside, way, "there", |ip| pod.addresses().contains(&ip));
    }
    let rule = "table inet mesh { chain o { type nat hook output priority -100; ip daddr 10.96.9.9 tcp dport 1 redirect to :1; }; }\n";
    nft(&pod, rule).expect("rules");
    say("on");
    wait_until_served(nodes, &pod);
    say("perhaps");
    let field = "metadata.annotations[sidestep.dev/socket-lb]";
    eventually("it is named", || {
        let problems = agent.report().expect("a report").problems;
        problems.iter().any(|problem| problem.field == field)
    });
    wait_until_passed(nodes, &pod, "redirects");
    pause.kill().and_then(|()| pause.wait()).expect("it ends");
}

/// `--socket-lb host-only`: the node's own sockets are translated, those of pods are left to the packet path.
fn sockets_of_the_node_alone(nodes: &TwoNodes) {
    let server = nodes.backend_there("there").expect("a pod");
    nodes.publish("web", &web(), &[&server]).expect("manifests");
    let agent = Agent::reading(nodes.lab()).arguments(["--socket-lb", "host-only"]);
    let mut agent = agent.started(nodes.lab()).expect("an agent");
    let pod = hooked(nodes, "app");
    assert!(path(nodes, &pod).contains("host-only"));
    for way in cluster_ips() {
        assert_served(&pod, way, "there", |ip| pod.addresses().contains(&ip));
        assert_eq!(nodes.node().run(|| ask(way.tcp)).expect("an answer").server, "there");
    }
    let events = nodes.lab().sidestep(&["status"]).expect("it runs");
    let events = String::from_utf8_lossy(&events.stdout).into_owned();
    assert!(events.contains("passed-sockets") && events.contains("host-only"), "{events}");
    agent.stop().expect("it ends");
    let told = Agent::reading(nodes.lab())
        .arguments(["--socket-lb", "host-only", "--pod-interface", "none"])
        .started(nodes.lab());
    assert!(told.is_err(), "pods would have no Services");
}
