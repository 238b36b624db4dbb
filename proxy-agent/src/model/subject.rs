//! The subject of a problem.

use std::{fmt, net::IpAddr, path::PathBuf};

use serde::{Deserialize, Serialize};

use super::{Kind, ObjectKey, ObjectName};

/// What a problem concerns. Displays in words, such as `Service default/web`.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "camelCase")]
pub enum Subject {
    /// A file of manifests.
    File {
        /// Its name.
        file: String,
    },
    /// A document of such a file.
    Document {
        /// The file's name.
        file: String,
        /// Where in it.
        #[serde(flatten)]
        position: Position,
    },
    /// An object that such a file defines in vain.
    Definition {
        /// The file's name.
        file: String,
        /// What it defines.
        object: ObjectKey,
    },
    /// The directory of the manifests.
    Directory {
        /// Its path.
        path: PathBuf,
    },
    /// The API server's watch of a kind.
    Watch {
        /// The kind.
        kind: Kind,
    },
    /// An object of the API.
    Object(ObjectKey),
    /// The listener for a load balancer's health checks of a Service (`spec.healthCheckNodePort`).
    HealthCheck(ObjectName),
    /// The agent's listener at `healthzBindAddress`.
    Healthz,
    /// The agent's listener at `metricsBindAddress`.
    Metrics,
    /// The agent's configuration.
    Configuration {
        /// The file; nothing for the command line.
        path: Option<PathBuf>,
    },
    /// The node that the agent runs on.
    ThisNode,
    /// A network device of the node's.
    Device {
        /// Its name; `device 7` where it has none any more.
        name: String,
    },
    /// An address that belongs to no one object.
    Address {
        /// The address.
        address: IpAddr,
    },
    /// Source ports of masqueraded packets.
    SourcePorts {
        /// Which, as the kernel writes lists of ports.
        ports: String,
    },
    /// NodePorts in use.
    NodePorts {
        /// Which, as the kernel writes lists of ports.
        ports: String,
    },
}

impl Subject {
    /// The Service of this name.
    pub fn service(name: &ObjectName) -> Self {
        Self::Object(ObjectKey::new(Kind::Service, name.clone()))
    }

    /// The Node object of this name.
    pub fn node(name: &str) -> Self {
        Self::Object(ObjectKey::new(Kind::Node, ObjectName::new("", name)))
    }

    /// The device of this name.
    pub fn device(name: &str) -> Self {
        Self::Device { name: name.to_owned() }
    }
}

/// Where a document is in its file.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub struct Position {
    /// Its number, from 1; documents without content do not count.
    pub document: u32,
    /// The item of a list, from 0.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub item: Option<u32>,
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "document {}", self.document)?;
        self.item.map_or(Ok(()), |item| write!(f, ", items[{item}]"))
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { file } => f.write_str(file),
            Self::Document { file, position } => write!(f, "{file}, {position}"),
            Self::Definition { file, object } => write!(f, "{file}, {object}"),
            Self::Directory { path } => path.display().fmt(f),
            Self::Watch { kind } => write!(f, "watch of {}s", kind.name()),
            Self::Object(key) => key.fmt(f),
            Self::HealthCheck(service) => write!(f, "{} {service}", Kind::Service.name()),
            Self::Healthz | Self::Metrics => f.write_str("the agent"),
            Self::Configuration { path: Some(path) } => write!(f, "configuration {}", path.display()),
            Self::Configuration { path: None } => f.write_str("command line"),
            Self::ThisNode => f.write_str("this node"),
            Self::Device { name } => f.write_str(name),
            Self::Address { address } => write!(f, "address {address}"),
            Self::SourcePorts { ports } => named(f, "source ports", ports),
            Self::NodePorts { ports } => named(f, "NodePorts", ports),
        }
    }
}

fn named(f: &mut fmt::Formatter<'_>, what: &str, ports: &str) -> fmt::Result {
    f.write_str(what)?;
    if ports.is_empty() { Ok(()) } else { write!(f, " {ports}") }
}
