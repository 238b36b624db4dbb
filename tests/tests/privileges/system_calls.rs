//! The system calls that the agent makes and the files that it opens, under `strace` through start, changes, a crash and a
//! restart, are those of two lists beside this test, each with its reason. A call or a file that is not there fails.

use std::{
    collections::BTreeSet,
    fs,
    io::{Read as _, Write as _},
    net::{Ipv4Addr, TcpStream},
    process::Command,
    time::Duration,
};

use sidestep_tests::{
    Agent, Lab,
    api_server::{ApiServer, Objects},
    cluster,
    cluster::{Cluster, at, service},
    eventually,
    manifest::Node,
    skip,
    traffic::{Asker, ask},
};

/// Beginnings of calls that change a file by its path.
const CHANGES: [&str; 9] =
    ["mkdir", "rmdir", "unlink", "rename", "chmod", "fchmodat", "symlink", "mknod", "truncate"];
/// `name name …`, one group a line, after a line `# reason`.
const CALLS: &str = include_str!("system_calls.txt");
/// `r PREFIX` or `w PREFIX`, after a line `# reason`.
const FILES: &str = include_str!("files.txt");

#[test]
fn an_agent_that_reads_manifests_makes_only_known_calls_and_opens_only_known_files() {
    let cluster = cluster!(2);
    if let Some(reason) = missing() {
        skip!("{reason}");
    }
    let agent = Agent::reading(&cluster.lab).arguments(["--metrics-bind-address", "127.0.0.1:10249"]);
    let changes = |name: &str, address: &str, endpoint| {
        let manifests = cluster.lab.manifests();
        manifests.write(&format!("{name}.yaml"), &[&service(name, &[address])]).expect("manifests");
        cluster.endpoints(name, &cluster.slice_v4(name, [endpoint])).expect("manifests");
    };
    exercise(&cluster, agent, changes);
}

#[test]
fn an_agent_that_follows_an_api_server_makes_only_known_calls_and_opens_only_known_files() {
    let cluster = cluster!(2);
    if let Some(reason) = missing() {
        skip!("{reason}");
    }
    let objects = Objects::default();
    let object =
        |manifest: &dyn std::fmt::Display| serde_saphyr::from_str(&manifest.to_string()).expect("YAML");
    objects.put(object(&Node::lab()));
    let server = ApiServer::start(cluster.lab.node().namespace(), objects.clone()).expect("an API server");
    // By name, so that it is looked up.
    let url = server.url().replace("127.0.0.1", "localhost");
    let changes = |name: &str, address: &str, endpoint| {
        objects.put(object(&service(name, &[address])));
        objects.put(object(&cluster.slice_v4(name, [endpoint])));
    };
    exercise(&cluster, Agent::at(&cluster.lab, &url), changes);
}

fn missing() -> Option<String> {
    let works = Command::new("strace").arg("-V").output().is_ok_and(|output| output.status.success());
    (!works).then(|| "the program `strace` is not installed".to_owned())
}

/// Starts the agent, changes Services, endpoints and devices, kills it and starts it again.
fn exercise(cluster: &Cluster, agent: Agent, change: impl Fn(&str, &str, usize)) {
    let lab = &cluster.lab;
    let trace = lab.run_directory().join("trace");
    let path = trace.to_str().expect("UTF-8");
    // `-E`: without the libraries of the tests' own. `-D`: the agent keeps the process id that the lab knows.
    let strace =
        ["strace", "-D", "-f", "-qq", "-A", "-E", "LD_LIBRARY_PATH", "-e", "signal=none", "-o", path];
    let mut agent = agent.wrapped(strace);
    lab.manifests().write("node.yaml", &[&Node::lab()]).expect("manifests");
    change("web", "10.96.0.10", 0);
    agent.restart(lab).expect("an agent");
    let who = || cluster.client.run(|| ask(at("10.96.0.10:80")).map(|answer| answer.server).ok());
    assert_eq!(who().as_deref(), Some("pod-0"));
    // A connected UDP socket, whose endpoint goes.
    let asker = cluster.client.run(Asker::v4).expect("a socket");
    cluster.client.run(|| asker.connect(at("10.96.0.10:53"))).expect("connect");
    change("web", "10.96.0.10", 1);
    eventually("the change is followed", || who().as_deref() == Some("pod-1"));
    change("other", "10.96.0.11", 0);
    eventually("another Service", || cluster.client.run(|| ask(at("10.96.0.11:80"))).is_ok());
    let uplink = "link add extra type veth peer name far
link set far up
addr add 198.18.5.1/24 dev extra
link set extra up
route add 198.18.6.0/24 via 198.18.5.2
";
    lab.node().namespace().ip_batch(uplink).expect("an uplink");
    let is_served = || sidestep_tests::devices::names(lab).iter().any(|name| name == "extra");
    eventually("the new uplink has our programs", is_served);
    lab.node().namespace().ip_batch("link del extra\n").expect("deleted");
    eventually("it is gone", || !is_served());
    for path in ["10256 /healthz", "10249 /metrics"] {
        lab.node().run(|| get(path));
    }
    // A look around.
    std::thread::sleep(Duration::from_secs(6));
    agent.kill().expect("kill -9");
    agent.restart(lab).expect("restart");
    assert_eq!(who().as_deref(), Some("pod-1"));
    agent.stop().expect("it stops");
    drop(asker);
    judge(lab, &fs::read_to_string(trace).expect("a trace"));
}

