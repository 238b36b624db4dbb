//! The client in the command's arguments, and what is known of it.

use std::{
    collections::BTreeSet,
    fmt,
    net::IpAddr,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    str::FromStr,
};

use anyhow::{Context as _, bail};
use proxy_common::{Address, AddressBits, PassedBy, Scope};

use super::pod::{Pod, PodName, Pods, Where};
use crate::{
    agent::Report,
    dataplane::{Error, Tables, addresses_in, netns_cookie, netns_cookie_of},
};

/// The network namespace of this process, which is the node's.
const OWN: &str = "/proc/thread-self/ns/net";

/// A client as named on the command line.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(in crate::commands) enum ClientName {
    Node,
    /// A north-south client, with its address if known.
    Outside(Option<IpAddr>),
    NetworkNamespace(PathBuf),
    Pod(PodName),
    Address(IpAddr),
}

impl FromStr for ClientName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once(':') {
            _ if text == "node" => Ok(Self::Node),
            _ if text == "outside" => Ok(Self::Outside(None)),
            Some(("outside", address)) => match address.parse() {
                Ok(address) => Ok(Self::Outside(Some(address))),
                Err(error) => Err(format!("{address:?} is not an address: {error}")),
            },
            Some(("pid", pid)) => match pid.parse::<u32>() {
                Ok(pid) => Ok(Self::NetworkNamespace(format!("/proc/{pid}/ns/net").into())),
                Err(error) => Err(format!("{pid:?} is not a process id: {error}")),
            },
            Some(("netns", path)) if path.starts_with('/') => Ok(Self::NetworkNamespace(path.into())),
            Some(("netns", name)) => Ok(Self::NetworkNamespace(PathBuf::from("/run/netns").join(name))),
            _ => {
                let address = || text.parse().map(Self::Address).ok();
                address().or_else(|| text.parse().map(Self::Pod).ok()).ok_or_else(|| {
                    format!(
                        "{text:?} is none of: [NAMESPACE/]POD, node, outside:ADDRESS, outside, pid:N, netns:PATH, or an IP \
                         address"
                    )
                })
            }
        }
    }
}

/// Where a client's traffic to Services is translated.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::commands) enum PathTaken {
    /// At its sockets.
    Socket,
    /// At its sockets, unless it is passed by.
    Unknown,
    /// At the pod's device, as the socket programs serve the node alone.
    HostOnly,
    /// At the pod's device, for this reason.
    PassedBy(PassedBy),
    /// At the uplink.
    Uplink,
}

impl fmt::Display for PathTaken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Socket => f.write_str("socket: connect() and sendto() get the endpoint's address"),
            Self::Unknown => f.write_str(
                "socket, unless its network namespace is passed by, which is known where its processes are visible",
            ),
            Self::HostOnly => f.write_str(
                "packets at the pod's device: --socket-lb host-only leaves the sockets of pods alone",
            ),
            Self::PassedBy(why) => {
                write!(f, "packets at the pod's device: {}, {}", why.name(), why.explanation())
            }
            Self::Uplink => f.write_str("packets at the uplink"),
        }
    }
}

/// What is known of the client.
pub(in crate::commands) struct Client {
    /// Who and where it is, if it was named as a pod.
    pub(in crate::commands) told: Option<String>,
    /// Its namespace in Kubernetes, if it is known.
    pub(in crate::commands) home: Option<String>,
    /// Its network namespace, if one can be entered.
    pub(in crate::commands) place: Option<PathBuf>,
    cookie: u64,
    is_node: bool,
    pub(in crate::commands) scope: Scope,
    /// Its addresses, if these are all that is known of it.
    addresses: Vec<Address>,
}

impl Client {
    pub(in crate::commands) fn of(name: &ClientName, report: Option<&Report>) -> anyhow::Result<Self> {
        let own = netns_cookie()?;
        let in_namespace = |cookie, is_node| Self {
            told: None,
            home: None,
            place: None,
            cookie,
            is_node,
            scope: Scope::Inside,
            addresses: Vec::new(),
        };
        let at = |addresses: &[IpAddr]| addresses.iter().copied().map(Address::from).collect();
        Ok(match name {
            ClientName::Pod(pod) => {
                let Pod { place, namespace, told } = pod.find(report)?;
                let client = match place {
                    Where::Node => Self::of(&ClientName::Node, report)?,
                    Where::NetworkNamespace(path) => Self::of(&ClientName::NetworkNamespace(path), report)?,
                    Where::Addresses(addresses) => {
                        Self { addresses: at(&addresses), ..in_namespace(0, false) }
                    }
                };
                Self { told: Some(told), home: namespace, ..client }
            }
            ClientName::Node => Self { place: Some(OWN.into()), ..in_namespace(own, true) },
            ClientName::Outside(Some(address)) if address.is_loopback() => {
                bail!("{address} is a loopback address: no north-south packet has it as its source")
            }
            ClientName::Outside(address) => {
                Self { scope: Scope::Outside, addresses: at(address.as_slice()), ..in_namespace(0, false) }
            }
            ClientName::NetworkNamespace(path) => {
                let cookie =
                    netns_cookie_of(path).with_context(|| format!("cannot enter {}", path.display()))?;
                // Not by their cookies, which kernels before 5.14 do not have.
                let inode = |path: &Path| std::fs::metadata(path).ok().map(|namespace| namespace.ino());
                let is_own = inode(path) == inode(Path::new(OWN));
                Self { place: Some(path.clone()), ..in_namespace(cookie, is_own) }
            }
            ClientName::Address(address) if address.is_loopback() => {
                bail!(
                    "{address} is a loopback address, which every network namespace has: name the client as \
                     `node`, POD or pid:N"
                )
            }
            ClientName::Address(address) => Self { addresses: at(&[*address]), ..in_namespace(0, false) },
        })
    }
}

