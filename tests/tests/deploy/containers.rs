//! In a container the cgroup looks like the root, and bpffs may be the container's own: the agent tells them from the
//! node's, and refuses to start on them. The `DaemonSet`'s capabilities are enough for everything that the agent does.

use std::{
    fs,
    net::Ipv4Addr,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    thread::sleep,
    time::Duration,
};

use serde_json::Value;
use sidestep_tests::{
    Agent, agent, cgroup, cluster,
    cluster::{DNS_PORT, at, service},
    devices, eventually,
    eventually::wait_for,
    skip,
    traffic::Asker,
};

/// An ordinary cgroup below this process's own; removed on drop.
struct Pod {
    cgroup: PathBuf,
}

impl Pod {
    fn new(name: &str) -> Self {
        let own = cgroup::own_directory().expect("a cgroup");
        let cgroup = own.join(format!("ss-{}-{name}", std::process::id()));
        fs::create_dir(&cgroup).expect("a cgroup");
        Self { cgroup }
    }

    /// Runs `script` like a container's first process, in cgroup and mount namespaces of its own. In it, `$sidestep` is
    /// the binary and `$mount` the mount point of cgroup2.
    fn run(&self, script: &str) -> Output {
        // As in every pod. Otherwise the agent looks at PID 1, which some machines hide even from root.
        self.command("", script).env("KUBERNETES_SERVICE_HOST", "10.96.0.1").output().expect("sh")
    }

    /// Runs `script` as the first process of a node that is itself a container, as kind makes them.
    fn run_as_node(&self, script: &str) -> String {
        let namespaces = "--pid --fork --mount-proc --net";
        let output =
            self.command(namespaces, script).env_remove("KUBERNETES_SERVICE_HOST").output().expect("sh");
        let [text, errors] =
            [&output.stdout, &output.stderr].map(|text| String::from_utf8_lossy(text).into_owned());
        assert!(output.status.success(), "{}: {text}{errors}", output.status);
        text
    }

    fn command(&self, namespaces: &str, script: &str) -> Command {
        let enter = r#"echo $$ > "$cgroup/cgroup.procs" &&
            exec timeout 30 unshare --cgroup --mount --propagation slave $namespaces sh -ec "$script""#;
        let own = cgroup::own_directory().expect("a cgroup");
        let mount = own.ancestors().filter(|path| path.join("cgroup.controllers").exists()).last();
        let mut command = Command::new("sh");
        command.args(["-c", enter]).env("cgroup", &self.cgroup).env("script", script);
        command.env("namespaces", namespaces);
        command.env("mount", mount.expect("cgroup2")).env("sidestep", agent::binary().expect("a binary"));
        command
    }

    /// The outcome and detail of doctor's `check` after `script`.
    fn check(&self, script: &str, check: &str) -> (String, String) {
        let output = self.run(&format!("{script}\n\"$sidestep\" doctor --output json || true"));
        outcome(&String::from_utf8_lossy(&output.stdout), check)
    }
}

/// The outcome and detail of `check` in doctor's JSON.
fn outcome(text: &str, check: &str) -> (String, String) {
    let checks: Vec<Value> = serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"));
    let found = checks.iter().find(|found| found["name"] == check).expect("the check");
    let field = |name: &str| found[name].as_str().expect("text").to_owned();
    (field("outcome"), field("detail"))
}

impl Drop for Pod {
    fn drop(&mut self) {
        let gone = || fs::remove_dir(&self.cgroup).is_ok();
        if let Err(error) = wait_for(Duration::from_secs(2), "the cgroup to be empty", gone) {
            eprintln!("{}: {error:#}", self.cgroup.display());
        }
    }
}

/// Replaces the machine's cgroup2 mount by the container's own.
const OWN_CGROUP: &str = r#"umount -l "$mount" && mount -t cgroup2 none "$mount""#;

#[test]
fn in_a_private_cgroup_namespace_the_agent_refuses_to_start() {
    if let Some(reason) = skip::missing() {
        skip!("{reason}");
    }
    let pod = Pod::new("refuse");
    let folder = tempfile::tempdir().expect("a folder");
    let arguments = format!("--manifests {0} --run-dir {0}", folder.path().display());
    let output =
        pod.run(&format!("{OWN_CGROUP}\nexec \"$sidestep\" run {arguments} --pin-dir /sys/fs/bpf/{PINS}"));
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains("is this container's, not the node's") && text.contains("hostPath"), "{text}");
    assert!(!Path::new("/sys/fs/bpf").join(PINS).exists(), "the agent made its pin directory");
    let (outcome, detail) = pod.check(OWN_CGROUP, "cgroup2");
    assert_eq!(outcome, "failed", "{detail}");
}