/// Asks one of the listeners, if there is one, and takes the whole answer.
fn get(what: &str) {
    let (port, path) = what.split_once(' ').expect("a port and a path");
    let Ok(mut stream) = TcpStream::connect((Ipv4Addr::LOCALHOST, port.parse().expect("a port"))) else {
        return;
    };
    write!(stream, "GET {path} HTTP/1.1\r\nHost: node\r\nConnection: close\r\n\r\n").expect("asked");
    stream.read_to_end(&mut Vec::new()).expect("an answer");
}

/// Compares with the lists.
fn judge(lab: &Lab, trace: &str) {
    let known: BTreeSet<&str> = lines(CALLS).flat_map(str::split_whitespace).collect();
    let (mut calls, mut files) = (BTreeSet::new(), BTreeSet::new());
    for line in trace.lines() {
        let Some((_, told)) = line.split_once(' ') else { continue };
        let Some((call, arguments)) = told.trim_start().split_once('(') else { continue };
        if !call.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_') {
            continue;
        }
        if !known.contains(call) {
            calls.insert(call.to_owned());
        }
        let opens = ["open", "openat", "openat2", "creat"].contains(&call);
        let changes = CHANGES.iter().any(|change| call.starts_with(change));
        if (opens || changes)
            && let Some((_, rest)) = arguments.split_once('"')
            && let Some((path, flags)) = rest.split_once('"')
        {
            let writes = changes || ["O_WRONLY", "O_RDWR", "O_CREAT"].iter().any(|flag| flags.contains(flag));
            let path = placed(lab, path);
            if !is_known(&path, writes) {
                files.insert(format!("{} {path}", if writes { "w" } else { "r" }));
            }
        }
    }
    assert_eq!(calls, BTreeSet::new(), "system calls that system_calls.txt does not list");
    assert_eq!(files, BTreeSet::new(), "files that files.txt does not list");
    let executed = trace.matches(" execve(").count();
    assert_eq!(executed, 2, "it executes other programs");
}

fn lines(list: &str) -> impl Iterator<Item = &str> {
    list.lines().filter(|line| !line.is_empty() && !line.starts_with('#'))
}

/// The path with the lab's directories as an installation has them.
fn placed(lab: &Lab, path: &str) -> String {
    let manifests = lab.manifests();
    for (directory, name) in [
        (lab.pin_directory(), "PINS"),
        (&lab.run_directory(), "RUN"),
        (manifests.directory(), "MANIFESTS"),
        (lab.root().path(), "CGROUP"),
    ] {
        if let Some(rest) = path.strip_prefix(&directory.display().to_string()) {
            return format!("{name}{rest}");
        }
    }
    // Numbers of processes, threads and descriptors.
    let parts = path.split('/').map(|part| {
        if !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit()) { "N" } else { part }
    });
    parts.collect::<Vec<_>>().join("/")
}

/// Whether the list has the path, or a beginning of it that ends with a star.
fn is_known(path: &str, writes: bool) -> bool {
    lines(FILES).any(|line| {
        let (mode, listed) = line.split_once(' ').expect("a mode and a path");
        (mode == "w" || !writes)
            && listed.strip_suffix('*').map_or(path == listed, |beginning| path.starts_with(beginning))
    })
}
