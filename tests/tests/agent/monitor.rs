//! `sidestep monitor`: what sockets get and are refused, for whoever listens; and what is recorded when nobody does.

use std::{fmt::Display, net::UdpSocket, time::Duration};

use aya::maps::{Array, HashOfMaps, Map, MapData};
use jiff::{SignedDuration, Timestamp};
use proxy_agent::dataplane::netns_cookie;
use serde_json::Value;
use sidestep_tests::{
    Lab,
    agent::NODE_NAME,
    cluster,
    cluster::{Cluster, HTTP, at, service},
    eventually,
    listener::Listener,
    manifest::{Protocol, Service},
    skip,
    traffic::{Asker, ask, connect},
};

/// `web` has two endpoints, `empty` none.
fn two_services(cluster: &Cluster) {
    cluster.serve("web", &service("web", &["10.96.0.10", "fd00:10:96::10"])).expect("manifests");
    let empty = Service::new("empty", &["10.96.0.99"]).port(HTTP, Protocol::Tcp, 80);
    cluster.lab.manifests().write("empty.yaml", &[&empty]).expect("manifests");
    // As an agent knows it in a cluster.
    let client = format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{namespace: shop, name: cart-0, uid: \"{}\"}}\nspec: {{nodeName: \
         {NODE_NAME}}}\nstatus: {{phase: Running, podIPs: [{{ip: {}}}]}}\n",
        std::process::id(),
        cluster.client.v4
    );
    cluster.lab.manifests().write_text("pods.yaml", &client).expect("manifests");
}

fn netns(cluster: &Cluster) -> String {
    format!("netns:{}", cluster.client.namespace().name())
}

/// What a listener is told that ends by itself.
fn listened(lab: &Lab, arguments: &[&str]) -> (Vec<Value>, String) {
    let arguments = [&["monitor", "--output", "json"], arguments].concat();
    let output = lab.sidestep(&arguments).expect("it runs");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let lines = String::from_utf8_lossy(&output.stdout).into_owned();
    (lines.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect(), said)
}

fn recorded(lab: &Lab, arguments: &[&str]) -> Vec<Value> {
    listened(lab, &[&["--since", "1h", "--for", "0s"], arguments].concat()).0
}

