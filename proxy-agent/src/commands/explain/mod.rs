//! `sidestep explain`: the decision for one client and address, with every lookup that led to it.
//!
//! It runs the kernel programs' own `select` on the pinned maps, through a recorder.
//!
//! | file | concept |
//! |---|---|
//! | `client` | the client |
//! | `recorder` | the tables, recording every lookup |

mod client;
mod recorder;

use std::{net::SocketAddr, process::ExitCode, str::FromStr};

use clap::Args;
use proxy_common::{Address, Decision, Endpoint, FrontendKey, Port, Protocol, Reason, Scope, select};
use serde::Serialize;

use self::{
    client::{Client, ClientName},
    recorder::Recorder,
};
use super::{Output, Paths, inventory};
use crate::{agent::Presence, dataplane::Tables};

/// Arguments of `explain`.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    paths: Paths,
    /// The client: node, outside:ADDRESS, outside, pid:N, netns:PATH, or a pod's address
    ///
    /// `node` is a process in the node's network namespace, `outside:ADDRESS` a client whose packets reach the node at
    /// an uplink. `pid:N` and `netns:PATH` (or `netns:NAME`, below /run/netns) name a pod's network namespace, by which
    /// ClientIP affinity knows east-west clients; for a pod's address alone the affinity stays unknown.
    client: ClientName,
    /// The destination, such as `10.96.0.10:53/udp` or `[fd00::1]:80`
    ///
    /// Address, port and protocol (tcp, udp or sctp) as the client names them: a ClusterIP, a LoadBalancer or external
    /// IP, or a node's address with a NodePort. Without a protocol it is TCP.
    destination: Destination,
    /// Output format
    ///
    /// The table is for people and may change between versions; programs read the JSON.
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
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
    /// Where this client's traffic to Services is translated.
    path: String,
    lookups: Vec<String>,
    service: Option<String>,
    candidates: Vec<String>,
    /// Candidates that see an address of the node instead of the client's.
    masqueraded: Vec<String>,
    decision: &'static str,
    reason: Option<&'static str>,
    /// The rows of docs/kube-proxy-parity.md that require the refusal.
    rows: &'static [&'static str],
    endpoint: Option<String>,
    because: String,
}

pub(super) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let tables = Tables::open(&arguments.paths.pin_dir)?;
    let client = Client::of(&arguments.client)?;
    let Destination { address, protocol } = arguments.destination;
    let key = FrontendKey::new(Address::from(address.ip()), Port::new(address.port()), protocol as u8);
    let host_only = Presence::of(&arguments.paths.run_dir).report.is_some_and(|report| report.host_only);
    let path = client.path(&arguments.paths.pin_dir, host_only)?;
    let mut explanation = explain(&tables, &key, &client, path.to_string());
    if protocol == Protocol::Sctp && explanation.decision != "not-a-service" {
        explanation.because += " (according to the maps; but no program serves SCTP, so it is left alone)";
    }
    match arguments.output {
        Output::Json => println!("{}", serde_json::to_string_pretty(&explanation)?),
        Output::Table => print(&explanation),
    }
    Ok(ExitCode::SUCCESS)
}

fn explain(tables: &Tables, key: &FrontendKey, client: &Client, path: String) -> Explanation {
    let recorder = Recorder::new(tables, client.unknown());
    let decision = select(&recorder, key, client, monotonic_nanoseconds, || 0);
    let (service, name, reason, endpoint, because) = match decision {
        Decision::NotService => {
            (None, "not-a-service", None, None, "left alone: not the address of a Service".to_owned())
        }
        Decision::Refuse { service, reason } => {
            let because = format!("{}: {}", refusal(client.scope, reason), why(client, reason));
            (service, "refuse", Some(reason), None, because)
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
    let is_masqueraded = |endpoint: &&Endpoint| client.scope == Scope::Outside && !endpoint.is_local();
    let masqueraded = candidates.iter().filter(is_masqueraded).map(socket).collect();
    Explanation {
        destination: key.to_string(),
        path,
        lookups: recorder.lines(),
        service: service.map(|index| inventory::name_of(tables, index)),
        candidates: candidates.iter().map(socket).collect(),
        masqueraded,
        decision: name,
        reason: reason.map(Reason::name),
        rows: reason.map_or(&[], Reason::rows),
        endpoint,
        because,
    }
}

/// What a refused client sees.
fn refusal(scope: Scope, reason: Reason) -> &'static str {
    match (scope, reason) {
        (Scope::Inside, _) => "ECONNREFUSED",
        (Scope::Outside, reason) if reason.is_answered() => "a reset, or ICMP port unreachable",
        (Scope::Outside, _) => "no answer",
    }
}

/// The reason, as far as it is known for this client.
fn why(client: &Client, reason: Reason) -> &'static str {
    match client.unknown() {
        // The programs always know the address.
        Some(unknown) if client.scope == Scope::Outside && reason == Reason::ClientUnknown => unknown,
        _ => reason.explanation(),
    }
}

fn print(explanation: &Explanation) {
    println!("{}", explanation.destination);
    for lookup in &explanation.lookups {
        println!("  {lookup}");
    }
    if explanation.service.is_some() {
        println!("path        {}", explanation.path);
    }
    if let Some(service) = &explanation.service {
        println!("service     {service}");
    }
    if !explanation.candidates.is_empty() {
        let line = |candidate: &String| {
            let masqueraded = explanation.masqueraded.contains(candidate);
            format!("{candidate}{}", if masqueraded { " (on another node: masqueraded)" } else { "" })
        };
        let lines: Vec<String> = explanation.candidates.iter().map(line).collect();
        println!("candidates  {}", lines.join("\n            "));
    }
    println!("decision    {}: {}", explanation.reason.unwrap_or(explanation.decision), explanation.because);
    if !explanation.rows.is_empty() {
        println!("rows        {} (docs/kube-proxy-parity.md)", explanation.rows.join(", "));
    }
    if let Some(endpoint) = &explanation.endpoint {
        println!("endpoint    {endpoint}");
    }
}

/// Nanoseconds of the clock that the kernel programs use (CLOCK_MONOTONIC).
fn monotonic_nanoseconds() -> u64 {
    nix::time::clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC)
        .map_or(0, |time| u64::try_from(std::time::Duration::from(time).as_nanos()).unwrap_or(u64::MAX))
}

fn socket(endpoint: &Endpoint) -> String {
    SocketAddr::new(endpoint.address.into(), endpoint.port.get()).to_string()
}
