//! The Pods of this node: their names, and what they say about their sockets.

use std::net::IpAddr;

use proxy_common::{PassedBy, SocketWish};

use super::{
    Flaw, Flaws, ObjectName,
    wire::{
        self,
        metadata::{MIRROR, SOCKET_LB},
    },
};

/// Parts of the names of runtime classes whose Pods bring a network stack of their own.
const RUNTIMES: [&str; 4] = ["gvisor", "kata", "runsc", "virt"];

/// How a Pod has ended (`status.phase`): others may have its addresses by now.
const ENDED: [&str; 2] = ["Succeeded", "Failed"];

/// A Pod.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Pod {
    /// Namespace and name.
    pub name: ObjectName,
    /// What the names of its cgroups have: `metadata.uid`, and of a static Pod its configuration's digest.
    pub uid: Box<str>,
    /// The node that it runs on, if it says so.
    pub node: Option<Box<str>>,
    /// Whether its processes are in the node's own network namespace.
    pub on_host: bool,
    /// Its addresses: none as long as it has none, when it has ended, and where they are the node's.
    pub addresses: Box<[IpAddr]>,
    /// What it or its runtime says about its sockets; nothing if a field cannot be used.
    pub wish: Option<SocketWish>,
    /// Fields that could not be used.
    pub flaws: Box<[Flaw]>,
}

impl Pod {
    /// Checks and keeps what matters.
    pub fn read(wire: wire::Pod) -> Self {
        let wire::Pod { metadata, spec, status } = wire;
        let (spec, status) = (spec.unwrap_or_default(), status.unwrap_or_default());
        let on_host = spec.host_network == Some(true);
        let has_addresses = !on_host && status.phase.is_none_or(|phase| !ENDED.contains(&phase.as_str()));
        let mut flaws = Flaws::default();
        let field = || format!("metadata.annotations[{SOCKET_LB}]");
        let annotation = |key| metadata.annotations.as_ref().and_then(|annotations| annotations.get(key));
        let (written, mirror) = (annotation(SOCKET_LB), annotation(MIRROR).cloned());
        let runtime = spec.runtime_class_name.as_deref().unwrap_or_default().to_ascii_lowercase();
        let has_own_stack = RUNTIMES.iter().any(|part| runtime.contains(part));
        let mut wish = has_own_stack.then_some(SocketWish::PassBy(PassedBy::Runtime));
        match written.map(String::as_str) {
            None => {}
            Some(_) if on_host => flaws.add(field, || {
                "a Pod in the node's network namespace has the node's sockets: remove it".to_owned()
            }),
            Some("off") => wish = Some(SocketWish::PassBy(PassedBy::Annotated)),
            Some("on") => wish = Some(SocketWish::Serve),
            Some(other) => flaws.add(field, || format!("`{other}` is neither `on` nor `off`")),
        }
        if on_host {
            wish = None;
        }
        let addresses = status.pod_ips.into_iter().flatten().filter_map(|found| found.ip?.parse().ok());
        Self {
            name: ObjectName::new(
                metadata.namespace.as_deref().unwrap_or_default(),
                metadata.name.as_deref().unwrap_or_default(),
            ),
            uid: mirror.or(metadata.uid).unwrap_or_default().into(),
            node: spec.node_name.map(Into::into),
            on_host,
            addresses: if has_addresses { addresses.collect() } else { Box::default() },
            wish,
            flaws: flaws.finish(),
        }
    }

    /// What it says about its sockets, if it does, and its uid.
    pub fn wish(&self) -> Option<(Box<str>, SocketWish)> {
        Some((self.uid.clone(), self.wish?))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn read(annotation: Option<&str>, spec: &Value) -> Pod {
        let annotations = annotation.map(|value| json!({SOCKET_LB: value}));
        let metadata = json!({"name": "a", "namespace": "ns", "uid": "u", "annotations": annotations});
        let pod = json!({"metadata": metadata, "spec": spec});
        Pod::read(serde_json::from_value(pod).expect("a Pod"))
    }

    #[test]
    fn a_pod_says_whether_its_sockets_are_served() {
        let none = json!({});
        let kata = json!({"runtimeClassName": "kata-qemu"});
        let host = json!({"hostNetwork": true});
        for (annotation, spec, wish) in [
            (None, &none, None),
            (Some("off"), &none, Some(SocketWish::PassBy(PassedBy::Annotated))),
            (Some("on"), &none, Some(SocketWish::Serve)),
            (None, &kata, Some(SocketWish::PassBy(PassedBy::Runtime))),
            (Some("on"), &kata, Some(SocketWish::Serve)),
            (None, &host, None),
        ] {
            let found = read(annotation, spec);
            assert_eq!(found.wish, wish, "{annotation:?} {spec}");
        }
    }

    #[test]
    fn a_static_pod_has_the_digest_of_its_configuration() {
        let annotations = json!({SOCKET_LB: "off", "kubernetes.io/config.mirror": "digest"});
        let pod = json!({"metadata": {"name": "a", "uid": "u", "annotations": annotations}});
        let pod = Pod::read(serde_json::from_value(pod).expect("a Pod"));
        assert_eq!(&*pod.uid, "digest");
    }

    #[test]
    fn a_pod_has_its_addresses_as_long_as_it_runs() {
        let status =
            |phase: &str| json!({"phase": phase, "podIPs": [{"ip": "10.244.1.7"}, {"ip": "fd00::7"}, {}]});
        let addresses = |spec: &Value, status: Value| {
            let pod = json!({"metadata": {"name": "a"}, "spec": spec, "status": status});
            Pod::read(serde_json::from_value(pod).expect("a Pod")).addresses
        };
        let all: [IpAddr; 2] = ["10.244.1.7".parse().expect("IPv4"), "fd00::7".parse().expect("IPv6")];
        assert_eq!(*addresses(&json!({}), status("Running")), all);
        assert!(addresses(&json!({}), status("Succeeded")).is_empty());
        assert!(
            addresses(&json!({"hostNetwork": true}), status("Running")).is_empty(),
            "they are the node's"
        );
        assert!(addresses(&json!({}), json!({"phase": "Pending"})).is_empty());
    }

    #[test]
    fn what_cannot_be_followed_is_named() {
        for (annotation, spec) in [("yes", json!({})), ("off", json!({"hostNetwork": true}))] {
            let pod = read(Some(annotation), &spec);
            assert_eq!(pod.wish, None);
            assert_eq!(&*pod.flaws[0].field, "metadata.annotations[sidestep.dev/socket-lb]");
        }
    }
}
