//! The Helm chart: helm renders it to the same objects that kustomize makes of the overlays.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use k8s_openapi::api::{apps::v1::DaemonSet, core::v1::ConfigMap};
use serde_json::Value;
use sidestep_tests::skip;

use super::renders::{only, render};

/// The variable with the path of helm; `cargo xtask test` sets it.
const HELM: &str = "SIDESTEP_HELM";
/// The address of k3s' API server, as an example.
const SERVER: &str = "server=https://127.0.0.1:6444";

fn chart() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/helm/sidestep")
}

/// helm's output for these arguments; the reason if there is no helm.
fn helm(arguments: &[&str]) -> Result<Output, String> {
    let helm = std::env::var_os(HELM).unwrap_or_else(|| "helm".into());
    // Without the user's settings and plugins.
    let home = tempfile::tempdir().map_err(|error| error.to_string())?;
    let output = Command::new(&helm).args(arguments).env("HOME", home.path()).output();
    output.map_err(|error| format!("{}: {error}", helm.display()))
}

/// `helm template` with these values, into the overlays' namespace.
fn template(values: &[&str]) -> Result<Output, String> {
    let chart = chart();
    let chart = chart.to_str().expect("a path");
    helm(&[&["template", "sidestep", chart, "--namespace", "kube-system"], values].concat())
}

fn objects(output: Output) -> Vec<Value> {
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && errors.is_empty(), "{errors}");
    let text = String::from_utf8(output.stdout).expect("YAML is UTF-8");
    serde_saphyr::from_multiple(&text).expect("YAML")
}

/// The objects by kind and name, without what differs by tool: its labels, and the digest in the ConfigMap's name.
fn comparable(objects: Vec<Value>) -> BTreeMap<String, Value> {
    let named: ConfigMap = only(&objects, "ConfigMap");
    let name = named.metadata.name.expect("a name");
    let digest = name.strip_prefix("sidestep-").expect("a digest, so that a change rolls out node by node");
    assert_eq!(digest.len(), 10, "{name}");
    let config = Value::from(named.data.expect("data")["config.yaml"].clone());
    let configuration: Value = serde_saphyr::from_str(config.as_str().expect("text")).expect("YAML");
    let mut by_name = BTreeMap::new();
    for mut object in objects {
        replace(&mut object, &Value::from(name.clone()), &Value::from("sidestep"));
        // Drops the comments of the overlays' file.
        replace(&mut object, &config, &configuration);
        if let Some(labels) = object["metadata"]["labels"].as_object_mut() {
            for key in ["app.kubernetes.io/managed-by", "helm.sh/chart"] {
                labels.remove(key);
            }
        }
        let name = format!("{} {}", object["kind"], object["metadata"]["name"]);
        assert!(by_name.insert(name, object).is_none());
    }
    by_name
}

/// Replaces a value wherever it is.
fn replace(at: &mut Value, from: &Value, to: &Value) {
    if at == from {
        *at = to.clone();
        return;
    }
    match at {
        Value::Array(list) => list.iter_mut().for_each(|one| replace(one, from, to)),
        Value::Object(map) => map.values_mut().for_each(|one| replace(one, from, to)),
        _ => {}
    }
}

fn compare(overlay: &str, server: &str) {
    let expected = match render(overlay) {
        Ok(objects) => comparable(objects),
        Err(reason) => skip!("kubectl is needed: {reason}"),
    };
    let found = match template(&["--set", &format!("server={server}")]) {
        Ok(output) => comparable(objects(output)),
        Err(reason) => skip!("helm is needed: {reason}"),
    };
    assert_eq!(found.keys().collect::<Vec<_>>(), expected.keys().collect::<Vec<_>>());
    for (kind, object) in &expected {
        let text = |object: &Value| serde_json::to_string_pretty(object).expect("JSON");
        assert!(found[kind] == *object, "helm:\n{}\nkustomize:\n{}", text(&found[kind]), text(object));
    }
}

/// IN-6: helm and kustomize install the same objects.
#[test]
fn the_chart_renders_the_objects_of_the_overlay_for_kubeadm() {
    compare("kubeadm", "https://control-plane.example:6443");
}

/// IN-6: helm and kustomize install the same objects.
#[test]
fn the_chart_renders_the_objects_of_the_overlay_for_k3s() {
    compare("k3s", "https://127.0.0.1:6444");
}

/// IN-6: helm and kustomize install the same objects.
#[test]
fn the_chart_renders_the_objects_of_the_overlay_for_kind() {
    compare("kind", "https://kind-control-plane:6443");
}

