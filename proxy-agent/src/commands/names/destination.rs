//! The destination in the command's arguments: an address, or a Service's name.

use std::{
    collections::BTreeMap,
    fmt,
    net::{IpAddr, SocketAddr},
    str::FromStr,
};

use anyhow::bail;
use proxy_common::{Address, AddressBits, FrontendKey, FrontendKind, Port, Protocol, Scope};

use super::{client::Client, near::near};
use crate::{
    agent::Report,
    dataplane::{Tables, identity},
    model::{Kind, ObjectName, Problem, Subject},
    plan::ServicePortId,
};

/// A destination as named on the command line.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(in crate::commands) enum Destination {
    Address { address: SocketAddr, protocol: Protocol },
    Service(ServiceName),
}

/// A Service, and one of its ports or all.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(in crate::commands) struct ServiceName {
    namespace: Option<String>,
    name: String,
    /// Name or number.
    port: Option<String>,
    protocol: Option<Protocol>,
}

impl FromStr for Destination {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (before, protocol) = match text.rsplit_once('/') {
            // `NAMESPACE/NAME` has no port before the slash.
            Some((before, protocol)) if before.contains(':') => (before, Some(self::protocol(protocol)?)),
            _ => (text, None),
        };
        if let Ok(address) = before.parse() {
            return Ok(Self::Address { address, protocol: protocol.unwrap_or(Protocol::Tcp) });
        }
        let host = before.split(':').next().unwrap_or_default();
        let is_numbers =
            host.contains('.') && host.chars().all(|letter| letter.is_ascii_digit() || letter == '.');
        if is_numbers || before.parse::<IpAddr>().is_ok() || before.starts_with('[') {
            return Err(format!("{before:?} is not address:port; write IPv6 as [fd00::1]:80"));
        }
        ServiceName::parse(before, protocol).map(Self::Service).ok_or_else(|| {
            format!(
                "{text:?} is neither address:port (IPv6 as [fd00::1]:80) nor a Service's name, such as shop/web:http, \
                 web:80/tcp or web.shop.svc"
            )
        })
    }
}

fn protocol(text: &str) -> Result<Protocol, String> {
    match text.to_ascii_lowercase().as_str() {
        "tcp" => Ok(Protocol::Tcp),
        "udp" => Ok(Protocol::Udp),
        "sctp" => Ok(Protocol::Sctp),
        other => Err(format!("unknown protocol {other:?}: tcp, udp or sctp")),
    }
}

impl ServiceName {
    /// `NAME`, `NAMESPACE/NAME` or as in DNS `NAME.NAMESPACE…`, each with `:PORT` or without.
    fn parse(text: &str, protocol: Option<Protocol>) -> Option<Self> {
        let (service, port) = match text.split_once(':') {
            Some((service, port)) => (service, Some(port)),
            None => (text, None),
        };
        let (namespace, name) = match (service.split_once('/'), service.split_once('.')) {
            (Some((namespace, name)), _) => (Some(namespace), name),
            (None, Some((name, rest))) => (rest.split('.').next(), name),
            (None, None) => (None, service),
        };
        let is_label = |text: &str| {
            !text.is_empty()
                && text
                    .chars()
                    .all(|letter| letter.is_ascii_lowercase() || letter.is_ascii_digit() || letter == '-')
        };
        let is_right = is_label(name) && namespace.is_none_or(is_label) && port.is_none_or(is_label);
        let owned = |text: Option<&str>| text.map(str::to_owned);
        is_right.then(|| Self { namespace: owned(namespace), name: name.into(), port: owned(port), protocol })
    }

    fn is(&self, service: &ObjectName) -> bool {
        let namespace = self.namespace.as_deref();
        service.name() == self.name && namespace.is_none_or(|namespace| service.namespace() == namespace)
    }

    /// The addresses at which a client uses it: for one inside its ClusterIP, or what else a port has if it has none; for
    /// one outside all else.
    ///
    /// Without a namespace it is the Service in the client's own, if that is known, as in DNS.
    pub(in crate::commands) fn frontends(
        &self,
        tables: &Tables,
        client: &Client,
        report: Option<&Report>,
    ) -> anyhow::Result<Vec<FrontendKey>> {
        let mut installed = installed(tables)?;
        let service = self.service(&installed, client.home.as_deref(), report)?;
        let ports = installed.remove(&service).unwrap_or_default();
        let chosen = self.chosen(&service, ports, report)?;
        let number: Option<Port> = self.port.as_deref().and_then(|port| port.parse().ok()).map(Port::new);
        let mut keys = Vec::new();
        for port in &chosen {
            let usable = port.frontends.iter().filter(|(key, kind)| {
                // A ClusterIP is nothing outside of the cluster.
                let is_reached = client.scope == Scope::Inside || *kind != FrontendKind::ClusterIp;
                is_reached && client.speaks(key.address.is_v4())
            });
            // The ClusterIP first.
            let mut all: Vec<FrontendKey> = usable.map(|(key, _)| *key).collect();
            // A number may be that of one alone, such as a NodePort's.
            if all.iter().any(|key| Some(key.port) == number) {
                all.retain(|key| Some(key.port) == number);
            }
            if client.scope == Scope::Inside {
                all.truncate(1);
            }
            keys.append(&mut all);
        }
        if keys.is_empty() {
            bail!(
                "{service} has no address that such a client could use: one outside of the cluster needs a NodePort, an external \
                 or a LoadBalancer IP, and each client one of its own family"
            );
        }
        keys.into_iter()
            .map(|key| if key.any_address == 0 { Ok(key) } else { on_this_node(tables, &key) })
            .collect()
    }

