//! Pins are root's alone: whoever opens a map can write it.

use std::{fs, os::unix::fs::MetadataExt as _, path::PathBuf, process::Command};

use sidestep_tests::{
    agent, cluster,
    cluster::{Cluster, service},
};

#[test]
fn nobody_but_root_gets_to_a_pin() {
    let cluster = cluster!(1);
    cluster.serve("web", &service("web", &["10.96.0.10"])).expect("manifests");
    let mut agent = cluster.lab.agent().expect("an agent");
    assert_private(&cluster);
    agent.stop().expect("it stops");
    // As an agent before this one left it.
    let mode = |mode| {
        let status = Command::new("chmod").arg(mode).arg(directory(&cluster)).status();
        assert!(status.expect("chmod").success());
    };
    mode("755");
    agent.restart(&cluster.lab).expect("restart");
    assert_private(&cluster);
}

fn directory(cluster: &Cluster) -> PathBuf {
    cluster.lab.pin_directory().join(agent::ABI)
}

fn assert_private(cluster: &Cluster) {
    let top = fs::metadata(directory(cluster)).expect("a directory");
    assert_eq!((top.mode() & 0o7777, top.uid()), (0o700, 0));
    let mut pending = vec![directory(cluster)];
    let mut files = 0;
    while let Some(folder) = pending.pop() {
        for entry in fs::read_dir(folder).expect("a directory") {
            let path = entry.expect("an entry").path();
            let metadata = fs::metadata(&path).expect("metadata");
            if metadata.is_dir() {
                pending.push(path);
            } else {
                assert_eq!((metadata.mode() & 0o7777, metadata.uid()), (0o600, 0), "{}", path.display());
                files += 1;
            }
        }
    }
    assert!(files > 40, "only {files} pins");
    let stranger = Command::new("setpriv")
        .args(["--reuid=65534", "--regid=65534", "--clear-groups", "ls"])
        .arg(directory(cluster))
        .output()
        .expect("setpriv of util-linux");
    assert!(!stranger.status.success(), "{}", String::from_utf8_lossy(&stranger.stdout));
}
