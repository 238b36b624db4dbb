//! `sidestep explain`: the decision for one client and address, with every lookup that led to it.
//!
//! The same `select` as in the kernel runs here, on the same pinned tables, through a recorder.

use std::{
    cell::RefCell,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    process::ExitCode,
    str::FromStr,
};

use anyhow::{Context as _, bail};
use clap::Args;
use proxy_common::{
    Address, AddressBits, Affinity, AffinityKey, ClientAddresses, Decision, Endpoint, EndpointState,
    Frontend, FrontendKey, FrontendKind, Policy, Port, Protocol, Scope, Span, Tables as _, select,
    service::EndpointSet,
};
use serde::Serialize;

use super::{Output, Place, inventory};
use crate::dataplane::{Tables, netns_cookie, netns_cookie_of};

/// Arguments of `explain`.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    place: Place,
    /// Who connects: `node`, `outside`, `pid:N`, `netns:PATH`, or a pod's address
    client: ClientName,
    /// What it connects to, such as `10.96.0.10:53/udp` or `[fd00::1]:80` (TCP)
    destination: Destination,
    /// How to answer
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
}

/// A client as a person names it.
#[derive(Clone, Debug)]
enum ClientName {
    Node,
    Outside,
    NetworkNamespace(PathBuf),
    Pod(IpAddr),
}

impl FromStr for ClientName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once(':') {
            _ if text == "node" => Ok(Self::Node),
            _ if text == "outside" => Ok(Self::Outside),
            Some(("pid", pid)) => match pid.parse::<u32>() {
                Ok(pid) => Ok(Self::NetworkNamespace(format!("/proc/{pid}/ns/net").into())),
                Err(error) => Err(format!("{pid:?} is no process id: {error}")),
            },
            Some(("netns", path)) if path.starts_with('/') => Ok(Self::NetworkNamespace(path.into())),
            Some(("netns", name)) => Ok(Self::NetworkNamespace(PathBuf::from("/run/netns").join(name))),
            _ => text.parse().map(Self::Pod).map_err(|_| {
                format!("{text:?} is none of: node, outside, pid:N, netns:PATH, or an IP address")
            }),
        }
    }
}

/// Address, port and protocol.
#[derive(Clone, Copy, Debug)]
struct Destination {
    address: SocketAddr,
    protocol: Protocol,
}

impl FromStr for Destination {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (address, protocol) = text.rsplit_once('/').unwrap_or((text, "tcp"));
        let protocol = match protocol.to_ascii_lowercase().as_str() {
            "tcp" => Protocol::Tcp,
            "udp" => Protocol::Udp,
            "sctp" => Protocol::Sctp,
            other => return Err(format!("unknown protocol {other:?}: tcp, udp or sctp")),
        };
        let address = address
            .parse()
            .map_err(|_| format!("{address:?} is not address:port; write IPv6 as [fd00::1]:80"))?;
        Ok(Self { address, protocol })
    }
}

/// The answer.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Explanation {
    destination: String,
    lookups: Vec<String>,
    service: Option<String>,
    candidates: Vec<String>,
    decision: &'static str,
    reason: Option<&'static str>,
    endpoint: Option<String>,
    because: String,
}

pub(super) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let tables = Tables::open(&arguments.place.pin_dir)?;
    let client = Client::of(&arguments.client)?;
    let Destination { address, protocol } = arguments.destination;
    let key = FrontendKey::new(Address::from(address.ip()), Port::new(address.port()), protocol as u8);
    let mut explanation = explain(&tables, &key, &client);
    if protocol == Protocol::Sctp && explanation.decision != "not-a-service" {
        explanation.because += " (so the tables say; but no hook sees SCTP sockets, which are left alone)";
    }
    match arguments.output {
        Output::Json => println!("{}", serde_json::to_string_pretty(&explanation)?),
        Output::Table => print(&explanation),
    }
    Ok(ExitCode::SUCCESS)
}