/// The values reach the objects, which are valid.
#[test]
fn values_reach_the_objects() {
    let file = tempfile::NamedTempFile::new().expect("a file");
    let text = "apiVersion: kubeproxy.config.k8s.io/v1alpha1\nkind: KubeProxyConfiguration\n\
                metricsBindAddress: 0.0.0.0:10249\n";
    fs::write(file.path(), text).expect("written");
    let configuration = format!("configuration={}", file.path().display());
    let rendered = template(&[
        "--set",
        SERVER,
        "--set-file",
        &configuration,
        "--set",
        "takeOver=false,extraArgs={--max-services=262144,--interface=eth0}",
        "--set",
        "image.repository=registry.example/sidestep,image.tag=next",
        "--set",
        "imagePullSecrets[0].name=registry",
        "--set",
        "resources.limits.memory=600Mi,maxUnavailable=3,lockedMemory=true",
        "--set-string",
        "podAnnotations.scraped=true",
    ]);
    let rendered = match rendered {
        Ok(output) => objects(output),
        Err(reason) => skip!("helm is needed: {reason}"),
    };
    let config: ConfigMap = only(&rendered, "ConfigMap");
    assert_eq!(config.data.expect("data")["config.yaml"], text);
    let daemon_set: DaemonSet = only(&rendered, "DaemonSet");
    let update =
        daemon_set.spec.update_strategy.and_then(|update| update.rolling_update).expect("a strategy");
    assert_eq!(serde_json::to_value(update.max_unavailable).expect("JSON"), 3);
    let template = daemon_set.spec.template;
    let annotations = template.metadata.and_then(|metadata| metadata.annotations).expect("annotations");
    assert_eq!(annotations["scraped"], "true");
    let pod = template.spec.expect("a pod");
    assert_eq!(pod.image_pull_secrets.expect("secrets")[0].name, "registry");
    for container in pod.containers.iter().chain(pod.init_containers.as_deref().expect("an init container")) {
        assert_eq!(container.image.as_deref(), Some("registry.example/sidestep:next"));
    }
    let agent = &pod.containers[0];
    assert_eq!(
        agent.args.as_deref().expect("arguments").join(" "),
        "run --config /etc/sidestep/config.yaml --max-services=262144 --interface=eth0"
    );
    let capabilities = agent.security_context.as_ref().and_then(|context| context.capabilities.as_ref());
    let added = capabilities.and_then(|capabilities| capabilities.add.as_ref()).expect("capabilities");
    assert!(added.iter().any(|name| name == "SYS_RESOURCE"), "{added:?}");
    let limits = agent.resources.as_ref().and_then(|resources| resources.limits.as_ref()).expect("limits");
    assert_eq!(limits["memory"].0, "600Mi");
}

/// Another configuration makes another ConfigMap, so that the `DaemonSet` rolls it out node by node, instead of every
/// agent ending at once.
#[test]
fn another_configuration_has_another_name() {
    let names = ["a", "b"].map(|host| {
        let rendered = template(&["--set", &format!("server=https://{host}:6443")])?;
        let config: ConfigMap = only(&objects(rendered), "ConfigMap");
        Ok::<_, String>(config.metadata.name)
    });
    match names {
        [Ok(a), Ok(b)] => assert_ne!(a, b),
        [Err(reason), _] | [_, Err(reason)] => skip!("helm is needed: {reason}"),
    }
}

/// Values that would make a `DaemonSet` that cannot work are rejected by name when the chart is rendered.
#[test]
fn values_that_cannot_work_are_refused() {
    for (values, named) in [
        (&[][..], "server"),
        (&["--set", "server=10.0.0.1:6443"], "server"),
        (&["--set", SERVER, "--set", "extraArg={--interface=eth0}"], "extraArg"),
        (&["--set", SERVER, "--set", "extraArgs={status}"], "extraArgs"),
        (&["--set", SERVER, "--set", "configuration=mode: iptables"], "configuration"),
        (&["--set", SERVER, "--set", "image.pullPolicy=Sometimes"], "pullPolicy"),
        (&["--set", SERVER, "--kube-version", "1.29.0"], "1.30"),
    ] {
        let output = match template(values) {
            Ok(output) => output,
            Err(reason) => skip!("helm is needed: {reason}"),
        };
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && errors.contains(named), "{values:?}: {errors}");
    }
}

#[test]
fn helm_lint_passes() {
    let chart = chart();
    let linted = match helm(&["lint", "--strict", chart.to_str().expect("a path"), "--set", SERVER]) {
        Ok(output) => output,
        Err(reason) => skip!("helm is needed: {reason}"),
    };
    let text = String::from_utf8_lossy(&linted.stdout);
    assert!(linted.status.success() && text.contains("0 chart(s) failed"), "{text}");
}
