//! No inotify: the user has as many instances as the kernel allows. The agent looks at the manifests every few seconds,
//! and says so.

use sidestep_tests::{
    Agent, cluster,
    cluster::{at, service},
    eventually,
    traffic::ask,
};

use super::status;

#[test]
fn without_inotify_changes_are_found_and_the_delay_is_reported() {
    let cluster = cluster!(1);
    let lab = &cluster.lab;
    cluster.serve("web", &service("web", &["10.96.0.10"])).expect("manifests");
    let agent =
        Agent::reading(lab).denied(libc::SYS_inotify_init1, libc::EMFILE).started(lab).expect("an agent");
    let named = || agent.report().is_ok_and(|report| report.names("manifests", "inotify"));
    assert!(named(), "{:?}", agent.report());
    assert!(status(lab).contains("fs.inotify.max_user_instances"), "{}", status(lab));
    cluster.serve("new", &service("new", &["10.96.0.11"])).expect("manifests");
    eventually("the change is found", || cluster.client.run(|| ask(at("10.96.0.11:80"))).is_ok());
    assert!(named(), "it is still so");
}