#[test]
fn sockets_get_endpoints_and_are_refused() {
    let cluster = cluster!(2);
    two_services(&cluster);
    let lab = &cluster.lab;
    let mut agent = lab.agent().expect("an agent");
    // Before anybody listens: the record has it.
    cluster.client.run(|| connect(at("10.96.0.99:80"))).expect_err("no endpoint");
    let all = Listener::start(lab, &[]).expect("a listener");
    let of_web = Listener::start(lab, &["default/web"]).expect("a listener");
    // Kernels before 5.14 do not tell processes in which network namespace they are.
    let knows_namespaces = netns_cookie().is_ok_and(|cookie| cookie != 0);
    let of_node = if knows_namespaces { ["--client", "node"] } else { ["--only", "evicted"] };
    let of_node = Listener::start(lab, &of_node).expect("a listener");
    let refusals = Listener::start(lab, &["--reason", "no-endpoints"]).expect("a listener");
    // There is room for four.
    let (_, said) = listened(lab, &["--for", "1s"]);
    assert!(said.contains("4 others listen already"), "{said}");

    let asker = cluster.client.run(|| {
        let _ = ask(at("10.96.0.10:80")).expect("an answer");
        let _ = ask(at("[fd00:10:96::10]:80")).expect("an answer");
        connect(at("10.96.0.99:80")).expect_err("no endpoint");
        connect(at("10.96.0.10:81")).expect_err("no such port");
        let asker = Asker::v4().expect("a socket");
        // The second datagram goes where the first one went: nothing is decided.
        for _ in 0..3 {
            let _ = asker.ask(at("10.96.0.10:53")).expect("an answer");
        }
        let connected = UdpSocket::bind("0.0.0.0:0").expect("a socket");
        connected.connect("10.96.0.10:53").expect("an endpoint");
        asker
    });
    lab.node().run(|| ask(at("10.96.0.10:80"))).expect("an answer");
    drop(asker);

    let kind = |event: &Value| event["event"].as_str().unwrap_or_default().to_owned();
    let chosen = all.wait_for(5, |event| kind(event) == "chosen");
    let refused = all.wait_for(2, |event| kind(event) == "refused");
    assert_eq!((chosen.len(), refused.len()), (5, 2), "{:?}", all.events());
    let frontends: Vec<&str> = chosen.iter().filter_map(|event| event["frontend"].as_str()).collect();
    assert_eq!(
        frontends,
        [
            "10.96.0.10:80/TCP",
            "[fd00:10:96::10]:80/TCP",
            "10.96.0.10:53/UDP",
            "10.96.0.10:53/UDP",
            "10.96.0.10:80/TCP"
        ]
    );
    assert_eq!(chosen[0]["service"], "default/web:http/TCP");
    let endpoints = cluster.backends.iter().map(|backend| format!("{}:8080", backend.place.v4));
    assert!(endpoints.clone().any(|endpoint| chosen[0]["endpoint"] == endpoint), "{}", chosen[0]);
    assert!(!knows_namespaces || chosen[4]["client"]["name"] == "node", "{}", chosen[4]);
    for (event, reason, service) in [
        (&refused[0], "no-endpoints", "default/empty:http/TCP"),
        (&refused[1], "unknown-port", "default/web"),
    ] {
        assert_eq!((&event["reason"], &event["service"]), (&reason.into(), &service.into()), "{event}");
        assert!(event["endpoint"].is_null(), "{event}");
    }
    // Who called, where the kernel tells that; the time is everybody's.
    let (process, thread) = (&refused[0]["client"]["process"], &refused[0]["client"]["thread"]);
    assert!(process.is_null() == thread.is_null(), "{}", refused[0]);
    assert!(process.is_null() || *process == std::process::id(), "{}", refused[0]);
    let time: Timestamp = refused[0]["time"].as_str().and_then(|time| time.parse().ok()).expect("a time");
    assert!(time.duration_until(Timestamp::now()).abs() < SignedDuration::from_mins(1), "{time}");

    // What the others asked for, and nothing else.
    let ended = |listener: Listener| {
        let (events, said) = listener.interrupt().expect("an end");
        assert!(said.contains(&format!("{} events shown, 0 dropped", events.len())), "{said}");
        events
    };
    let of_web = ended(of_web);
    assert_eq!(of_web.len(), 6, "{of_web:?}");
    assert!(of_web.iter().all(|event| event["service"] != "default/empty:http/TCP"), "{of_web:?}");
    let (of_node, refusals) = (ended(of_node), ended(refusals));
    assert_eq!(
        (of_node.len(), refusals.len()),
        (usize::from(knows_namespaces), 1),
        "{of_node:?} {refusals:?}"
    );
    assert_eq!(ended(all).len(), 7);
    assert_eq!(listening_until(lab), 0);

    // The record: one element for all that are alike, with or without the agent.
    for _ in 0..2 {
        cluster.client.run(|| connect(at("10.96.0.99:80"))).expect_err("no endpoint");
    }
    agent.kill().expect("a running agent");
    let found = recorded(lab, &["empty"]);
    let [refusal] = found.as_slice() else { panic!("{found:?}") };
    assert_eq!((&refusal["times"], &refusal["reason"]), (&4.into(), &"no-endpoints".into()), "{refusal}");
    assert_eq!(recorded(lab, &["web"]).len(), 1);
    assert_eq!(recorded(lab, &["web:80"]).len(), 0, "a port that it has refused nobody");
    if knows_namespaces {
        assert_eq!(recorded(lab, &["--client", "node"]).len(), 0);
        assert_eq!(recorded(lab, &["--client", &netns(&cluster)]).len(), 2);
    } else {
        let (_, said) = listened(lab, &["--client", "node", "--for", "1s"]);
        assert!(said.contains("5.14"), "{said}");
    }
    assert_eq!(recorded(lab, &["--reason", "unknown-port"]).len(), 1);
    assert_eq!(recorded(lab, &["--only", "chosen"]).len(), 0);
}

fn pinned(lab: &Lab, map: &str) -> Map {
    let pin = lab.pin_directory().join("v1").join(map);
    MapData::from_pin(pin).and_then(Map::from_map_data).expect("a map")
}

/// The word that the programs look at.
fn listening_until(lab: &Lab) -> u64 {
    let map: Array<MapData, u64> = pinned(lab, "LISTENING").try_into().expect("an array");
    map.get(&0, 0).expect("a word")
}

/// How many listeners have a buffer.
fn buffers(lab: &Lab) -> usize {
    let map: HashOfMaps<MapData, u32, MapData> = pinned(lab, "EVENTS").try_into().expect("a hash of maps");
    map.keys().count()
}

