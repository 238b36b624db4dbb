//! Who plays: the pods that `deploy/demo` names as endpoints, and a client.

use std::fmt;

use anyhow::Result;
use sidestep_tests::{
    Lab, Place,
    cluster::{DNS_PORT, HTTP_PORT},
    traffic::{TcpServer, UdpServer},
};

/// The pods and their servers. Their order gives them the addresses in `deploy/demo`.
#[derive(Debug)]
pub(super) struct Cast {
    pub(super) web: Vec<(TcpServer, Place)>,
    pub(super) dns: Vec<(UdpServer, Place)>,
    pub(super) client: Place,
    node: Place,
}

impl Cast {
    /// Makes the pods and starts their servers.
    pub(super) fn assemble(lab: &Lab) -> Result<Self> {
        let client = lab.pod("client")?;
        let web = ["web-1", "web-2", "web-3"].map(|name| {
            let pod = lab.pod(name)?;
            Ok((TcpServer::start(&pod, name, HTTP_PORT)?, pod))
        });
        let dns = ["dns-1", "dns-2"].map(|name| {
            let pod = lab.pod(name)?;
            Ok((UdpServer::start(&pod, name, DNS_PORT)?, pod))
        });
        Ok(Self {
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
        for place in [&self.node, &self.client].into_iter().chain(pods) {
            writeln!(f, "  {:<7} {:<12} {}", place.name(), place.v4.to_string(), place.v6)?;
        }
        Ok(())
    }
}
