//! The command line's compatibility with kube-proxy's, and its exit status for scripts.

use sidestep_tests::{cluster, cluster::service, eventually};

/// CF-17, HE-6: `--cleanup`, `--init-only` and `--v` mean the same as in kube-proxy's manifests.
#[test]
fn flags_of_kube_proxy_do_what_they_do_there() {
    let cluster = cluster!(0);
    let lab = &cluster.lab;
    let sidestep = |arguments: &[&str]| lab.sidestep(arguments).expect("sidestep runs");
    let mut agent = lab.agent().expect("an agent");
    let refused = sidestep(&["run", "--cleanup"]);
    assert!(!refused.status.success(), "cleanup succeeded while the agent runs: {refused:?}");
    assert!(lab.pin_directory().join("v1/FRONTENDS").exists());
    agent.stop().expect("it ends");
    let output = sidestep(&["run", "--v=2", "--cleanup"]);
    assert!(output.status.success(), "{output:?}");
    assert!(!lab.pin_directory().join("v1").exists(), "pins are left");
    let output = sidestep(&["run", "--init-only"]);
    assert!(output.status.success(), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stdout).contains("mounted"), "{output:?}");
    assert!(!lab.pin_directory().join("v1").exists(), "pins were made");
}

#[test]
fn a_filter_that_matches_nothing_says_so_and_fails() {
    let cluster = cluster!(1);
    cluster.serve("web", &service("web", &["10.96.0.10"])).expect("manifests");
    let _agent = cluster.lab.agent().expect("an agent");
    let status = |filter: &str| cluster.lab.sidestep(&["status", filter]).expect("sidestep runs");
    let found = status("default/web");
    assert!(
        found.status.success() && String::from_utf8_lossy(&found.stdout).contains("10.96.0.10:80/TCP"),
        "{found:?}"
    );
    let manifest = "apiVersion: v1\nkind: Service\nmetadata: {name: bad, namespace: default}\n\
                    spec: {clusterIP: 10.96.0.11, ports: [{port: 0}]}\n";
    cluster.lab.manifests().write_text("bad.yaml", manifest).expect("a manifest");
    eventually("status says why a Service is not installed", || {
        let found = status("default/bad");
        found.status.success() && String::from_utf8_lossy(&found.stdout).contains("spec.ports[0].port")
    });
    let missing = status("wbe");
    assert!(!missing.status.success(), "{missing:?}");
    assert!(String::from_utf8_lossy(&missing.stderr).contains("wbe"), "{missing:?}");
}
