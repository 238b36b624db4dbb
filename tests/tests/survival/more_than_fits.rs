//! Half as many Services again as the tables have room for: what is left out is named, exactly; `default/kubernetes` and
//! the cluster's DNS are never among it, whenever they come; and when others go, nothing is.

use std::{
    collections::BTreeSet,
    io::Write as _,
    net::{Ipv4Addr, SocketAddr},
    time::Instant,
};

use serde_json::{Value, json};
use sidestep_tests::{
    Agent, Lab, Place,
    agent::NODE_NAME,
    api_server::{ApiServer, Kind, Objects},
    cluster::{Backend, DNS, DNS_PORT, HTTP, HTTP_PORT},
    eventually,
    eventually::SOON,
    lab,
    manifest::NAMESPACE,
    topology::NODE_V4,
    traffic::{Asker, ask, connect},
};

/// Half as many again as [`ROOM`] has place for.
const SERVICES: u8 = 90;
/// The size of the table that is too small.
const ROOM: &str = "60";
/// The API server's address, and the cluster's DNS.
const FIRST: [Ipv4Addr; 2] = [Ipv4Addr::new(10, 96, 0, 1), Ipv4Addr::new(10, 96, 0, 10)];

struct Scene {
    /// The first of the Services that there are.
    from: u8,
    server: ApiServer,
    agent: Agent,
    client: Place,
    endpoint: Backend,
    lab: Lab,
}

/// CF-2: neither table of Services, of frontends or of endpoints decides who comes first by who came first.
#[test]
fn what_has_no_room_in_services_is_named_and_it_is_never_dns() {
    scenario(&["--max-services", ROOM]);
}

#[test]
fn what_has_no_room_in_frontends_is_named_and_it_is_never_dns() {
    scenario(&["--max-frontends", ROOM]);
}

#[test]
fn what_has_no_room_in_endpoints_is_named_and_it_is_never_dns() {
    scenario(&["--max-endpoints", ROOM]);
}

fn scenario(capacity: &[&str]) {
    let lab = lab!();
    let endpoint = Backend::start(lab.pod("endpoint").expect("a pod")).expect("servers");
    let client = lab.pod("client").expect("a pod");
    let objects = Objects::default();
    objects.put(json!({"kind": "Node", "apiVersion": "v1", "metadata": {"name": NODE_NAME},
        "status": {"addresses": [{"type": "InternalIP", "address": NODE_V4}]}}));
    for number in 1..=SERVICES {
        put(&objects, NAMESPACE, &name(number), address(number), endpoint.place.v4, false);
    }
    let server = ApiServer::start(lab.node().namespace(), objects).expect("an API server");
    let agent = Agent::following(&lab, &server).arguments(capacity).started(&lab).expect("an agent");
    let mut scene = Scene { from: 1, server, agent, client, endpoint, lab };
    assert!(scene.left_out() > usize::from(SERVICES) / 4, "everything fits");
    scene.assert_told();

    // The last to come, with the tables full.
    scene.put_first();
    scene.assert_first("they come last");
    let left_out = scene.left_out();

    // They come while there is no agent, and the tables are full of others.
    scene.delete_first();
    eventually("their places are taken", || scene.left_out() < left_out);
    scene.agent.kill().expect("kill -9");
    scene.put_first();
    scene.agent.restart(&scene.lab).expect("restart");
    scene.assert_first("they came while no agent was there");

    // They are there when it starts.
    assert!(scene.agent.stop().expect("it stops").success());
    scene.agent.restart(&scene.lab).expect("restart");
    scene.assert_first("they were there");

    // DNS grows where nothing is free.
    let more: Vec<Ipv4Addr> =
        (1..=8).map(|number| Ipv4Addr::new(10, 244, 3, number)).chain([scene.endpoint.place.v4]).collect();
    scene.server.put(slice("kube-system", "kube-dns", &more));
    eventually("DNS has its endpoints", || {
        let status = scene.lab.sidestep(&["status", "kube-dns"]).expect("status");
        String::from_utf8_lossy(&status.stdout).contains(" 9")
    });
    scene.server.put(slice("kube-system", "kube-dns", &[scene.endpoint.place.v4]));
    scene.assert_first("DNS grew");

    for number in 1..=SERVICES / 2 {
        scene.server.delete(Kind::Service, NAMESPACE, &name(number));
    }
    scene.from = SERVICES / 2 + 1;
    eventually("everything that is left fits", || scene.report().is_empty());
    scene.assert_first("there is room");
    assert_eq!(scene.left_out(), 0);
}

impl Scene {
    fn put_first(&self) {
        let endpoint = self.endpoint.place.v4;
        put(&self.server, NAMESPACE, "kubernetes", FIRST[0], endpoint, false);
        put(&self.server, "kube-system", "kube-dns", FIRST[1], endpoint, true);
    }

