//! The run directory's file system has no room: the agent serves, `status` names the cause, and the report appears when
//! there is room again.

use std::{
    fs::{self, File},
    io::Write as _,
    path::{Path, PathBuf},
};

use sidestep_tests::{
    Agent, cluster,
    cluster::{Cluster, at, service},
    eventually,
    mounts::{self, Mount},
    skip,
    traffic::ask,
};

use super::status;

/// As small as a file system can be.
const BYTES: u32 = 64 << 10;
/// A problem that only the report can tell.
const BAD: &str = "apiVersion: v1\nkind: Pony\nmetadata: {name: rainbow}\n";

/// Takes all the room that is left.
fn fill(directory: &Path) -> PathBuf {
    let path = directory.join("filler");
    let mut file = File::create(&path).expect("a file");
    while file.write_all(&[0; 512]).is_ok() {}
    path
}

fn serves(cluster: &Cluster, vip: &'static str) -> bool {
    cluster.client.run(|| ask(at(vip))).is_ok()
}

#[test]
fn a_report_that_cannot_be_written_is_named_until_it_can() {
    if let Some(reason) = skip::missing() {
        skip!("{reason}");
    }
    mounts::own_namespace().expect("mounts of our own");
    let cluster = cluster!(1);
    let lab = &cluster.lab;
    let _full = Mount::memory(&lab.run_directory(), BYTES).expect("a file system");
    cluster.serve("web", &service("web", &["10.96.0.10"])).expect("manifests");
    let agent = lab.agent().expect("an agent");
    let filler = fill(&lab.run_directory());

    lab.manifests().write_text("bad.yaml", BAD).expect("manifests");
    cluster.serve("new", &service("new", &["10.96.0.11"])).expect("manifests");
    eventually("the agent serves", || serves(&cluster, "10.96.0.11:80"));
    eventually("status names the cause", || {
        let text = status(lab);
        text.contains("in sync, but what follows of it is out of date: cannot write")
            && text.contains("No space left on device")
    });
    assert!(agent.log_tail().contains("make room in the run directory"), "{}", agent.log_tail());
    assert!(!lab.run_directory().join("report.json.new").exists(), "half a report is left");

    fs::remove_file(filler).expect("room");
    eventually("the report is there", || agent.report().is_ok_and(|report| report.names("bad.yaml", "Pony")));
    let report = agent.report().expect("a report");
    assert!(!report.names("this node", "report"), "{report:?}");
    let text = status(lab);
    assert!(text.contains(": in sync\n") && text.contains("Pony"), "{text}");
}

/// From the first start on there is no room, not even for the agent's note.
#[test]
fn an_agent_that_starts_on_a_full_disk_serves_and_reports_later() {
    if let Some(reason) = skip::missing() {
        skip!("{reason}");
    }
    mounts::own_namespace().expect("mounts of our own");
    let cluster = cluster!(1);
    let lab = &cluster.lab;
    let _full = Mount::memory(&lab.run_directory(), BYTES).expect("a file system");
    let filler = fill(&lab.run_directory());
    cluster.serve("web", &service("web", &["10.96.0.10"])).expect("manifests");
    let mut agent = Agent::reading(lab);
    agent.launch(lab).expect("an agent");
    eventually("the agent serves", || serves(&cluster, "10.96.0.10:80"));
    let text = status(lab);
    assert!(text.contains("running, but without a report: the file system of "), "{text}");
    assert!(text.contains("has no room left"), "{text}");
    fs::remove_file(filler).expect("room");
    eventually("the report is there", || agent.report().is_ok_and(|report| report.synced));
    let text = status(lab);
    assert!(text.contains(": in sync\n"), "{text}");
}