fn explain(tables: &Tables, key: &FrontendKey, client: &Client) -> Explanation {
    let unknown_client = client.cookie == 0 && client.scope == Scope::Inside;
    let recorder = Recorder { tables, unknown_client, steps: RefCell::default() };
    let decision = select(&recorder, key, client, monotonic_nanoseconds, || 0);
    let (service, name, reason, endpoint, because) = match decision {
        Decision::NotService => {
            (None, "not-a-service", None, None, "left alone: nothing of Sidestep's".to_owned())
        }
        Decision::Refuse { service, reason } => {
            (service, "refuse", Some(reason.name()), None, format!("ECONNREFUSED: {}", reason.explanation()))
        }
        Decision::Forward(forward) => {
            let text = if forward.remembered {
                "the client's last endpoint (ClientIP affinity), which is still usable".to_owned()
            } else {
                "one of the candidates, each equally likely".to_owned()
            };
            let endpoint = forward.remembered.then(|| socket(&forward.endpoint));
            (Some(forward.endpoint.service), "forward", None, endpoint, text)
        }
    };
    let candidates = recorder.candidates();
    Explanation {
        destination: key.to_string(),
        lookups: recorder.steps.into_inner().lines,
        service: service.map(|index| inventory::name_of(tables, index)),
        candidates,
        decision: name,
        reason,
        endpoint,
        because,
    }
}

fn print(explanation: &Explanation) {
    println!("{}", explanation.destination);
    for lookup in &explanation.lookups {
        println!("  {lookup}");
    }
    if let Some(service) = &explanation.service {
        println!("service     {service}");
    }
    if !explanation.candidates.is_empty() {
        println!("candidates  {}", explanation.candidates.join("\n            "));
    }
    println!("decision    {}: {}", explanation.reason.unwrap_or(explanation.decision), explanation.because);
    if let Some(endpoint) = &explanation.endpoint {
        println!("endpoint    {endpoint}");
    }
}

/// The client, as far as it is known.
struct Client {
    cookie: u64,
    is_node: bool,
    scope: Scope,
    /// Its address, where that is how it was named.
    address: Option<Address>,
}

impl Client {
    fn of(name: &ClientName) -> anyhow::Result<Self> {
        let own = netns_cookie()?;
        let in_namespace = |cookie, is_node| Self { cookie, is_node, scope: Scope::Inside, address: None };
        Ok(match name {
            ClientName::Node => in_namespace(own, true),
            ClientName::Outside => Self { scope: Scope::Outside, ..in_namespace(0, false) },
            ClientName::NetworkNamespace(path) => {
                let cookie = netns_cookie_of(path).with_context(|| format!("entering {}", path.display()))?;
                in_namespace(cookie, cookie == own)
            }
            ClientName::Pod(address) if address.is_loopback() => {
                bail!("{address} is everybody's own: name the client as `node` or pid:N")
            }
            ClientName::Pod(address) => {
                Self { address: Some(Address::from(*address)), ..in_namespace(0, false) }
            }
        })
    }
}

impl proxy_common::Client for Client {
    fn identity(&self) -> Address {
        let [low, high] = bytemuck::cast::<u64, [u32; 2]>(self.cookie);
        Address::from_words([low, high, 0, 0])
    }

    fn is_node(&self) -> bool {
        self.is_node
    }

    fn scope(&self) -> Scope {
        self.scope
    }

    fn source(&self, tables: &impl proxy_common::Tables, destination: &Address) -> Option<Address> {
        match self.address {
            Some(address) => Some(address),
            None => tables.client(self.cookie)?.for_destination(destination),
        }
    }
}

/// Nanoseconds of the clock that the kernel programs use (CLOCK_MONOTONIC).
fn monotonic_nanoseconds() -> u64 {
    nix::time::clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC)
        .map_or(0, |time| u64::try_from(std::time::Duration::from(time).as_nanos()).unwrap_or(u64::MAX))
}

/// The tables, with a note of every lookup.
struct Recorder<'a> {
    tables: &'a Tables,
    /// Whether the client is named by an address: affinity at sockets is by network namespace (ST-9).
    unknown_client: bool,
    steps: RefCell<Steps>,
}

#[derive(Default)]
struct Steps {
    lines: Vec<String>,
    span: Option<Span>,
}

impl Recorder<'_> {
    fn note(&self, table: &str, key: impl std::fmt::Display, value: impl std::fmt::Display) {
        self.steps.borrow_mut().lines.push(format!("{table:<14} {key} -> {value}"));
    }

    fn candidates(&self) -> Vec<String> {
        let span = self.steps.borrow().span.unwrap_or(Span { base: 0, count: 0 });
        (span.base..span.base.saturating_add(span.count))
            .filter_map(|slot| self.tables.endpoint(slot))
            .map(|endpoint| socket(&endpoint))
            .collect()
    }
}

