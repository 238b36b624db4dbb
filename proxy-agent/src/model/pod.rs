//! What a Pod of this node says about its sockets.

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

/// A Pod that says something about its sockets, or whose runtime does.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Pod {
    /// Namespace and name.
    pub name: ObjectName,
    /// What the names of its cgroups have: `metadata.uid`, and of a static Pod its configuration's digest.
    pub uid: Box<str>,
    /// What it says; nothing if a field cannot be used.
    pub wish: Option<SocketWish>,
    /// Fields that could not be used.
    pub flaws: Box<[Flaw]>,
}

impl Pod {
    /// Checks and keeps what matters; nothing if it is like most Pods.
    pub fn read(wire: wire::Pod) -> Option<Self> {
        let wire::Pod { metadata, spec } = wire;
        let spec = spec.unwrap_or_default();
        let mut flaws = Flaws::default();
        let field = || format!("metadata.annotations[{SOCKET_LB}]");
        let annotation = |key| metadata.annotations.as_ref().and_then(|annotations| annotations.get(key));
        let (written, mirror) = (annotation(SOCKET_LB), annotation(MIRROR).cloned());
        let runtime = spec.runtime_class_name.as_deref().unwrap_or_default().to_ascii_lowercase();
        let has_own_stack = RUNTIMES.iter().any(|part| runtime.contains(part));
        let mut wish = has_own_stack.then_some(SocketWish::PassBy(PassedBy::Runtime));
        match written.map(String::as_str) {
            None => {}
            Some(_) if spec.host_network == Some(true) => flaws.add(field, || {
                "a Pod in the node's network namespace has the node's sockets: remove it".to_owned()
            }),
            Some("off") => wish = Some(SocketWish::PassBy(PassedBy::Annotated)),
            Some("on") => wish = Some(SocketWish::Serve),
            Some(other) => flaws.add(field, || format!("`{other}` is neither `on` nor `off`")),
        }
        if spec.host_network == Some(true) {
            wish = None;
        }
        let flaws = flaws.finish();
        (wish.is_some() || !flaws.is_empty()).then(|| Self {
            name: ObjectName::new(
                metadata.namespace.as_deref().unwrap_or_default(),
                metadata.name.as_deref().unwrap_or_default(),
            ),
            uid: mirror.or(metadata.uid).unwrap_or_default().into(),
            wish,
            flaws,
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn read(annotation: Option<&str>, spec: &Value) -> Option<Pod> {
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
            assert_eq!(found.as_ref().and_then(|pod| pod.wish), wish, "{annotation:?} {spec}");
            assert_eq!(found.is_some(), wish.is_some());
        }
    }

    #[test]
    fn a_static_pod_has_the_digest_of_its_configuration() {
        let annotations = json!({SOCKET_LB: "off", "kubernetes.io/config.mirror": "digest"});
        let pod = json!({"metadata": {"name": "a", "uid": "u", "annotations": annotations}});
        let pod = Pod::read(serde_json::from_value(pod).expect("a Pod")).expect("it says something");
        assert_eq!(&*pod.uid, "digest");
    }

    #[test]
    fn what_cannot_be_followed_is_named() {
        for (annotation, spec) in [("yes", json!({})), ("off", json!({"hostNetwork": true}))] {
            let pod = read(Some(annotation), &spec).expect("it says something");
            assert_eq!(pod.wish, None);
            assert_eq!(&*pod.flaws[0].field, "metadata.annotations[sidestep.dev/socket-lb]");
        }
    }
}
