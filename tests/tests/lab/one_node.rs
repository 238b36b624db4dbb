//! The lab of one node: its devices carry packets, and a dropped lab leaves nothing behind.

use sidestep_tests::{
    lab,
    traffic::{Asker, TcpServer, UdpServer, ask, connect, is_refused},
};

#[test]
fn pods_reach_each_other_and_the_nodes_in_both_families() {
    let lab = lab!();
    let client = lab.pod("client").expect("a pod");
    let server = lab.pod("server").expect("a pod");
    for (place, name) in [(&server, "pod"), (lab.node(), "node"), (lab.other_node(), "other")] {
        let _tcp = TcpServer::start(place, name, 8080).expect("a server");
        for address in place.addresses() {
            let destination = (address, 8080).into();
            let _udp = UdpServer::start_at(place, name, destination).expect("a server");
            let answer = client.run(|| ask(destination)).expect("an answer");
            assert_eq!((answer.server.as_str(), answer.local), (name, destination));
            assert!(client.addresses().contains(&answer.client.ip()), "{answer:?}");
            let (answer, source) =
                client.run(|| Asker::for_address(destination)?.ask(destination)).expect("an answer");
            assert_eq!((answer.server.as_str(), source), (name, destination));
        }
    }
}

#[test]
fn a_port_without_a_server_refuses() {
    let lab = lab!();
    let client = lab.pod("client").expect("a pod");
    assert!(is_refused(&client.run(|| connect((client.v4, 1).into()))));
}

#[test]
fn a_dropped_lab_leaves_nothing_behind() {
    let lab = lab!();
    let pod = lab.pod("pod").expect("a pod");
    let paths = [
        pod.namespace().path(),
        pod.cgroup().path().to_owned(),
        lab.root().path().to_owned(),
        lab.run_directory(),
        lab.node().namespace().path(),
    ];
    assert!(paths.iter().all(|path| path.exists()));
    drop(pod);
    drop(lab);
    for path in paths {
        assert!(!path.exists(), "{} is still there", path.display());
    }
}
