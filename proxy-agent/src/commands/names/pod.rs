//! The pods of this node: a client that is named as one, and whose an address is.

use std::{
    collections::HashMap,
    fmt,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    str::FromStr,
};

use anyhow::bail;

use super::near::near;
use crate::{
    agent::{PodHere, Report},
    dataplane::{namespace_of_pod, namespaces_by_host_name},
    model::ObjectName,
};

/// A pod as named on the command line.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(in crate::commands) struct PodName {
    namespace: Option<String>,
    name: String,
}

impl FromStr for PodName {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (namespace, name) = match text.split_once('/') {
            Some((namespace, name)) => (Some(namespace), name),
            None => (None, text),
        };
        let is_right = is_name(name) && namespace.is_none_or(is_name);
        is_right.then(|| Self { namespace: namespace.map(Into::into), name: name.into() }).ok_or(())
    }
}

/// Whether this may be the name of a Pod or of a namespace.
fn is_name(text: &str) -> bool {
    let is_letter =
        |letter: char| letter.is_ascii_lowercase() || letter.is_ascii_digit() || "-.".contains(letter);
    !text.is_empty() && text.chars().all(is_letter)
}

impl fmt::Display for PodName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.namespace {
            Some(namespace) => write!(f, "{namespace}/{}", self.name),
            None => f.write_str(&self.name),
        }
    }
}

/// Where a pod's sockets are.
#[derive(PartialEq, Eq, Debug)]
pub(in crate::commands) enum Where {
    /// In the node's network namespace.
    Node,
    /// In the one at this path.
    NetworkNamespace(PathBuf),
    /// In one that is not visible here, with these addresses.
    Addresses(Box<[IpAddr]>),
}

/// A pod of this node.
#[derive(PartialEq, Eq, Debug)]
pub(in crate::commands) struct Pod {
    pub(in crate::commands) place: Where,
    /// Its namespace, if it is known.
    pub(in crate::commands) namespace: Option<String>,
    /// Who and where it is, for people.
    pub(in crate::commands) told: String,
}

/// The Pods of this node, by their addresses.
pub(in crate::commands) struct Pods<'a>(HashMap<IpAddr, &'a PodHere>);

impl<'a> Pods<'a> {
    pub(in crate::commands) fn of(report: Option<&'a Report>) -> Self {
        let pods = report.into_iter().flat_map(|report| &report.pods);
        Self(pods.flat_map(|pod| pod.addresses.iter().map(move |address| (*address, pod))).collect())
    }

    /// The name of the one with this address.
    pub(in crate::commands) fn name(&self, address: IpAddr) -> Option<&ObjectName> {
        self.0.get(&address).map(|pod| &pod.name)
    }

    /// An address with the name of its Pod.
    pub(in crate::commands) fn told(&self, address: SocketAddr) -> String {
        self.name(address.ip()).map_or_else(|| address.to_string(), |name| format!("{address} (Pod {name})"))
    }

    /// The same of an address without a port.
    pub(in crate::commands) fn told_address(&self, address: IpAddr) -> String {
        self.name(address).map_or_else(|| address.to_string(), |name| format!("{address} (Pod {name})"))
    }

    /// The network namespace of the one with this address.
    pub(in crate::commands) fn place(&self, address: IpAddr) -> Option<PathBuf> {
        let PodHere { uid, addresses, .. } = self.0.get(&address)?;
        namespace_of_pod(uid, addresses)
    }
}

impl Pod {
    fn of(pod: &PodHere) -> anyhow::Result<Self> {
        let PodHere { name, uid, on_host, addresses } = pod;
        let at = |place, told| Self {
            place,
            namespace: Some(name.namespace().into()),
            told: format!("Pod {name}, {told}"),
        };
        if *on_host {
            return Ok(at(Where::Node, "in the node's network namespace (hostNetwork)".to_owned()));
        }
        if let Some(place) = namespace_of_pod(uid, addresses) {
            let told = place.display().to_string();
            return Ok(at(Where::NetworkNamespace(place), told));
        }
        if addresses.is_empty() {
            bail!("the Pod {name} has no address and no process: it has not begun, or has ended");
        }
        let listed: Vec<String> = addresses.iter().map(ToString::to_string).collect();
        let told = format!(
            "{}; neither a process nor the network namespace of it is visible here (it has ended, or this container is without hostPID)",
            listed.join(", ")
        );
        Ok(at(Where::Addresses(addresses.clone()), told))
    }
}