    /// Its ports, or the one that is named, whoever the client.
    pub(in crate::commands) fn ports(
        &self,
        tables: &Tables,
        report: Option<&Report>,
    ) -> anyhow::Result<Vec<PortHere>> {
        let mut installed = installed(tables)?;
        let service = self.service(&installed, None, report)?;
        let ports = installed.remove(&service).unwrap_or_default();
        self.chosen(&service, ports, report)
    }

    /// Whether it names a port.
    pub(in crate::commands) const fn names_a_port(&self) -> bool {
        self.port.is_some()
    }

    /// Those of the Service's ports that are meant.
    fn chosen(
        &self,
        service: &ObjectName,
        mut ports: Vec<PortHere>,
        report: Option<&Report>,
    ) -> anyhow::Result<Vec<PortHere>> {
        let all: Vec<String> = ports.iter().map(|port| port.id.to_string()).collect();
        ports.retain(|port| self.selects(port));
        if ports.is_empty() {
            let told = problems_of_services(report).find(|(of, _)| *of == service);
            let told = told.map(|(_, problem)| format!("; {problem}")).unwrap_or_default();
            bail!("{service} has no port `{}`, only {}{told}", self.wanted_port(), all.join(", "));
        }
        Ok(ports)
    }

    fn wanted_port(&self) -> String {
        let protocol = self.protocol.map(|protocol| format!("/{protocol}")).unwrap_or_default();
        format!("{}{protocol}", self.port.as_deref().unwrap_or_default())
    }

    /// Whether it is this port that is meant.
    fn selects(&self, port: &PortHere) -> bool {
        let is_number = |wanted: &str| {
            wanted
                .parse()
                .is_ok_and(|wanted| port.frontends.iter().any(|(key, _)| key.port == Port::new(wanted)))
        };
        let is_port = self.port.as_deref().is_none_or(|wanted| port.id.port == wanted || is_number(wanted));
        is_port && self.protocol.is_none_or(|protocol| port.id.protocol == protocol)
    }

    fn service(
        &self,
        installed: &BTreeMap<ObjectName, Vec<PortHere>>,
        home: Option<&str>,
        report: Option<&Report>,
    ) -> anyhow::Result<ObjectName> {
        let found: Vec<&ObjectName> = installed.keys().filter(|service| self.is(service)).collect();
        let namespace = self.namespace.as_deref().or(home);
        let is_it = |service: &ObjectName| {
            self.is(service) && namespace.is_none_or(|home| service.namespace() == home)
        };
        if !found.iter().any(|service| is_it(service))
            && let Some(problem) =
                problems_of_services(report).find(|(service, _)| is_it(service)).map(|(_, problem)| problem)
        {
            bail!("the Service is not installed: {problem}");
        }
        let at_home = found.iter().find(|service| home.is_some_and(|home| service.namespace() == home));
        match (found.as_slice(), at_home) {
            (_, Some(service)) => return Ok((*service).clone()),
            ([service], None) if home.is_none() || self.namespace.is_some() => return Ok((*service).clone()),
            ([], None) => {}
            ([service], None) => bail!(
                "no Service `{self}` is installed in `{}`, the client's namespace; in `{}` there is one, which that client's \
                 programs have to call `{}.{}`: name it as {service}",
                home.unwrap_or_default(),
                service.namespace(),
                service.name(),
                service.namespace(),
            ),
            (several, None) => {
                let names: Vec<String> = several.iter().map(ToString::to_string).collect();
                bail!("`{self}` is the name of several Services: name one of {}", names.join(", "));
            }
        }
        let near = near(&self.to_string(), installed.keys().map(ToString::to_string));
        bail!(
            "no Service `{self}` is installed{near} (`sidestep status` shows all; a headless Service and an ExternalName \
             have no address of their own)"
        )
    }
}

impl fmt::Display for ServiceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.namespace {
            Some(namespace) => write!(f, "{namespace}/{}", self.name),
            None => f.write_str(&self.name),
        }
    }
}