/// UDP sockets that the agent connects again when their endpoint is gone (ST-5).
#[test]
fn sockets_that_are_moved_are_told_as_such() {
    let cluster = cluster!(2);
    two_services(&cluster);
    let lab = &cluster.lab;
    let _agent = lab.agent().expect("an agent");
    let listener = Listener::start(lab, &["web", "--only", "chosen"]).expect("a listener");
    let socket = cluster.client.run(|| {
        let socket = UdpSocket::bind("0.0.0.0:0").expect("a socket");
        socket.connect("10.96.0.10:53").expect("an endpoint");
        socket
    });
    let first = listener.wait_for(1, |_| true).remove(0);
    if first["client"]["process"].is_null() {
        skip!("this kernel does not tell socket programs who calls");
    }
    let had = first["endpoint"].as_str().expect("an endpoint").to_owned();
    let other = usize::from(had.starts_with(&cluster.backends[0].place.v4.to_string()));
    let slice = cluster.slice_v4("web", [other]);
    lab.manifests().write("web.yaml", &[&service("web", &["10.96.0.10"]), &slice]).expect("manifests");
    let moved = listener.wait_for(1, |event| event["event"] == "moved");
    assert_eq!(moved[0]["endpoint"], format!("{}:5300", cluster.backends[other].place.v4));
    drop(socket);
}

/// One that is killed says nothing: the programs forget it after its lease, and the agent takes its buffer away.
#[test]
fn a_listener_that_dies_is_forgotten() {
    let cluster = cluster!(1);
    two_services(&cluster);
    let lab = &cluster.lab;
    let _agent = lab.agent().expect("an agent");
    Listener::start(lab, &[]).expect("a listener").kill().expect("it runs");
    let is_listened = || {
        let _ = cluster.client.run(|| connect(at("10.96.0.99:80")));
        listening_until(lab) != 0
    };
    eventually("nobody listens any more", || !is_listened());
    eventually("its buffer is gone", || buffers(lab) == 0);
    // All places are free again.
    let others: Vec<Listener> = (0..4).map(|_| Listener::start(lab, &[]).expect("a listener")).collect();
    assert_eq!(buffers(lab), 4);
    drop(others);
}

/// Programs of another set of tables tell as those before: a Service that comes later, tables that grow, another agent.
#[test]
fn listeners_outlive_agents_and_tables() {
    let cluster = cluster!(1);
    two_services(&cluster);
    let lab = &cluster.lab;
    let mut agent = lab.agent().expect("an agent");
    let listener = Listener::start(lab, &["web", "--only", "chosen"]).expect("a listener");
    let mut asked = 0;
    let mut ask_once = |what: &str| {
        asked += 1;
        cluster.client.run(|| ask(at("10.96.0.10:80"))).expect("an answer");
        let told = listener.wait_for(asked, |_| true);
        assert_eq!(told.len(), asked, "{what}: {told:?}");
    };
    ask_once("at first");
    agent.kill().expect("a running agent");
    agent.restart(lab).expect("an agent");
    ask_once("another agent");
    // More than the tables have room for.
    let sizes = agent.logged("made the tables");
    let many: Vec<Service> = (0..2_000)
        .map(|number| {
            let address = format!("10.97.{}.{}", number / 250, number % 250 + 1);
            Service::new(&format!("many-{number}"), &[&*address]).port(HTTP, Protocol::Tcp, 80)
        })
        .collect();
    let many: Vec<&dyn Display> = many.iter().map(|one| one as &dyn Display).collect();
    lab.manifests().write("many.yaml", &many).expect("manifests");
    eventually("the tables have grown", || agent.logged("made the tables") > sizes);
    ask_once("bigger tables");
    // The Service gets another index.
    lab.manifests().remove("web.yaml").expect("manifests");
    eventually("it is gone", || cluster.client.run(|| ask(at("10.96.0.10:80"))).is_err());
    cluster.serve("web", &service("web", &["10.96.0.10"])).expect("manifests");
    eventually("it is back", || cluster.client.run(|| ask(at("10.96.0.10:80"))).is_ok());
    let before = listener.events().len();
    eventually("it is heard again", || {
        cluster.client.run(|| ask(at("10.96.0.10:80"))).expect("an answer");
        std::thread::sleep(Duration::from_millis(100));
        listener.events().len() > before
    });
}