/// The name of a pin directory that must not be created.
const PINS: &str = "ss-refused";

#[test]
fn the_nodes_cgroup_is_found_where_it_was_mounted_into_the_container() {
    if let Some(reason) = skip::missing() {
        skip!("{reason}");
    }
    let pod = Pod::new("given");
    let folder = tempfile::tempdir().expect("a folder");
    let given = folder.path().join("cgroup");
    fs::create_dir(&given).expect("a folder");
    let script = format!("mount --bind \"$mount\" {}\n{OWN_CGROUP}", given.display());
    assert_eq!(pod.check(&script, "cgroup2"), ("ok".to_owned(), given.display().to_string()));
}

/// On hybrid cgroups a pod is in its node's cgroup namespace. Where the node is itself a container, its cgroup looks like a
/// pod's own; with `hostPID`, PID 1 tells.
#[test]
fn the_cgroup_of_a_node_that_is_a_container_is_found_from_a_pod_in_its_cgroup_namespace() {
    if let Some(reason) = skip::missing() {
        skip!("{reason}");
    }
    let pod = Pod::new("node");
    // The pod has the node's processes and cgroup namespace, and mounts of its own.
    let script = |namespaces: &str, before: &str| {
        format!(
            r#"{OWN_CGROUP}
            mkdir "$mount/kubepods"
            export KUBERNETES_SERVICE_HOST=10.96.0.1
            sh -c 'echo $$ > "$mount/kubepods/cgroup.procs"
                exec unshare --mount {namespaces} sh -c "$0"' '{before} "$sidestep" doctor --output json || true'
            rmdir "$mount/kubepods""#
        )
    };
    let (found, detail) = outcome(&pod.run_as_node(&script("", "")), "cgroup2");
    assert_eq!(found, "ok", "{detail}");
    assert!(detail.starts_with("/sys/fs/cgroup"), "{detail}");
    // With a cgroup namespace of its own it sees its own cgroup, whoever PID 1 is.
    let (found, detail) =
        outcome(&pod.run_as_node(&script("--cgroup", &format!("{OWN_CGROUP};"))), "cgroup2");
    assert!(found == "failed" && detail.contains("is this container's"), "{found}: {detail}");
}

/// The agent waits for cgroup2, says so, and goes on when it is mounted.
#[test]
fn cgroup2_may_be_mounted_after_the_agent_was_started() {
    if let Some(reason) = skip::missing() {
        skip!("{reason}");
    }
    let pod = Pod::new("late");
    let folder = tempfile::tempdir().expect("a folder");
    let script = format!(
        r#"umount -l "$mount"
        mount -t bpf none /sys/fs/bpf
        "$sidestep" run --manifests {0} --run-dir {0}/run --interface none --node-name n1 2> {0}/log &
        agent=$!
        until_says() {{
            for try in $(seq 100); do
                "$sidestep" status --run-dir {0}/run > {0}/said 2>&1 || true
                if grep -q "$1" {0}/said; then cat {0}/said; return; fi
                sleep 0.1
            done
            cat {0}/said {0}/log; exit 1
        }}
        until_says "waits: cgroup2 is not mounted"
        mount -t cgroup2 none "$mount"
        until_says ": in sync"
        kill $agent
        wait $agent
        "$sidestep" cleanup --run-dir {0}/run"#,
        folder.path().display()
    );
    let text = pod.run_as_node(&script);
    assert!(text.contains("programs  all 9 attached"), "{text}");
}

#[test]
fn a_bpf_file_system_of_the_containers_own_is_refused() {
    if let Some(reason) = skip::missing() {
        skip!("{reason}");
    }
    let pod = Pod::new("bpffs");
    let (outcome, detail) = pod.check("mount -t bpf none /sys/fs/bpf", "bpffs");
    assert!(outcome == "failed" && detail.contains("belongs to this container"), "{outcome}: {detail}");
    let (outcome, detail) = pod.check("mount --make-shared /sys/fs/bpf", "bpffs");
    assert_ne!(outcome, "failed", "{detail}");
}

#[test]
fn a_read_only_sysctl_is_reported() {
    if let Some(reason) = skip::missing() {
        skip!("{reason}");
    }
    let pod = Pod::new("sysctl");
    let read_only = "mount --bind /proc/sys /proc/sys && mount -o remount,bind,ro /proc/sys";
    let (outcome, detail) = pod.check(read_only, "reserved source ports");
    assert!(outcome == "warning" && detail.contains("ip_local_reserved_ports"), "{outcome}: {detail}");
    let folder = tempfile::tempdir().expect("a folder");
    let given = folder.path().join("given");
    fs::write(&given, "").expect("a file to mount on");
    let file = "/proc/sys/net/ipv4/ip_local_reserved_ports";
    let script = format!("mount --bind {file} {} && {read_only}", given.display());
    let (outcome, detail) = pod.check(&script, "reserved source ports");
    assert!(outcome == "ok" && detail.contains(&given.display().to_string()), "{outcome}: {detail}");
}