/// The Services that have problems, with these.
pub(in crate::commands) fn problems_of_services(
    report: Option<&Report>,
) -> impl Iterator<Item = (&ObjectName, &Problem)> {
    let all = report.into_iter().flat_map(|report| &report.problems);
    all.filter_map(|problem| match &problem.subject {
        Subject::Object(key) if key.kind == Kind::Service => Some((&key.name, problem)),
        _ => None,
    })
}

/// The address of a NodePort at one of the node's addresses; all are alike.
fn on_this_node(tables: &Tables, key: &FrontendKey) -> anyhow::Result<FrontendKey> {
    let nodes = tables.addresses.iter().filter_map(Result::ok).filter(|(address, entry)| {
        let ip = IpAddr::from(*address);
        let is_address = !ip.is_loopback() && !ip.is_unspecified() && address.is_v4() == key.address.is_v4();
        is_address && entry.kind.has(AddressBits::NODE)
    });
    let Some(address) = nodes.map(|(address, _)| IpAddr::from(address)).min() else {
        bail!("{key} is a NodePort, and no address of this node is known that serves it (`sidestep status`)");
    };
    Ok(FrontendKey::new(Address::from(address), key.port, key.protocol))
}

/// A port of an installed Service, in one family.
#[derive(Clone, Debug)]
pub(in crate::commands) struct PortHere {
    /// Index into SERVICES.
    pub(in crate::commands) index: u32,
    id: ServicePortId,
    pub(in crate::commands) frontends: Vec<(FrontendKey, FrontendKind)>,
}

/// The ports of all installed Services.
fn installed(tables: &Tables) -> anyhow::Result<BTreeMap<ObjectName, Vec<PortHere>>> {
    let mut frontends: BTreeMap<u32, Vec<(FrontendKey, FrontendKind)>> = BTreeMap::new();
    for entry in &tables.frontends {
        let (key, value) = entry?;
        if let Some(kind) = FrontendKind::from_number(value.kind) {
            frontends.entry(value.service).or_default().push((key, kind));
        }
    }
    let mut services: BTreeMap<ObjectName, Vec<PortHere>> = BTreeMap::new();
    for entry in &tables.names {
        let (index, name) = entry?;
        let Some(id) = identity(&name) else { continue };
        let mut frontends = frontends.remove(&index).unwrap_or_default();
        frontends.sort_unstable_by_key(|(key, kind)| (*kind, *key));
        services.entry(id.service.clone()).or_default().push(PortHere { index, id, frontends });
    }
    for ports in services.values_mut() {
        ports.sort_unstable_by(|a, b| a.id.cmp(&b.id));
    }
    Ok(services)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn service(text: &str) -> ServiceName {
        match text.parse() {
            Ok(Destination::Service(service)) => service,
            other => panic!("{text}: {other:?}"),
        }
    }

    fn name(
        namespace: Option<&str>,
        name: &str,
        port: Option<&str>,
        protocol: Option<Protocol>,
    ) -> ServiceName {
        let owned = |text: Option<&str>| text.map(str::to_owned);
        ServiceName { namespace: owned(namespace), name: name.into(), port: owned(port), protocol }
    }

    #[test]
    fn a_service_is_named_as_in_kubectl_or_as_in_dns() {
        let udp = Some(Protocol::Udp);
        assert_eq!(service("web"), name(None, "web", None, None));
        assert_eq!(service("shop/web"), name(Some("shop"), "web", None, None));
        assert_eq!(service("shop/web:http"), name(Some("shop"), "web", Some("http"), None));
        assert_eq!(
            service("kube-system/kube-dns:53/udp"),
            name(Some("kube-system"), "kube-dns", Some("53"), udp)
        );
        assert_eq!(service("web.shop:80"), name(Some("shop"), "web", Some("80"), None));
        assert_eq!(service("web.shop.svc.cluster.local:80/UDP"), name(Some("shop"), "web", Some("80"), udp));
    }

    #[test]
    fn an_address_is_an_address() {
        for (text, protocol) in [("10.96.0.10:53", Protocol::Tcp), ("10.96.0.10:53/udp", Protocol::Udp)] {
            let address = "10.96.0.10:53".parse().expect("an address");
            assert_eq!(text.parse(), Ok(Destination::Address { address, protocol }));
        }
        assert!(matches!("[fd00::1]:80".parse(), Ok(Destination::Address { .. })));
        for text in [
            "10.96.0.10",
            "fd00::1",
            "[fd00::1]",
            "",
            "a/b/c",
            "10.96.0.10:99999",
            "10.96.0.300:80",
            "10.96.0.10:dns",
            "web:",
            "web:80/http",
            "Web",
            ":80",
        ] {
            text.parse::<Destination>().expect_err(text);
        }
    }
}