/// Wrong input is told with what is near.
#[test]
fn what_is_not_there_is_told() {
    let cluster = cluster!(1);
    two_services(&cluster);
    let _agent = cluster.lab.agent().expect("an agent");
    for (arguments, part) in [
        (&["wep"][..], "is it `default/web`?"),
        (&["web:htp"], "default/web has no port `htp`"),
        (&["--client", "shop/cart-1"], "is it `shop/cart-0`?"),
        (&["--reason", "nothing"], "possible values: no-endpoints"),
        (&["--only", "nothing"], "possible values: chosen"),
        (&["--sample", "0"], "0 is not in 1.."),
        (&["--since", "yesterday"], "--since"),
        (&["--only", "chosen", "--reason", "no-endpoints"], "leave nothing"),
        (&["--count", "0"], "0 is not in 1.."),
    ] {
        let (_, said) = listened(&cluster.lab, &[arguments, &["--for", "1s"]].concat());
        assert!(said.contains(part), "{arguments:?}: {said}");
    }
    let (_, said) = listened(&cluster.lab, &["--for", "0s"]);
    assert!(said.contains("--since"), "{said}");
}

/// Whoever waits for a reader that stands still ends with the second signal.
#[test]
fn a_second_signal_ends_it_whatever_it_waits_for() {
    let cluster = cluster!(1);
    two_services(&cluster);
    let lab = &cluster.lab;
    let _agent = lab.agent().expect("an agent");
    let pipe = lab.folder("pipe").expect("a folder").join("events");
    nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).expect("a pipe");
    let nobody_reads = std::fs::OpenOptions::new().read(true).write(true).open(&pipe).expect("the pipe");
    let binary = sidestep_tests::agent::binary().expect("a binary");
    let mut command = std::process::Command::new(binary);
    command.args(["monitor", "--only", "refused", "--pin-dir"]).arg(lab.pin_directory());
    command.stdout(nobody_reads).stderr(std::process::Stdio::null());
    let mut child = lab.node().namespace().run(|| command.spawn()).expect("the lab").expect("it starts");
    eventually("it listens", || listening_until(lab) != 0);
    cluster.client.run(|| {
        for _ in 0..5_000 {
            let _ = connect(at("10.96.0.99:80"));
        }
    });
    let pid = nix::unistd::Pid::from_raw(child.id().cast_signed());
    let interrupt = || nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGINT).expect("it runs");
    std::thread::sleep(Duration::from_millis(500));
    interrupt();
    std::thread::sleep(Duration::from_millis(500));
    assert!(child.try_wait().expect("a process").is_none(), "it waits for its reader");
    interrupt();
    eventually("it ends", || child.try_wait().expect("a process").is_some());
}

/// Somebody who reads slowly, or not at all: events are dropped and counted, and whoever comes next begins with none.
#[test]
fn a_listener_whose_reader_stands_still_goes_on() {
    let cluster = cluster!(1);
    two_services(&cluster);
    let lab = &cluster.lab;
    let _agent = lab.agent().expect("an agent");
    let binary = sidestep_tests::agent::binary().expect("a binary");
    let script = format!(
        "{} monitor --only refused --for 12s --pin-dir {} --run-dir {} 2>&1 >\"$1\" | cat",
        binary.display(),
        lab.pin_directory().display(),
        lab.run_directory().display()
    );
    // A pipe that nobody reads for so long that its place is lost.
    let folder = lab.folder("pipe").expect("a folder");
    let pipe = folder.join("events");
    nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).expect("a pipe");
    let reader = std::fs::OpenOptions::new().read(true).write(true).open(&pipe).expect("the pipe");
    let mut command = std::process::Command::new("sh");
    command.args(["-c", &script, "sh"]).arg(&pipe).stdout(std::process::Stdio::piped());
    let child = lab.node().namespace().run(|| command.spawn()).expect("the lab").expect("it starts");
    eventually("it listens", || listening_until(lab) != 0);
    let refused = |times: usize| {
        cluster.client.run(|| {
            for _ in 0..times {
                let _ = connect(at("10.96.0.99:80"));
            }
        });
    };
    // More than the pipe and the buffer hold.
    let begin = std::time::Instant::now();
    while begin.elapsed() < Duration::from_secs(6) {
        refused(2_000);
    }
    // It ends with the test.
    std::thread::spawn(move || {
        let mut read = [0; 1 << 12];
        let mut reader = reader;
        while std::io::Read::read(&mut reader, &mut read).is_ok_and(|count| count > 0) {}
    });
    let said = child.wait_with_output().expect("it ends");
    let said = String::from_utf8_lossy(&said.stdout).into_owned();
    assert!(said.contains("were dropped: too many at once"), "{said}");
    assert!(said.contains("listening again"), "{said}");
    let next = Listener::start(lab, &["--only", "refused"]).expect("a listener");
    refused(1);
    next.wait_for(1, |_| true);
    let (events, said) = next.interrupt().expect("an end");
    assert!(events.len() == 1 && said.contains("1 events shown, 0 dropped"), "{said}");
}