impl Client {
    /// How it reaches Services. `host_only` says whether the socket programs serve the node alone.
    pub(in crate::commands) fn path(&self, pin_dir: &Path, host_only: bool) -> Result<PathTaken, Error> {
        let known = || Tables::bypassed(pin_dir).map(|map| map.get(&self.cookie, 0).ok());
        Ok(match self.scope {
            Scope::Outside => PathTaken::Uplink,
            Scope::Inside if self.is_node => PathTaken::Socket,
            Scope::Inside if host_only => PathTaken::HostOnly,
            Scope::Inside if !self.addresses.is_empty() => PathTaken::Unknown,
            Scope::Inside => match known()?.and_then(PassedBy::from_number) {
                Some(why) => PathTaken::PassedBy(why),
                None => PathTaken::Socket,
            },
        })
    }

    /// Whether its sockets cannot be told from others: its network namespace is not known.
    pub(in crate::commands) fn is_without_sockets(&self, marks: &BTreeSet<Address>) -> bool {
        self.scope == Scope::Inside && marks.iter().all(|mark| mark.namespace().is_none())
    }

    /// What its events know it by: its network namespace, if it has sockets on this node, and its addresses, as far as they are
    /// known: packets have nothing else.
    pub(in crate::commands) fn marks(&self, pods: &Pods<'_>, tables: &Tables) -> BTreeSet<Address> {
        let mut marks: BTreeSet<Address> = self.addresses.iter().copied().collect();
        let mut cookies = vec![self.cookie];
        if self.is_node {
            let of_node = tables.addresses.iter().filter_map(Result::ok);
            marks.extend(
                of_node.filter(|(_, entry)| entry.kind.has(AddressBits::NODE)).map(|(address, _)| address),
            );
        } else if let Some(place) = &self.place {
            marks.extend(addresses_in(place).into_iter().map(Address::from));
        } else if self.scope == Scope::Inside {
            // A pod's.
            let places = self.addresses.iter().filter_map(|address| pods.place((*address).into()));
            cookies.extend(places.filter_map(|place| netns_cookie_of(&place).ok()));
        }
        marks.extend(cookies.into_iter().filter(|cookie| *cookie != 0).map(Address::of_namespace));
        marks
    }

    /// Whether it may have packets of this family.
    pub(in crate::commands) fn speaks(&self, is_v4: bool) -> bool {
        self.addresses.is_empty() || self.addresses.iter().any(|address| address.is_v4() == is_v4)
    }

    /// Why its last endpoint (affinity) is unknown, if it is: at sockets a client is a network namespace (ST-9), in
    /// packets a source address.
    pub(in crate::commands) fn unknown(&self) -> Option<&'static str> {
        match (self.scope, self.addresses.as_slice()) {
            (Scope::Inside, [_, ..]) => Some(
                "unknown for a mere address: its network namespace is known by pid:N, or where its processes are visible",
            ),
            (Scope::Outside, []) => Some("unknown without an address: name the client as outside:ADDRESS"),
            _ => None,
        }
    }
}

impl proxy_common::Client for Client {
    fn identity(&self) -> Address {
        if let (Scope::Outside, [address, ..]) = (self.scope, self.addresses.as_slice()) {
            return *address;
        }
        Address::of_namespace(self.cookie)
    }

    fn is_node(&self) -> bool {
        self.is_node
    }

    fn scope(&self) -> Scope {
        self.scope
    }

    fn source(&self, tables: &impl proxy_common::Tables, destination: &Address) -> Option<Address> {
        match (self.addresses.as_slice(), self.scope) {
            ([], Scope::Outside) => None,
            ([], Scope::Inside) => tables.client(self.cookie)?.for_destination(destination),
            (known, _) => known.iter().find(|address| address.is_v4() == destination.is_v4()).copied(),
        }
    }
}

#[cfg(test)]
mod tests {
    use proxy_common::Client as _;

    use super::*;

    /// ST-2: in packets a client is its address.
    #[test]
    fn a_client_outside_is_its_address() {
        let client = |text: &str| Client::of(&text.parse().expect(text), None).expect(text);
        let known = client("outside:198.51.100.7");
        let address = Address::from(IpAddr::from([198, 51, 100, 7]));
        assert_eq!((known.identity(), known.scope(), known.unknown()), (address, Scope::Outside, None));
        assert!(!known.is_node());
        let known = client("outside:2001:db8::7");
        assert_eq!(known.identity(), Address::from("2001:db8::7".parse::<IpAddr>().expect("an address")));
        assert!(client("outside").unknown().is_some_and(|text| text.contains("outside:ADDRESS")));
        assert!(client("10.0.0.1").unknown().is_some_and(|text| text.contains("pid:N")));
        assert_eq!(client("node").unknown(), None);
        for text in ["outside:", "outside:web", "Inside", "a/b/c"] {
            text.parse::<ClientName>().expect_err(text);
        }
        assert!(Client::of(&"outside:127.0.0.1".parse().expect("an address"), None).is_err());
    }
}
