//! The objects that `kubectl apply -k deploy/overlays/…` sends: each overlay renders to valid objects that give the
//! agent what it needs.

use std::{path::Path, process::Command};

use k8s_openapi::{
    api::{
        apps::v1::DaemonSet,
        core::v1::{ConfigMap, Container, PodSpec, ServiceAccount, Volume},
        rbac::v1::{ClusterRole, ClusterRoleBinding, PolicyRule},
    },
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use proxy_agent::dataplane::{Capacity, MAPS};
use proxy_common::{FrontendLine, connection::buckets::SLOTS, translation};
use serde::de::DeserializeOwned;
use serde_json::Value;
use sidestep_tests::skip;

/// The variable with the path of kubectl; `cargo xtask test` sets it.
const KUBECTL: &str = "SIDESTEP_KUBECTL";

/// The objects of an overlay, or why there is no kubectl to render them.
pub(super) fn render(overlay: &str) -> Result<Vec<Value>, String> {
    render_folder(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/overlays").join(overlay))
}

fn render_folder(folder: &Path) -> Result<Vec<Value>, String> {
    let kubectl = std::env::var_os(KUBECTL).unwrap_or_else(|| "kubectl".into());
    let output = Command::new(&kubectl).arg("kustomize").arg(folder).output();
    let output = output.map_err(|error| format!("{}: {error}", kubectl.display()))?;
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && errors.is_empty(), "{}: {errors}", folder.display());
    let text = String::from_utf8(output.stdout).expect("YAML is UTF-8");
    Ok(serde_saphyr::from_multiple(&text).expect("YAML"))
}

/// The only object of a kind. It must survive a round trip through its type, because decoding drops misspelt fields.
pub(super) fn only<T: DeserializeOwned + serde::Serialize>(objects: &[Value], kind: &str) -> T {
    let mut found = all(objects, kind);
    assert_eq!(found.len(), 1, "objects of kind {kind}");
    found.remove(0)
}

/// The objects of a kind, in order.
fn all<T: DeserializeOwned + serde::Serialize>(objects: &[Value], kind: &str) -> Vec<T> {
    let typed = |object: &Value| {
        let typed: T =
            serde_json::from_value(object.clone()).unwrap_or_else(|error| panic!("{kind}: {error}"));
        assert_eq!(&serde_json::to_value(&typed).expect("JSON"), object, "{kind}");
        typed
    };
    objects.iter().filter(|object| object["kind"] == kind).map(typed).collect()
}

fn name(metadata: &ObjectMeta) -> &str {
    metadata.name.as_deref().expect("a name")
}

fn mebibytes(quantity: &str) -> u64 {
    quantity.strip_suffix("Mi").and_then(|number| number.parse().ok()).expect("a quantity in Mi")
}

fn overlay(overlay: &str, server: &str) {
    let objects = match render(overlay) {
        Ok(objects) => objects,
        Err(reason) => skip!("kubectl is needed: {reason}"),
    };
    assert_eq!(objects.len(), 6, "{objects:?}");
    let account: ServiceAccount = only(&objects, "ServiceAccount");
    let bindings: Vec<ClusterRoleBinding> = all(&objects, "ClusterRoleBinding");
    let role: ClusterRole = only(&objects, "ClusterRole");
    let config: ConfigMap = only(&objects, "ConfigMap");
    let daemon_set: DaemonSet = only(&objects, "DaemonSet");

    let roles: Vec<&str> = bindings.iter().map(|binding| binding.role_ref.name.as_str()).collect();
    assert_eq!(roles, ["system:node-proxier", name(&role.metadata)]);
    for binding in &bindings {
        let subject = &binding.subjects.as_ref().expect("subjects")[0];
        assert_eq!(
            (subject.name.as_str(), &subject.namespace),
            (name(&account.metadata), &account.metadata.namespace)
        );
    }
    let rules = role.rules.expect("rules");
    let [PolicyRule { resources, verbs, .. }] = rules.as_slice() else { panic!("{rules:?}") };
    assert_eq!(
        (resources.as_deref(), verbs.as_slice()),
        (Some(&["pods".to_owned()][..]), &["list", "watch"].map(str::to_owned)[..])
    );
    let data = config.data.expect("data");
    assert_eq!(data["server"], server);
    let configuration = proxy_agent::config::decode(&data["config.yaml"]).expect("a configuration");
    assert_eq!(configuration.passed_over, []);

    let spec = daemon_set.spec;
    // The API server rejects a selector that does not match the template.
    let labels = spec.template.metadata.and_then(|metadata| metadata.labels).expect("labels");
    for (key, value) in spec.selector.match_labels.expect("a selector") {
        assert_eq!(labels.get(&key), Some(&value));
    }
    let pod = spec.template.spec.expect("a pod");
    assert_eq!(pod.service_account_name.as_deref(), Some(name(&account.metadata)));
    node(&pod);
    let [agent] = &pod.containers[..] else { panic!("one container") };
    agent_container(agent, name(&config.metadata));
    let [mount] = pod.init_containers.as_deref().expect("an init container") else { panic!("one") };
    assert_eq!(mount.args, Some(vec!["mount".to_owned()]));
    assert_eq!(mount.image, agent.image);
    assert_eq!(
        agent.args.as_deref().expect("arguments").join(" "),
        "run --config /etc/sidestep/config.yaml --take-over"
    );
    let volume = pod.volumes.iter().flatten().find(|volume| volume.name == "config").expect("the volume");
    assert_eq!(volume.config_map.as_ref().expect("a ConfigMap").name, name(&config.metadata));
    let mounted = agent.volume_mounts.iter().flatten().find(|mount| mount.name == "config");
    assert_eq!(mounted.expect("the mount").mount_path, "/etc/sidestep");
    reserved_ports(agent, pod.volumes.as_deref().expect("volumes"));
    for container in [agent, mount] {
        mounts(container, pod.volumes.as_deref().expect("volumes"));
    }
}

/// The agent runs on every node, with the highest priority, and needs nothing of the cluster that may not be up yet.
fn node(pod: &PodSpec) {
    assert_eq!(pod.host_network, Some(true));
    // To find the processes that hold sockets.
    assert_eq!(pod.host_pid, Some(true));
    assert_eq!(pod.dns_policy.as_deref(), Some("Default"));
    assert_eq!(pod.priority_class_name.as_deref(), Some("system-node-critical"));
    let tolerations = pod.tolerations.as_deref().expect("tolerations");
    let all = |toleration: &k8s_openapi::api::core::v1::Toleration| {
        toleration.operator.as_deref() == Some("Exists")
            && toleration.key.is_none()
            && toleration.effect.is_none()
    };
    assert!(tolerations.iter().any(all), "{tolerations:?}");
}

fn agent_container(agent: &Container, config: &str) {
    let env = agent.env.as_deref().expect("variables");
    let source = |name: &str| {
        let variable = env.iter().find(|variable| variable.name == name).expect("the variable");
        variable.value_from.as_ref().expect("a source")
    };
    let node = source("NODE_NAME").field_ref.as_ref().expect("a field");
    assert_eq!(node.field_path, "spec.nodeName");
    let server = source("SIDESTEP_SERVER").config_map_key_ref.as_ref().expect("a ConfigMap's key");
    assert_eq!((server.name.as_str(), server.key.as_str()), (config, "server"));

    let security = agent.security_context.as_ref().expect("a security context");
    assert_eq!(security.privileged, Some(false));
    assert_eq!(security.read_only_root_filesystem, Some(true));
    let capabilities = security.capabilities.as_ref().expect("capabilities");
    assert_eq!(capabilities.drop, Some(vec!["ALL".to_owned()]));
    let expected = ["BPF", "DAC_READ_SEARCH", "NET_ADMIN", "PERFMON", "SYS_ADMIN", "SYS_PTRACE"];
    assert_eq!(capabilities.add, Some(expected.map(str::to_owned).to_vec()));
    let app_armor = security.app_armor_profile.as_ref().expect("a profile");
    assert_eq!(app_armor.type_, "Unconfined");

    let port = agent.ports.iter().flatten().find(|port| port.name.as_deref() == Some("health"));
    assert_eq!(port.map(|port| port.container_port), Some(10256));
    for (probe, path) in [(&agent.liveness_probe, "/livez"), (&agent.readiness_probe, "/healthz")] {
        let get = probe.as_ref().and_then(|probe| probe.http_get.as_ref()).expect("a probe");
        assert_eq!(get.path.as_deref(), Some(path));
    }

    let limits = agent.resources.as_ref().and_then(|resources| resources.limits.as_ref()).expect("limits");
    let (limit, needed) = (mebibytes(&limits["memory"].0), memory() >> 20);
    assert!(
        (needed..needed * 3 / 2).contains(&limit),
        "the limit is {limit} Mi, but the agent needs {needed} Mi"
    );
}

/// The memory that the manifest's comment adds up, computed from the tables.
fn memory() -> u64 {
    let Capacity { services, frontends, endpoints, clients, flows } = Capacity::default();
    let tables = MAPS.iter().map(|map| {
        let (key, value) = (map.key as u64, map.value as u64);
        let hash = |entries: u32| (16 + (48 + key + value + 8).next_multiple_of(32)) * u64::from(entries);
        match map.name {
            "FRONTENDS" | "ADDRESSES" => hash(frontends),
            "FRONTEND_LINES" => value * u64::from(FrontendLine::lines(frontends)),
            "NAMES" => (16 + (48 + key + value + 8).next_power_of_two()) * u64::from(services),
            "SERVICES" | "REFUSALS" => value * u64::from(services),
            "COUNTERS" => 4 * value * u64::from(services),
            "ENDPOINTS" | "ENDPOINT_STATE" => value * u64::from(endpoints),
            "SOURCE_RANGES" => 128 << 16,
            "CLIENTS" | "BYPASSED" => hash(1 << 13),
            "FLOWS" => value * u64::from(flows),
            "FLOW_TAGS" | "FLOW_USES" => value * u64::from(flows.div_ceil(SLOTS)),
            "PEERS" | "SOURCE_PORTS" => value << 16,
            "FRAGMENTS" => (16 + 48 + key + value) << 12,
            "OVERFLOW" => hash(1) * translation::OVERFLOW as u64,
            "AFFINITY" => (16 + 48 + key + value) * u64::from(clients),
            // Socket storage is added below; the others take two mebibytes each at most.
            "SOCKETS" | "DATAGRAMS" | "NAMESPACES" | "ADDRESS_FILTER" | "NODE_PORTS" | "OUTGOING"
            | "STRAYS" | "ASKERS" | "FLOW_LOCKS" | "FLOW_SEED" | "INTERFACES" | "REFUSED_RATE"
            | "HELD_RATE" | "RECORDED_RATE" | "LAST_REFUSALS" | "LISTENING" | "LISTENERS" | "EVENTS"
            | "TOTALS" | "GRACE" | "SHARED_PORTS" | "FOREIGN_PORTS" => 0,
            other => panic!("{other}: how much memory does it take? The DaemonSet's comment adds it up"),
        }
    });
    // For 2^17 sockets, and for the agent itself.
    tables.sum::<u64>() + (384 << 17) + (60 << 20)
}

/// Of the node's `/proc` only the one sysctl is mounted, writable.
fn reserved_ports(container: &Container, volumes: &[Volume]) {
    let found: Vec<_> = volumes
        .iter()
        .filter_map(|volume| Some((&volume.name, volume.host_path.as_ref()?)))
        .filter(|(_, host)| host.path.starts_with("/proc"))
        .collect();
    let [(name, host)] = found.as_slice() else { panic!("{found:?}") };
    assert_eq!(host.path, "/proc/sys/net/ipv4/ip_local_reserved_ports");
    assert_eq!(host.type_.as_deref(), Some("File"));
    let mount = container.volume_mounts.iter().flatten().find(|mount| mount.name == **name);
    let mount = mount.expect("a mount");
    assert_ne!(mount.read_only, Some(true));
    assert!(!mount.mount_path.starts_with("/proc"), "runtimes mount nothing below /proc: {mount:?}");
}

/// Each mount has its volume, and mounts made later on the node propagate into the container.
fn mounts(container: &Container, volumes: &[Volume]) {
    for (volume, host) in [("cgroup", "/sys/fs/cgroup"), ("bpf", "/sys/fs/bpf"), ("run", "/run/sidestep")] {
        let found = volumes.iter().find(|found| found.name == volume).expect("the volume");
        assert_eq!(found.host_path.as_ref().expect("a hostPath").path, host);
        let mount = container.volume_mounts.iter().flatten().find(|mount| mount.name == volume);
        let propagation = mount.and_then(|mount| mount.mount_propagation.as_deref());
        assert!(
            matches!(propagation, Some("HostToContainer" | "Bidirectional")),
            "{volume}: {propagation:?}"
        );
    }
}

/// Nodes before Linux 5.11 need one capability more, which others may not be able to grant.
#[test]
fn the_component_for_old_kernels_adds_one_capability() {
    let folder = tempfile::tempdir_in(concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/overlays"));
    let folder = folder.expect("a folder");
    let text = "resources: [../kubeadm]\ncomponents: [../../components/before-linux-5.11]\n";
    std::fs::write(folder.path().join("kustomization.yaml"), text).expect("written");
    let objects = match render_folder(folder.path()) {
        Ok(objects) => objects,
        Err(reason) => skip!("kubectl is needed: {reason}"),
    };
    let added = |objects: &[Value]| {
        let daemon_set: DaemonSet = only(objects, "DaemonSet");
        let pod = daemon_set.spec.template.spec.expect("a pod");
        let security = pod.containers[0].security_context.clone().expect("a security context");
        security.capabilities.and_then(|capabilities| capabilities.add).expect("capabilities")
    };
    let mut expected = added(&render("kubeadm").expect("it renders, too"));
    expected.push("SYS_RESOURCE".to_owned());
    assert_eq!(added(&objects), expected);
}

/// IN-6: among others, the permissions of kube-proxy and no more.
#[test]
fn the_overlay_for_kubeadm_renders_valid_objects() {
    overlay("kubeadm", "https://control-plane.example:6443");
}

/// IN-6: among others, the permissions of kube-proxy and no more.
#[test]
fn the_overlay_for_k3s_renders_valid_objects() {
    overlay("k3s", "https://127.0.0.1:6444");
}

/// IN-6: among others, the permissions of kube-proxy and no more.
#[test]
fn the_overlay_for_kind_renders_valid_objects() {
    overlay("kind", "https://kind-control-plane:6443");
}
