//! The lab relies on this: a BPF program on a threaded cgroup sees the sockets of the threads below it, and no others.

use std::io::ErrorKind;

use sidestep_tests::{
    bpftool,
    foreign::{ForeignProgram, Verdict},
    lab,
    traffic::{TcpServer, connect},
};

#[test]
fn a_program_sees_the_sockets_of_the_labs_threads_and_no_others() {
    let lab = lab!();
    let pod = lab.pod("pod").expect("a pod");
    let _server = TcpServer::start(&pod, "server", 8080).expect("a server");
    let _foreign = ForeignProgram::attach(lab.root().path(), Verdict::Deny).expect("attaching");
    assert_eq!(bpftool::cgroup_programs(lab.root().path()).expect("bpftool").len(), 1);

    let address = (pod.v4, 8080).into();
    let denied = pod.run(|| connect(address)).map_err(|error| error.kind());
    assert_eq!(denied.err(), Some(ErrorKind::PermissionDenied));
    pod.in_cgroup(lab.outside()).run(|| connect(address)).expect("beside the program's cgroup");
}