    fn delete_first(&self) {
        self.server.delete(Kind::Service, NAMESPACE, "kubernetes");
        self.server.delete(Kind::Service, "kube-system", "kube-dns");
    }

    /// The objects that the report names.
    fn report(&self) -> BTreeSet<String> {
        let report = self.agent.report().expect("a report");
        report.problems.into_iter().map(|problem| problem.object).collect()
    }

    fn is_there(&self, address: Ipv4Addr) -> bool {
        self.client.run(|| ask((address, 80).into())).is_ok()
    }

    /// Both answer, over each port, and are not named; nor are their addresses, or the node's.
    fn assert_first(&self, when: &str) {
        eventually(when, || FIRST.iter().all(|address| self.is_there(*address)));
        let dns = (FIRST[1], 53).into();
        eventually(when, || self.client.run(|| Asker::v4().and_then(|asker| asker.ask(dns))).is_ok());
        self.left_out();
        let first = ["kubernetes", "kube-dns"].map(str::to_owned).into_iter();
        let addresses = FIRST.iter().chain([&NODE_V4]).map(|address| format!("address {address}"));
        for what in first.chain(addresses) {
            let named: Vec<String> =
                self.report().into_iter().filter(|named| named.ends_with(&what)).collect();
            assert!(named.is_empty(), "{when}: {named:?}");
        }
    }

    /// Events and metrics say the same as the report.
    fn assert_told(&self) {
        let left_out = self.report();
        let of_events = || {
            let events = self.server.recorded().into_iter().map(|written| written.object);
            let events = events.filter(|event| event["reason"] == "FailedToInstall");
            events.map(|event| {
                format!("Service {NAMESPACE}/{}", event["regarding"]["name"].as_str().unwrap_or("?"))
            })
        };
        eventually("an Event is written", || of_events().next().is_some());
        of_events().for_each(|service| assert!(left_out.contains(&service), "{service}"));
        let scrape = || {
            let mut stream = connect(SocketAddr::from(([127, 0, 0, 1], 10_249)))?;
            stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: node\r\nConnection: close\r\n\r\n")?;
            std::io::read_to_string(stream)
        };
        let text = self.lab.node().run(scrape).expect("metrics");
        let problems = self.agent.report().expect("a report").problems.len();
        assert!(text.contains(&format!("\nsidestep_problems {problems}\n")), "{problems} problems: {text}");
    }

    /// How many of the others are left out: those that do not answer are those that the report names.
    fn left_out(&self) -> usize {
        let mut seen = (BTreeSet::new(), BTreeSet::new());
        let names = || {
            let named = self
                .report()
                .into_iter()
                .filter_map(|object| object.split('/').next_back().map(str::to_owned));
            named.filter(|name| name.starts_with("service-")).collect::<BTreeSet<String>>()
        };
        let deadline = Instant::now() + SOON;
        while Instant::now() < deadline {
            let there = |number: &u8| self.is_there(address(*number));
            let silent = (self.from..=SERVICES)
                .filter(|number| !there(number))
                .map(name)
                .collect::<BTreeSet<String>>();
            seen = (silent, names());
            if seen.0 == seen.1 {
                return seen.1.len();
            }
        }
        panic!("not there: {:?}\nnamed: {:?}\n{}", seen.0, seen.1, self.agent.log_tail());
    }
}

fn name(number: u8) -> String {
    format!("service-{number:02}")
}

fn address(number: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 96, 2, number)
}

/// A Service with an endpoint.
fn put(objects: &Objects, namespace: &str, name: &str, address: Ipv4Addr, endpoint: Ipv4Addr, dns: bool) {
    let mut ports = vec![json!({"name": HTTP, "port": 80, "protocol": "TCP"})];
    if dns {
        ports.push(json!({"name": DNS, "port": 53, "protocol": "UDP"}));
    }
    objects.put(
        json!({"kind": "Service", "apiVersion": "v1", "metadata": {"name": name, "namespace": namespace},
        "spec": {"clusterIP": address, "ports": ports}}),
    );
    objects.put(slice(namespace, name, &[endpoint]));
}

fn slice(namespace: &str, service: &str, endpoints: &[Ipv4Addr]) -> Value {
    let ready = |address: &Ipv4Addr| json!({"addresses": [address], "nodeName": NODE_NAME, "conditions": {"ready": true}});
    json!({"kind": "EndpointSlice", "apiVersion": "discovery.k8s.io/v1", "addressType": "IPv4",
        "metadata": {"name": format!("{service}-ipv4"), "namespace": namespace,
            "labels": {"kubernetes.io/service-name": service}},
        "endpoints": endpoints.iter().map(ready).collect::<Vec<_>>(),
        "ports": [{"name": HTTP, "port": HTTP_PORT, "protocol": "TCP"}, {"name": DNS, "port": DNS_PORT, "protocol": "UDP"}]})
}