/// The capabilities of the `DaemonSet`'s container, as `setpriv` spells them.
fn daemon_sets_capabilities() -> Vec<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/base/daemonset.yaml");
    let manifest: Value =
        serde_saphyr::from_str(&fs::read_to_string(path).expect("the manifest")).expect("YAML");
    let pod = &manifest["spec"]["template"]["spec"];
    assert_eq!(pod["hostPID"], true);
    let added = &pod["containers"][0]["securityContext"]["capabilities"]["add"];
    added
        .as_array()
        .expect("a list")
        .iter()
        .map(|name| name.as_str().expect("a name").to_lowercase())
        .collect()
}

/// A command that executes another one with only these capabilities, in cgroup and mount namespaces of its own.
fn container(capabilities: &[String]) -> Vec<String> {
    let set: Vec<String> = capabilities.iter().map(|name| format!("+{name}")).collect();
    let set = format!("--bounding-set=-all,{}", set.join(","));
    let parts = ["unshare", "--cgroup", "--mount", "--propagation", "slave", "setpriv", &set];
    parts.map(str::to_owned).to_vec()
}

/// A process of an ordinary user that holds the only descriptor of a connected UDP socket, and reads from it.
struct Reader(Child);

impl Reader {
    fn start(socket: Asker) -> Self {
        let mut command = Command::new("setpriv");
        command.args(["--reuid=65534", "--regid=65534", "--clear-groups", "cat"]);
        command
            .stdin(OwnedFd::from(socket.into_socket().expect("a socket")))
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        Self(command.spawn().expect("setpriv of util-linux"))
    }

    /// Whether the kernel has the socket connected to this address.
    fn is_connected_to(&mut self, address: Ipv4Addr) -> bool {
        assert!(self.0.try_wait().expect("a child").is_none(), "its reads fail");
        let sockets =
            fs::read_to_string(format!("/proc/{}/net/udp", self.0.id())).expect("its namespace's sockets");
        sockets.contains(&format!("{:08X}:{DNS_PORT:04X}", u32::from_ne_bytes(address.octets())))
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// ST-5 from within a pod of the `DaemonSet`: the agent moves sockets of any user. Without the capability to borrow them
/// they stay, and everything else works.
#[test]
fn the_daemon_sets_capabilities_are_enough_to_move_sockets_of_endpoints_that_are_gone() {
    let cluster = cluster!(2);
    let capabilities = daemon_sets_capabilities();
    let manifests = cluster.lab.manifests();
    manifests.write("dns.yaml", &[&service("dns", &["10.96.0.53"])]).expect("manifests");
    let vip = at("10.96.0.53:53");
    let reader = || {
        let asker = Asker::v4().expect("a socket");
        asker.connect(vip).expect("connect");
        Reader::start(asker)
    };
    let [old, new] = [0, 1].map(|backend| cluster.backends[backend].place.v4);
    for lacking in [Some("sys_ptrace"), None] {
        cluster.endpoints("dns", &cluster.slice_v4("dns", [0])).expect("manifests");
        let given: Vec<String> =
            capabilities.iter().filter(|name| Some(name.as_str()) != lacking).cloned().collect();
        assert!(lacking.is_none() || given.len() < capabilities.len(), "{lacking:?} is not in the manifest");
        let mut agent = Agent::reading(&cluster.lab).wrapped(container(&given));
        agent = agent.variable("KUBERNETES_SERVICE_HOST", "10.96.0.1");
        agent.restart(&cluster.lab).expect("an agent");
        // Its own namespace is the client's: the child inherits that of the thread that starts it.
        let mut reader = cluster.client.run(reader);
        assert!(reader.is_connected_to(old));
        cluster.endpoints("dns", &cluster.slice_v4("dns", [1])).expect("manifests");
        if let Some(lacking) = lacking {
            eventually("new sockets reach the new endpoint", || {
                let asker = cluster.client.run(Asker::v4).expect("a socket");
                asker.ask(vip).is_ok_and(|(answer, _)| answer.server == "pod-1")
            });
            sleep(Duration::from_millis(1500));
            assert!(reader.is_connected_to(old), "{lacking} is not needed: remove it from the manifest");
        } else {
            eventually("the socket is connected to the new endpoint", || reader.is_connected_to(new));
            // The capabilities are enough for the packet path, too.
            assert_eq!(devices::names(&cluster.lab), ["uplink"]);
        }
        agent.stop().expect("it ends");
    }
}
