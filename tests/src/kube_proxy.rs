//! Rules like kube-proxy's on the lab's node, for Services with policy Cluster that netfilter translates; and a process
//! that looks like kube-proxy.
//!
//! The rules match a Service by its addresses, or by its NodePort at the node's own addresses, mark its packets,
//! translate them to an endpoint (DNAT) and masquerade by the mark, in kube-proxy's tables, chains and order. Every
//! connection is masqueraded (`masqueradeAll`), as the lab's bridges do not give answers between pods to netfilter.

use std::{
    fmt::Write,
    net::{IpAddr, SocketAddr},
    path::Path,
    process::{Child, Command},
};

use anyhow::{Context as _, Result};

use crate::{
    manifest::{NAMESPACE, Protocol},
    netfilter,
    place::Place,
};

/// The mark of packets to masquerade after routing.
const MASQUERADE: &str = "0x4000";

/// The kind of rules.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Flavour {
    /// Those of mode `nftables`.
    Nftables,
    /// Those of mode `iptables`.
    Iptables,
}

/// A Service port with one endpoint, in the family of the endpoint.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Proxied {
    /// The Service, in the namespace of all.
    pub service: String,
    /// The port's name.
    pub port: &'static str,
    /// Its protocol.
    pub protocol: Protocol,
    /// Its NodePort.
    pub node_port: u16,
    /// Its ClusterIP or LoadBalancer IPs, with their port.
    pub at: Vec<SocketAddr>,
    /// Its endpoint.
    pub endpoint: SocketAddr,
}

impl Proxied {
    fn protocol(&self) -> String {
        self.protocol.to_string().to_lowercase()
    }

    /// As comments of rules name it.
    fn name(&self) -> String {
        format!("{NAMESPACE}/{}:{}", self.service, self.port)
    }
}

/// Loads the rules for these Services on a node.
pub fn load(node: &Place, flavour: Flavour, services: &[Proxied]) -> Result<()> {
    for v4 in [true, false] {
        let of_family: Vec<&Proxied> =
            services.iter().filter(|service| service.endpoint.is_ipv4() == v4).collect();
        match (flavour, v4) {
            (Flavour::Nftables, _) => netfilter::nft(node, &nftables(v4, &of_family))?,
            (Flavour::Iptables, true) => netfilter::restore(node, "iptables-restore", &iptables(&of_family))?,
            (Flavour::Iptables, false) => {
                netfilter::restore(node, "ip6tables-restore", &iptables(&of_family))?;
            }
        }
    }
    Ok(())
}

/// A process that does nothing, by the name of kube-proxy, on the node's network. It ends with this.
#[derive(Debug)]
pub struct KubeProxy(Child);

impl KubeProxy {
    /// Starts it from a program in `folder`, which is the test's.
    pub fn start(node: &Place, folder: &Path) -> Result<Self> {
        let program = folder.join("kube-proxy");
        std::fs::copy("/bin/sleep", &program).context("/bin/sleep")?;
        let mut command = Command::new(&program);
        command.arg("300");
        Ok(Self(node.namespace().run(|| command.spawn())?.context("kube-proxy")?))
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.0.id()
    }
}

impl Drop for KubeProxy {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn nftables(v4: bool, services: &[&Proxied]) -> String {
    let (family, address) = if v4 { ("ip", "ipv4_addr") } else { ("ip6", "ipv6_addr") };
    let (mut chains, mut ips, mut node_ports) = (String::new(), Vec::new(), Vec::new());
    for service in services {
        let Proxied { service: name, port, node_port, at, endpoint, .. } = service;
        let protocol = service.protocol();
        // In kube-proxy's names a hash is where the NodePort is here.
        let name = format!("{node_port:08}-{NAMESPACE}/{name}/{protocol}/{port}");
        let chain = format!("external-{name}");
        let ip = endpoint.ip().to_string().replace(':', ".");
        let to = format!("endpoint-{name}__{ip}/{}", endpoint.port());
        let _ = write!(
            chains,
            "    chain {to} {{
        {family} saddr {} jump mark-for-masquerade
        meta l4proto {protocol} dnat to {endpoint}
    }}
    chain service-{name} {{
        numgen random mod 1 vmap {{ 0 : goto {to} }}
    }}
    chain {chain} {{
        jump mark-for-masquerade
        goto service-{name}
    }}
",
            endpoint.ip()
        );
        ips.extend(at.iter().map(|at| format!("{} . {protocol} . {} : goto {chain}", at.ip(), at.port())));
        node_ports.push(format!("{protocol} . {node_port} : goto {chain}"));
    }
    let elements = |all: &[String]| {
        if all.is_empty() { String::new() } else { format!("elements = {{ {} }}", all.join(", ")) }
    };
    format!(
        "table {family} kube-proxy {{
    chain mark-for-masquerade {{ mark set mark or {MASQUERADE}; }}
{chains}    map service-ips {{
        type {address} . inet_proto . inet_service : verdict
        {ips}
    }}
    map service-nodeports {{
        type inet_proto . inet_service : verdict
        {node_ports}
    }}
    chain services {{
        {family} daddr . meta l4proto . th dport vmap @service-ips
        fib daddr type local meta l4proto . th dport vmap @service-nodeports
    }}
    chain nat-prerouting {{
        type nat hook prerouting priority dstnat; policy accept;
        jump services
    }}
    chain nat-output {{
        type nat hook output priority -100; policy accept;
        jump services
    }}
    chain masquerading {{
        mark and {MASQUERADE} == 0 return
        mark set mark xor {MASQUERADE}
        masquerade fully-random
    }}
    chain nat-postrouting {{
        type nat hook postrouting priority srcnat; policy accept;
        jump masquerading
    }}
}}
",
        ips = elements(&ips),
        node_ports = elements(&node_ports),
    )
}

