//! `sidestep explain` with the names of pods and Services, and with real connections.

use std::process::{Child, Command, Stdio};

use serde_json::Value;
use sidestep_tests::{
    Lab, Place,
    agent::NODE_NAME,
    cluster,
    cluster::{DNS, HTTP, HTTP_PORT, at, service},
    eventually,
    manifest::{EndpointSlice, Protocol, Service},
    traffic::connect,
};

/// A uid that no other test has at the same time.
fn uid(number: usize) -> String {
    format!("0a1b2c3d-0000-4000-800{number}-{:012}", std::process::id())
}

/// What it says; an error's text where it fails.
fn explain(lab: &Lab, arguments: &[&str]) -> Result<String, String> {
    let arguments = [&["explain"], arguments].concat();
    // In a cgroup that the programs serve, as on a node, where they serve all.
    let output = lab.node().run(|| lab.sidestep(&arguments)).expect("it runs");
    if output.status.success() {
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    } else {
        Err(String::from_utf8_lossy(&output.stderr).into_owned())
    }
}

fn explained(lab: &Lab, arguments: &[&str]) -> Vec<Value> {
    let text = explain(lab, &[arguments, &["-o", "json"]].concat()).expect("an explanation");
    serde_json::from_str(&text).expect("JSON")
}

/// A process in a pod, as the container runtime leaves one there; it ends with its value.
struct Pause(Child);

impl Pause {
    fn start(place: &Place, program: &[&str]) -> Self {
        let [first, rest @ ..] = program else { panic!("a program") };
        let start = || Command::new(first).args(rest).stdout(Stdio::null()).spawn();
        Self(place.run(start).expect("it starts"))
    }
}

