//! The pods that `deploy/demo` names as endpoints, and two clients.

use std::fmt;

use anyhow::Result;
use sidestep_tests::{
    Place, TwoNodes,
    cluster::{DNS_PORT, HTTP_PORT},
    traffic::{TcpServer, UdpServer},
};

/// The pods and their servers. Their order gives them the addresses in `deploy/demo`.
#[derive(Debug)]
pub(super) struct Cast {
    pub(super) web: Vec<(TcpServer, Place)>,
    pub(super) dns: Vec<(UdpServer, Place)>,
    /// A pod of another node.
    far: (TcpServer, Place),
    pub(super) client: Place,
    pub(super) outside: Place,
    node: Place,
}

impl Cast {
    /// Makes the pods and starts their servers.
    pub(super) fn assemble(nodes: &TwoNodes) -> Result<Self> {
        let lab = nodes.lab();
        let client = lab.pod("client")?;
        let web = ["web-1", "web-2", "web-3"].map(|name| {
            let pod = lab.pod(name)?;
            Ok((TcpServer::start(&pod, name, HTTP_PORT)?, pod))
        });
        let dns = ["dns-1", "dns-2"].map(|name| {
            let pod = lab.pod(name)?;
            Ok((UdpServer::start(&pod, name, DNS_PORT)?, pod))
        });
        let there = nodes.pod_there("far-1")?;
        Ok(Self {
            far: (TcpServer::start(&there, "far-1", HTTP_PORT)?, there),
            outside: nodes.outside().clone(),
            client,
            web: web.into_iter().collect::<Result<_>>()?,
            dns: dns.into_iter().collect::<Result<_>>()?,
            node: lab.node().clone(),
        })
    }
}

impl fmt::Display for Cast {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let pods = self.web.iter().map(|(_, pod)| pod).chain(self.dns.iter().map(|(_, pod)| pod));
        let (_, far) = &self.far;
        for place in [&self.outside, &self.node, &self.client].into_iter().chain(pods).chain([far]) {
            writeln!(f, "  {:<7} {:<12} {}", place.name(), place.v4.to_string(), place.v6)?;
        }
        Ok(())
    }
}
