//! An agent is started while manifests cannot be read: what an earlier one installed of them stays until they can be.

use std::fs;

use sidestep_tests::{
    cluster,
    cluster::{Cluster, at, service},
    eventually,
    manifest::EndpointSlice,
    pressure::Pressure,
    traffic::ask,
};

use super::status;

const TRUNCATED: &str =
    "apiVersion: v1\nkind: Service\nmetadata: {name: web}\nspec: {clusterIP: 10.96.0.10, ports: [{por";

fn who(cluster: &Cluster, vip: &'static str) -> Option<String> {
    cluster.client.run(|| ask(at(vip))).ok().map(|answer| answer.server)
}

/// Files with Services, with a Service's endpoints alone, and with what was deleted while no agent ran.
#[test]
fn services_of_manifests_that_cannot_be_read_at_the_start_stay() {
    let cluster = cluster!(2);
    let lab = &cluster.lab;
    let manifests = lab.manifests();
    cluster.serve("web", &service("web", &["10.96.0.10"])).expect("manifests");
    manifests.write("split.yaml", &[&service("split", &["10.96.0.11"])]).expect("manifests");
    cluster.endpoints("split", &cluster.slice_v4("split", [1])).expect("manifests");
    let mut agent = lab.agent().expect("an agent");
    let pressure = Pressure::start(&cluster.client, at("10.96.0.10:80"), at("10.96.0.10:53"));

    for (name, break_it) in [
        ("half-written", (|path| fs::write(path, TRUNCATED)) as fn(_) -> _),
        ("no YAML", |path| fs::write(path, "{{{")),
        // What root may not read, either: a link into nothing readable.
        ("unreadable", |path: std::path::PathBuf| {
            fs::remove_file(&path)?;
            std::os::unix::fs::symlink("/proc/self/mem", path)
        }),
    ] {
        agent.stop().expect("it stops");
        let [whole, endpoints] =
            ["web.yaml", "split-endpoints.yaml"].map(|file| manifests.directory().join(file));
        let texts = [&whole, &endpoints].map(|path| fs::read_to_string(path).expect("a manifest"));
        break_it(whole.clone()).expect("broken");
        break_it(endpoints.clone()).expect("broken");
        agent.restart(lab).expect("restart");
        pressure.let_pass(50);
        assert_eq!(who(&cluster, "10.96.0.11:80").as_deref(), Some("pod-1"), "{name}");
        let report = agent.report().expect("a report");
        for object in ["web.yaml", "Service default/web", "Service default/split"] {
            assert!(report.names(object, ""), "{name}: {object}: {:#?}", report.problems);
        }
        assert!(status(lab).contains("stays as an earlier agent installed it"), "{}", status(lab));
        // Others are followed.
        cluster.serve("new", &service("new", &["10.96.0.12"])).expect("manifests");
        eventually("a new Service works", || who(&cluster, "10.96.0.12:80").is_some());
        manifests.remove("new.yaml").expect("removal");
        eventually("it is gone", || who(&cluster, "10.96.0.12:80").is_none());

        for (path, text) in [&whole, &endpoints].into_iter().zip(texts) {
            let file = path.file_name().and_then(|name| name.to_str()).expect("a name");
            manifests.write_text(file, &text).expect("manifests");
        }
        eventually("all is well", || agent.report().is_ok_and(|report| report.problems.is_empty()));
    }
    pressure.stop().assert_flawless();

    // What goes while it cannot be read goes when everything can be.
    agent.stop().expect("it stops");
    manifests.write_text("web.yaml", "{{{").expect("manifests");
    manifests.remove("split.yaml").expect("removal");
    agent.restart(lab).expect("restart");
    assert!(who(&cluster, "10.96.0.11:80").is_some(), "nobody knows what web.yaml had");
    manifests
        .write("web.yaml", &[&service("web", &["10.96.0.10"]), &EndpointSlice::new("web")])
        .expect("manifests");
    eventually("it is gone", || who(&cluster, "10.96.0.11:80").is_none());
}