impl Drop for Pause {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn pod(namespace: &str, name: &str, uid: &str, address: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{namespace: {namespace}, name: {name}, uid: \"{uid}\"}}\nspec: {{nodeName: \
         {NODE_NAME}}}\nstatus: {{phase: Running, podIPs: [{{ip: {address}}}]}}\n"
    )
}

#[test]
fn pods_and_services_have_names() {
    let cluster = cluster!(2);
    let (lab, client) = (&cluster.lab, &cluster.client);
    let manifests = lab.manifests();
    let web = Service::new("web", &["10.96.0.10", "fd00:10:96::10"])
        .port(HTTP, Protocol::Tcp, 80)
        .node_port(30_080)
        .port(DNS, Protocol::Udp, 53);
    cluster.serve("web", &web).expect("manifests");
    let single = |name: &str, address: &str| Service::new(name, &[address]).port("", Protocol::Tcp, 80);
    manifests.write("empty.yaml", &[&single("empty", "10.96.0.99")]).expect("manifests");
    let cgroup = client.cgroup().child(&format!("pod{}", uid(0))).expect("a cgroup");
    // As some runtimes have it, the first process in the Pod's cgroup is in the node's network namespace.
    let _monitor = Pause::start(&lab.node().in_cgroup(&cgroup), &["sleep", "120"]);
    let _pause = Pause::start(&client.in_cgroup(&cgroup), &["sleep", "120"]);
    let address = client.v4.to_string();
    let pods = [
        pod("default", "client", &uid(0), &address),
        pod("shop", "elsewhere", "0", "10.244.1.99"),
        pod("test", "twin", "1", "10.244.1.97"),
        pod("shop", "twin", "2", "10.244.1.98"),
        pod("shop", "proxy", "3", "192.0.2.10").replace("spec: {", "spec: {hostNetwork: true, "),
        pod("shop", "away", "4", "10.244.2.9").replace(NODE_NAME, "another"),
    ];
    manifests.write_text("pods.yaml", &pods.join("---\n")).expect("manifests");
    let mut agent = lab.agent().expect("an agent");

    // Each port in each family; the client is its network namespace.
    let all = explained(lab, &["client", "web"]);
    let expected =
        ["10.96.0.10:53/UDP", "[fd00:10:96::10]:53/UDP", "10.96.0.10:80/TCP", "[fd00:10:96::10]:80/TCP"];
    assert_eq!(destinations(&all), expected);
    for told in &all {
        let (who, path) = (told["client"].as_str(), told["path"].as_str());
        assert!(who.is_some_and(|who| who.starts_with("Pod default/client, /proc/")), "{told}");
        assert!(path.is_some_and(|path| path.starts_with("socket: ")), "{told}");
        assert_eq!(told["candidates"].as_array().map(Vec::len), Some(2), "{told}");
    }
    let _ = client.run(|| connect(at("10.96.0.99:80")));
    assert_eq!(explained(lab, &["client", "empty"])[0]["refusedBefore"]["no-endpoints"], 1);

    // One of the ports, by name, number or protocol; of the NodePort by its own.
    let (v4, v6) = ("10.96.0.10:80/TCP", "[fd00:10:96::10]:80/TCP");
    for (client, wanted, expected) in [
        ("default/client", "default/web:http", &[v4, v6][..]),
        ("client", "web:80", &[v4, v6]),
        ("client", "web.default.svc.cluster.local:80/tcp", &[v4, v6]),
        ("client", "web:53/udp", &["10.96.0.10:53/UDP", "[fd00:10:96::10]:53/UDP"]),
        ("client", "web:30080", &["192.0.2.10:30080/TCP", "[2001:db8:192::10]:30080/TCP"]),
        ("outside:198.51.100.7", "web:80", &["192.0.2.10:30080/TCP"]),
        ("outside:2001:db8::7", "web:http", &["[2001:db8:192::10]:30080/TCP"]),
        // Of this one only an IPv4 address is known.
        ("elsewhere", "default/web:80", &[v4]),
        ("shop/proxy", "default/web:80", &[v4, v6]),
    ] {
        let told = explained(lab, &[client, wanted]);
        assert_eq!(destinations(&told), expected, "{client} {wanted}");
        assert!(told.iter().all(|told| told["decision"] == "forward"), "{client} {wanted}: {told:?}");
    }
    let who = |name: &str| explained(lab, &[name, "default/web:80"])[0]["client"].as_str().map(str::to_owned);
    assert!(who("proxy").is_some_and(|who| who.contains("in the node's network namespace")));
    assert!(who("elsewhere").is_some_and(|who| who.contains("10.244.1.99; neither a process")));

    // What cannot be found is told with what is near.
    for (arguments, parts) in [
        (["clinet", "web"], &["no Pod `clinet`", "`default/client`"][..]),
        (["away", "web"], &["no Pod `away`"]),
        (["twin", "web"], &["several", "shop/twin, test/twin"]),
        (["client", "wep"], &["no Service `wep`", "`default/web`"]),
        (["client", "web:htpp"], &["default/web has no port `htpp`", "default/web:http/TCP"]),
        (["client", "web:53/tcp"], &["default/web has no port `53/TCP`"]),
        (["outside:198.51.100.7", "empty"], &["no address that such a client could use"]),
        (["proxy", "web"], &["no Service `web` is installed in `shop`", "`web.default`"]),
    ] {
        let error = explain(lab, &arguments).expect_err("nothing there");
        assert!(parts.iter().all(|part| error.contains(part)), "{arguments:?}: {error}");
    }

    // A Pod that is gone is known no more; without the agent what it knew last is.
    manifests.write_text("pods.yaml", &pods[..1].join("---\n")).expect("manifests");
    eventually("the others are gone", || {
        explain(lab, &["elsewhere", "web:80"]).is_err_and(|error| error.contains("no Pod `elsewhere`"))
    });
    agent.kill().expect("a running agent");
    assert_eq!(explained(lab, &["client", "empty"])[0]["reason"], "no-endpoints");
}

fn destinations(told: &[Value]) -> Vec<&str> {
    told.iter().filter_map(|told| told["destination"].as_str()).collect()
}

/// Where the agent may not read Pods.
#[test]
fn a_pod_has_its_name_as_host_name() {
    let cluster = cluster!(1);
    cluster.serve("web", &service("web", &["10.96.0.10"])).expect("manifests");
    let _agent = cluster.lab.agent().expect("an agent");
    let name = format!("shop-{}", std::process::id());
    let script = format!("hostname {name} && exec sleep 120");
    let _pause = Pause::start(&cluster.client, &["unshare", "--uts", "sh", "-c", &script]);
    let mut told = String::new();
    // With a namespace as well, which a host name does not have.
    eventually("it is found", || explain(&cluster.lab, &[&format!("shop/{name}"), "web:80"]).is_ok());
    eventually("it is found", || match explain(&cluster.lab, &[&name, "web:80"]) {
        Ok(text) => {
            told = text;
            true
        }
        Err(error) => {
            assert!(error.contains("has told of no Pods"), "{error}");
            false
        }
    });
    assert!(
        told.contains(&format!("host name {name}, /proc/")) && told.contains("path        socket: "),
        "{told}"
    );
    let error = explain(&cluster.lab, &[&format!("{name}x"), "web:80"]).expect_err("no such pod");
    assert!(error.contains(&format!("`{name}`")), "{error}");
}

#[test]
fn a_probe_tells_which_endpoint_does_not_answer() {
    let cluster = cluster!(2);
    let lab = &cluster.lab;
    let mut slice = cluster.slice_v4("web", [0]);
    // Nobody listens at this one; nobody is at the other.
    let refusing = cluster.client.v4;
    slice = slice.ready(refusing).ready([10, 244, 1, 250]);
    lab.manifests().write("web.yaml", &[&service("web", &["10.96.0.10"]), &slice]).expect("manifests");
    // Where the cause is to be looked for, is asked in the network namespaces of Pods.
    let (mut cgroups, mut pauses, mut pods) = (Vec::new(), Vec::new(), Vec::new());
    for (number, place) in [&cluster.client, &cluster.backends[0].place].into_iter().enumerate() {
        let uid = uid(number);
        let cgroup = place.cgroup().child(&format!("pod{uid}")).expect("a cgroup");
        pauses.push(Pause::start(&place.in_cgroup(&cgroup), &["sleep", "120"]));
        cgroups.push(cgroup);
        pods.push(pod("shop", &format!("pod-{number}"), &uid, &place.v4.to_string()));
    }
    lab.manifests().write_text("pods.yaml", &pods.join("---\n")).expect("manifests");
    let wrong =
        EndpointSlice::new("wrong").port(HTTP, Protocol::Tcp, 8888).ready(cluster.backends[0].place.v4);
    lab.manifests().write("wrong.yaml", &[&service("wrong", &["10.96.0.11"]), &wrong]).expect("manifests");
    let _agent = lab.agent().expect("an agent");
    let client = format!("netns:{}", cluster.backends[1].place.namespace().name());
    let told = explained(lab, &[&client, "web:80", "--probe"]);
    let probes = told[0]["probes"].as_array().expect("probes");
    let of = |address: &str| {
        let found = probes.iter().find(|probe| probe["address"] == address);
        found.unwrap_or_else(|| panic!("{address}: {probes:?}"))
    };
    assert_eq!(probes.len(), 4, "{probes:?}");
    assert_eq!(probes[0]["address"], "10.96.0.10:80");
    let serving = of(&format!("{}:{HTTP_PORT}", cluster.backends[0].place.v4));
    assert!(serving["error"].is_null(), "{serving}");
    assert!(serving["microseconds"].as_u64().is_some_and(|took| took < 1_000_000), "{serving}");
    let refused = of(&format!("{refusing}:{HTTP_PORT}"));
    assert!(refused["error"].as_str().is_some_and(|error| error.starts_with("refused")), "{refused}");
    let silent = of(&format!("10.244.1.250:{HTTP_PORT}"));
    let error = silent["error"].as_str().unwrap_or_default();
    assert!(error.contains("no answer") || error.contains("no route"), "{silent}");
    assert!(silent["hint"].is_null(), "nobody has the address: {silent}");
    assert_eq!(refused["hint"], "nothing listens in its network namespace");
    let text = explain(lab, &[&client, "wrong:80", "--probe"]).expect("an explanation");
    assert!(text.contains("(Pod shop/pod-1): NOT connected: refused, "), "{text}");
    assert!(text.contains("it listens at 8080, not there\n            no endpoint answers\n"), "{text}");

    // The Service itself, with one endpoint that serves.
    let one = cluster.slice_v4("web", [0]);
    lab.manifests().write("web.yaml", &[&service("web", &["10.96.0.10"]), &one]).expect("manifests");
    eventually("the Service answers", || {
        let told = explained(lab, &[&client, "web:80", "--probe"]);
        told[0]["probes"].as_array().is_some_and(|probes| probes.iter().all(|probe| probe["error"].is_null()))
    });
    for (client, wanted, why) in [
        ("10.244.1.77", "web:80", "only what runs on this node"),
        (&*client, "web:53", "only TCP"),
        (&*client, "10.96.0.10:81", "refused before any packet is sent (unknown-port)"),
        (&*client, "10.244.1.77:80", "not the address of a Service"),
    ] {
        let told = explain(lab, &[client, wanted, "--probe"]).expect("an explanation");
        assert!(told.contains("probe       none: ") && told.contains(why), "{client} {wanted}: {told}");
    }
    // Where the programs do not see this process.
    let told = lab.sidestep(&["explain", &client, "web:80", "--probe"]).expect("it runs");
    let told = String::from_utf8_lossy(&told.stdout).into_owned();
    assert!(told.contains("in a cgroup that the socket programs do not serve"), "{told}");
}