fn iptables(services: &[&Proxied]) -> String {
    let (mut chains, mut rules) = (String::new(), String::new());
    for service in services {
        let Proxied { node_port, at, endpoint, .. } = service;
        let (protocol, comment) = (service.protocol(), service.name());
        let name = format!("{}{node_port}", protocol.to_uppercase());
        let (ip, port) = (endpoint.ip(), endpoint.port());
        let destination = match ip {
            IpAddr::V4(ip) => format!("{ip}:{port}"),
            IpAddr::V6(ip) => format!("[{ip}]:{port}"),
        };
        let _ =
            write!(chains, ":KUBE-EXT-{name} - [0:0]\n:KUBE-SVC-{name} - [0:0]\n:KUBE-SEP-{name} - [0:0]\n");
        for at in at {
            let (ip, port) = (at.ip(), at.port());
            let _ = writeln!(
                rules,
                "-A KUBE-SERVICES -d {ip} -p {protocol} -m comment --comment \"{comment} cluster IP\" -m {protocol} \
                 --dport {port} -j KUBE-EXT-{name}"
            );
        }
        let _ = write!(
            rules,
            "-A KUBE-NODEPORTS -p {protocol} -m comment --comment {comment} -m {protocol} --dport {node_port} -j \
             KUBE-EXT-{name}
-A KUBE-EXT-{name} -j KUBE-MARK-MASQ
-A KUBE-EXT-{name} -j KUBE-SVC-{name}
-A KUBE-SVC-{name} -j KUBE-SEP-{name}
-A KUBE-SEP-{name} -p {protocol} -m {protocol} -j DNAT --to-destination {destination}
"
        );
    }
    format!(
        "*mangle
:KUBE-PROXY-CANARY - [0:0]
COMMIT
*filter
:KUBE-PROXY-CANARY - [0:0]
:KUBE-EXTERNAL-SERVICES - [0:0]
:KUBE-FORWARD - [0:0]
:KUBE-SERVICES - [0:0]
-A INPUT -m conntrack --ctstate NEW -j KUBE-EXTERNAL-SERVICES
-A FORWARD -j KUBE-FORWARD
-A FORWARD -m conntrack --ctstate NEW -j KUBE-SERVICES
-A KUBE-FORWARD -m conntrack --ctstate INVALID -j DROP
-A KUBE-FORWARD -m mark --mark {MASQUERADE}/{MASQUERADE} -j ACCEPT
-A KUBE-FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
COMMIT
*nat
:KUBE-PROXY-CANARY - [0:0]
:KUBE-SERVICES - [0:0]
:KUBE-NODEPORTS - [0:0]
:KUBE-POSTROUTING - [0:0]
:KUBE-MARK-MASQ - [0:0]
{chains}-A PREROUTING -j KUBE-SERVICES
-A OUTPUT -j KUBE-SERVICES
-A POSTROUTING -j KUBE-POSTROUTING
-A KUBE-MARK-MASQ -j MARK --or-mark {MASQUERADE}
-A KUBE-POSTROUTING -m mark ! --mark {MASQUERADE}/{MASQUERADE} -j RETURN
-A KUBE-POSTROUTING -j MARK --xor-mark {MASQUERADE}
-A KUBE-POSTROUTING -j MASQUERADE --random-fully
{rules}-A KUBE-SERVICES -m addrtype --dst-type LOCAL -j KUBE-NODEPORTS
COMMIT
"
    )
}

#[cfg(test)]
mod tests {
    use super::{Proxied, iptables, nftables};
    use crate::manifest::{NAMESPACE, Protocol};

    #[test]
    fn every_address_leads_to_the_endpoint_in_both_families() {
        let service = |at: &str, endpoint: &str| Proxied {
            service: "web".to_owned(),
            port: "http",
            protocol: Protocol::Tcp,
            node_port: 30_080,
            at: vec![at.parse().expect("an address")],
            endpoint: endpoint.parse().expect("an address"),
        };
        let (v4, v6) =
            (service("10.96.0.80:80", "10.244.1.10:8080"), service("[fd00::80]:80", "[fd00::10]:8080"));
        let text = nftables(true, &[&v4]);
        assert!(text.contains("dnat to 10.244.1.10:8080"), "{text}");
        let chain = format!("external-00030080-{NAMESPACE}/web/tcp/http");
        assert!(text.contains(&format!("elements = {{ 10.96.0.80 . tcp . 80 : goto {chain} }}")), "{text}");
        assert!(text.contains(&format!("elements = {{ tcp . 30080 : goto {chain} }}")), "{text}");
        assert!(nftables(false, &[&v6]).contains("dnat to [fd00::10]:8080"));
        let text = iptables(&[&v6]);
        assert!(text.contains("DNAT --to-destination [fd00::10]:8080\n"), "{text}");
        assert!(text.contains(" cluster IP\" -m tcp --dport 80 -j KUBE-EXT-TCP30080\n"), "{text}");
        assert!(iptables(&[&v4]).contains("DNAT --to-destination 10.244.1.10:8080\n"));
    }
}