fn socket(endpoint: &Endpoint) -> String {
    SocketAddr::new(endpoint.address.into(), endpoint.port.get()).to_string()
}

impl proxy_common::Tables for Recorder<'_> {
    fn frontend(&self, key: &FrontendKey) -> Option<Frontend> {
        let found = self.tables.frontend(key);
        match found {
            Some(Frontend { service, kind, .. }) => {
                let kind = FrontendKind::from_number(kind).map_or("?", FrontendKind::name);
                self.note("FRONTENDS", key, format!("{kind} of service index {service}"));
            }
            None => self.note("FRONTENDS", key, "nothing"),
        }
        found
    }

    fn address(&self, address: &Address) -> AddressBits {
        let bits = self.tables.address(address);
        let names: Vec<&str> = [
            (AddressBits::CLUSTER_IP, "a ClusterIP"),
            (AddressBits::VIP, "a LoadBalancer or external IP"),
            (AddressBits::NODE, "this node's"),
            (AddressBits::SILENT_LOOPBACK, "no NodePorts at loopback"),
        ]
        .into_iter()
        .filter(|(bit, _)| bits.has(*bit))
        .map(|(_, name)| name)
        .collect();
        let text = if names.is_empty() { "nothing".to_owned() } else { names.join(", ") };
        self.note("ADDRESSES", address, text);
        bits
    }

    fn span(&self, service: u32, set: EndpointSet) -> Option<Span> {
        let span = self.tables.span(service, set);
        self.steps.borrow_mut().span = span;
        let text = match span {
            Some(Span { count: 0, base }) => format!("refuse: {}", proxy_common::Reason::from_number(base)),
            Some(Span { base, count }) => format!("slots {base}..{}", base.saturating_add(count)),
            None => "no such record".to_owned(),
        };
        self.note("SERVICES", format!("{service} {set:?} set"), text);
        span
    }

    fn policy(&self, service: u32) -> Option<Policy> {
        let policy = self.tables.policy(service);
        if let Some(Policy { affinity_seconds, source_set, generation: _ }) = policy {
            if affinity_seconds > 0 {
                let text = format!("ClientIP, {affinity_seconds} s");
                self.note("SERVICES", format!("{service} affinity"), text);
            }
            if source_set > 0 {
                let text = format!("LoadBalancer IPs for set {source_set} only");
                self.note("SERVICES", format!("{service} sources"), text);
            }
        }
        policy
    }

    fn endpoint(&self, slot: u32) -> Option<Endpoint> {
        self.tables.endpoint(slot)
    }

    fn endpoint_state(&self, id: u32) -> Option<EndpointState> {
        let state = self.tables.endpoint_state(id);
        let text = state
            .map_or("no such id".to_owned(), |state| format!("slot {}, bits {:#x}", state.slot, state.bits));
        self.note("ENDPOINT_STATE", id, text);
        state
    }

    fn affinity(&self, key: &AffinityKey) -> Option<Affinity> {
        let affinity = self.tables.affinity(key);
        if self.unknown_client {
            self.note(
                "AFFINITY",
                "client",
                "not known for an address: name the client as pid:N or netns:PATH",
            );
            return affinity;
        }
        let text = affinity
            .map_or("no earlier connection".to_owned(), |found| format!("endpoint id {}", found.endpoint));
        self.note("AFFINITY", "client", text);
        affinity
    }

    fn remember(&self, _: &AffinityKey, _: &Affinity) {}

    fn refresh(&self, _: &AffinityKey, _: u64) {}

    fn admits(&self, service: u32, set: u16, source: &Address) -> bool {
        let admits = self.tables.admits(service, set, source);
        let text = if admits { "in a range" } else { "in no range" };
        self.note("SOURCE_RANGES", format!("{service} set {set} {source}"), text);
        admits
    }

    fn client(&self, cookie: u64) -> Option<ClientAddresses> {
        let found = self.tables.client(cookie);
        let text = found.map_or("not known".to_owned(), |addresses| addresses.to_string());
        self.note("CLIENTS", format!("network namespace {cookie}"), text);
        found
    }
}