impl PodName {
    /// Finds it among the Pods that the agent knows, else by host names of this node's network namespaces.
    pub(in crate::commands) fn find(&self, report: Option<&Report>) -> anyhow::Result<Pod> {
        let known = report.map_or(&[][..], |report| &report.pods);
        if let Some(pod) = self.among(known)? {
            return Pod::of(pod);
        }
        // A host name has no namespace: it has to do where nothing else is known.
        let may_be_one = self.namespace.is_none() || known.is_empty();
        let mut host_names = if may_be_one { namespaces_by_host_name() } else { Vec::new() };
        // Processes may give themselves any.
        host_names.retain(|(name, _)| is_name(name));
        if let Some(found) = self.by_host_name(&host_names)? {
            return Ok(found);
        }
        let others = known.iter().map(|pod| pod.name.to_string());
        let near = near(&self.to_string(), others.chain(host_names.into_iter().map(|(name, _)| name)));
        if known.is_empty() {
            bail!(
                "no network namespace of this node has the host name `{}`{near}; the agent has told of no Pods (`sidestep \
                 status` says whether it runs, and may read them): name the client as pid:N, netns:PATH or by its address",
                self.name
            );
        }
        bail!(
            "no Pod `{self}` is on this node, as far as the agent has told{near} (`kubectl get pods -A -o wide` shows where \
             each is)"
        )
    }

    /// The one of this name.
    fn among<'a>(&self, pods: &'a [PodHere]) -> anyhow::Result<Option<&'a PodHere>> {
        let is_it = |pod: &&PodHere| {
            let namespace = self.namespace.as_deref();
            pod.name.name() == self.name
                && namespace.is_none_or(|namespace| pod.name.namespace() == namespace)
        };
        match pods.iter().filter(is_it).collect::<Vec<_>>().as_slice() {
            [] => Ok(None),
            [pod] => Ok(Some(*pod)),
            several => {
                let names: Vec<String> = several.iter().map(|pod| pod.name.to_string()).collect();
                bail!("`{self}` is the name of several Pods of this node: name one of {}", names.join(", "))
            }
        }
    }

    fn by_host_name(&self, found: &[(String, PathBuf)]) -> anyhow::Result<Option<Pod>> {
        let is_it = |(name, _): &&(String, PathBuf)| *name == self.name;
        match found.iter().filter(is_it).collect::<Vec<_>>().as_slice() {
            [] => Ok(None),
            [(name, place)] => Ok(Some(Pod {
                place: Where::NetworkNamespace(place.clone()),
                namespace: None,
                told: format!(
                    "host name {name}, {} (its namespace in Kubernetes is not known)",
                    place.display()
                ),
            })),
            several => {
                let places: Vec<String> =
                    several.iter().map(|(_, place)| place.display().to_string()).collect();
                bail!(
                    "several network namespaces have the host name `{self}`: name one as netns:PATH of {}",
                    places.join(", ")
                )
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(namespace: &str, name: &str) -> PodHere {
        PodHere {
            name: ObjectName::new(namespace, name),
            uid: "u".into(),
            on_host: false,
            addresses: Box::default(),
        }
    }

    fn name(text: &str) -> PodName {
        text.parse().unwrap_or_else(|()| panic!("{text}"))
    }

    #[test]
    fn a_pod_is_found_by_its_name_where_that_is_one() {
        let pods = [pod("shop", "web-1"), pod("test", "web-1"), pod("shop", "db-0")];
        let found = |text: &str| name(text).among(&pods).map(|found| found.map(|pod| pod.name.to_string()));
        assert_eq!(found("db-0").expect("one"), Some("shop/db-0".to_owned()));
        assert_eq!(found("test/web-1").expect("one"), Some("test/web-1".to_owned()));
        assert_eq!(found("test/db-0").expect("none"), None);
        let error = found("web-1").expect_err("two").to_string();
        assert!(error.contains("shop/web-1, test/web-1"), "{error}");
    }

    #[test]
    fn what_cannot_be_a_name_is_none() {
        for text in ["", "/", "a/", "/a", "a/b/c", "Web", "web 1", "[fd00::1]", "pid:x"] {
            assert_eq!(text.parse::<PodName>(), Err(()), "{text}");
        }
    }
}
