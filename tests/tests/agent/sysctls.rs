//! The agent changes no sysctl but one, and restores that.

use std::{collections::BTreeMap, fs, path::Path};

use sidestep_tests::{
    Place, cluster,
    cluster::{Cluster, HTTP, at},
    manifest::{Protocol, Service},
    traffic::ask,
};

/// Every readable sysctl of a place's network namespace, except counters.
fn settings(place: &Place) -> BTreeMap<String, String> {
    fn read(folder: &Path, settings: &mut BTreeMap<String, String>) {
        for entry in fs::read_dir(folder).expect("/proc/sys/net").filter_map(Result::ok) {
            let path = entry.path();
            if path.is_dir() {
                read(&path, settings);
            } else if !path.ends_with("nf_conntrack_count")
                && let Ok(value) = fs::read_to_string(&path)
            {
                settings.insert(path.display().to_string(), value);
            }
        }
    }
    place.run(|| {
        let mut settings = BTreeMap::new();
        read(Path::new("/proc/sys/net"), &mut settings);
        settings
    })
}

fn all(cluster: &Cluster) -> [BTreeMap<String, String>; 2] {
    [cluster.lab.node(), &cluster.client].map(settings)
}

/// The ports that the kernel assigns to no socket automatically.
const RESERVED: &str = "/proc/sys/net/ipv4/ip_local_reserved_ports";

/// ST-7: an agent that starts, serves, ends and cleans up reserves the ports of masqueraded packets and NodePorts in
/// use, and sets no other sysctl, neither conntrack's nor `route_localnet` for NodePorts at loopback.
#[test]
fn one_sysctl_is_set_and_given_back() {
    let cluster = cluster!(1);
    let service = Service::new("web", &["10.96.0.10"]).port(HTTP, Protocol::Tcp, 80).node_port(30080);
    cluster.serve("web", &service).expect("manifests");
    let before = all(&cluster);
    for name in ["ipv4/ip_forward", "ipv4/conf/all/route_localnet", "ipv4/ip_local_reserved_ports"] {
        assert!(before[0].contains_key(&format!("/proc/sys/net/{name}")), "{name} of {}", before[0].len());
    }
    let mut with_ports = before.clone();
    let former = with_ports[0].insert(RESERVED.to_owned(), "30080,49152-65535\n".to_owned());
    assert_eq!(former.as_deref(), Some("\n"));
    let mut agent = cluster.lab.agent().expect("an agent");
    cluster.client.run(|| ask(at("10.96.0.10:80"))).expect("an answer");
    cluster.lab.node().run(|| ask(at("127.0.0.1:30080"))).expect("an answer");
    assert_eq!(all(&cluster), with_ports, "sysctls while the agent runs");
    agent.stop().expect("it stops");
    assert_eq!(all(&cluster), with_ports, "sysctls after the agent stopped, while the programs still run");
    assert!(cluster.lab.sidestep(&["cleanup"]).expect("cleanup runs").status.success());
    assert_eq!(all(&cluster), before, "sysctls after the cleanup");
}
