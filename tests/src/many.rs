//! More Service ports than the tables begin with room for, in few documents.

use std::{
    fmt::Write as _,
    net::{IpAddr, Ipv4Addr, SocketAddr},
};

use anyhow::Result;

use crate::Lab;

/// Ports of each Service.
const PORTS: u16 = 100;
/// The first of them.
const FIRST: u16 = 1000;

/// Services of a hundred TCP ports each, at 10.97.0.0 and so on, with one endpoint.
#[derive(Clone, Copy, Debug)]
pub struct Many;

impl Many {
    /// Writes so many ports in all.
    ///
    /// # Errors
    /// When the manifest cannot be written.
    pub fn write(lab: &Lab, endpoint: IpAddr, count: u32) -> Result<()> {
        let list = |each: &dyn Fn(u16) -> String| (0..PORTS).map(each).collect::<Vec<_>>().join(", ");
        let ports = list(&|port| {
            format!("{{name: p{port}, port: {}, protocol: TCP, targetPort: 8080}}", FIRST + port)
        });
        let targets = list(&|port| format!("{{name: p{port}, port: 8080, protocol: TCP}}"));
        let mut text = String::new();
        for number in 0..count / u32::from(PORTS) {
            let address = Self::address(number);
            write!(
                text,
                "---\napiVersion: v1\nkind: Service\nmetadata: {{name: many-{number}, namespace: default}}\n\
                 spec: {{clusterIP: {address}, ports: [{ports}]}}\n\
                 ---\napiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\naddressType: IPv4\n\
                 metadata: {{name: many-{number}-1, namespace: default, labels: \
                 {{kubernetes.io/service-name: many-{number}}}}}\n\
                 endpoints: [{{addresses: [{endpoint}], conditions: {{ready: true}}}}]\nports: [{targets}]\n"
            )?;
        }
        lab.manifests().write_text("many.yaml", &text)
    }

    /// The last frontend of so many.
    pub fn last(count: u32) -> SocketAddr {
        (Self::address(count / u32::from(PORTS) - 1), FIRST + PORTS - 1).into()
    }

    fn address(number: u32) -> Ipv4Addr {
        Ipv4Addr::from(u32::from(Ipv4Addr::new(10, 97, 0, 0)) + number)
    }
}
