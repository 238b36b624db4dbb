//! `sidestep explain`: the decision for one client and Service or address, with every lookup that led to it.
//!
//! It runs the kernel programs' own `select` on the pinned maps, through a recorder.
//!
//! | file | concept |
//! |---|---|
//! | `refused` | whom the address refused before |
//! | `recorder` | the tables, recording every lookup |
//! | `explanation` | the answer, and how people read it |
//! | `probe` | real connections |

mod explanation;
mod probe;
mod recorder;
mod refused;

use std::{collections::BTreeSet, net::SocketAddr, path::Path, process::ExitCode};

use clap::Args;
use proxy_common::{
    Address, Decision, Endpoint, FrontendKey, PassedBy, Port, Protocol, Reason, Scope, Tables as _, select,
};

use self::{explanation::Explanation, probe::Probe, recorder::Recorder};
use super::{
    Output, Paths, doctor, inventory,
    names::{Client, ClientName, Destination, PathTaken, Pods, problems_of_services},
};
use crate::{
    agent::{Presence, Report},
    dataplane::{Tables, identity, monotonic_nanoseconds},
    model::ObjectName,
    plan::ServicePortId,
};

/// Shown at the end of the help.
const EXAMPLES: &str = "\
Examples:
  sidestep explain shop/cart-0 shop/checkout --probe    a pod does not reach a Service
  sidestep explain node kubernetes:443                  a process of the node, or a Pod with hostNetwork
  sidestep explain outside:192.0.2.100 shop/front       a client outside of the cluster: with firewall rules in its way
  sidestep explain pid:4711 10.96.0.10:53/udp           by addresses

The exit status is 0 if there is an explanation, whatever it says, and 1 if a name or the tables were not found.";

/// Arguments of `explain`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Arguments {
    #[command(flatten)]
    paths: Paths,
    /// The client: a pod of this node as `[NAMESPACE/]POD`, node, outside:ADDRESS, outside, pid:N, netns:PATH, or a
    /// pod's address
    ///
    /// A pod is found by the names that the agent knows from the API server, else by the host names of this node's network
    /// namespaces; one that is called `node` or `outside` needs its namespace. `node` is a process in the node's network
    /// namespace, `outside:ADDRESS` a client whose packets reach the node at an uplink. `pid:N` and `netns:PATH` (or
    /// `netns:NAME`, below /run/netns) name a pod's network namespace, by which ClientIP affinity knows east-west clients;
    /// for a pod's address alone the affinity stays unknown.
    client: ClientName,
    /// The destination: a Service as `[NAMESPACE/]SERVICE[:PORT]`, or an address such as `10.96.0.10:53/udp`
    ///
    /// A Service's port is its name or its number; without one all its ports are explained, and without a namespace that
    /// of the pod counts first, as in DNS. `web.shop.svc:80` is understood, too. An address is a ClusterIP, a LoadBalancer
    /// or external IP, or a node's with a NodePort; IPv6 as `[fd00::1]:80`. The protocol is tcp (the default for an
    /// address), udp or sctp.
    destination: Destination,
    /// Connect to the Service and to each of its endpoints from the client's network namespace, and time it
    ///
    /// Real TCP connections of this process, to at most 63 endpoints, which are closed at once. They count as the
    /// client's: in the Service's counters, and for ClientIP affinity. What is bound to the pod's cgroup they do not meet.
    /// Of up to eight endpoints that fail and are pods of this node it says whether the pod connects to itself, and where it
    /// listens. Not for UDP, for clients outside, nor where a client's network namespace is not known.
    #[arg(long)]
    probe: bool,
    /// Output format
    ///
    /// The table is for people and may change between versions; programs read the JSON: an object for an address, a list
    /// of them for a Service's name.
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
}

pub(super) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let Paths { pin_dir, run_dir, .. } = &arguments.paths;
    let tables = Tables::open(pin_dir)?;
    let report = Presence::of(run_dir).report;
    let client = Client::of(&arguments.client, report.as_ref())?;
    let by_name = matches!(arguments.destination, Destination::Service(_));
    let keys = match &arguments.destination {
        Destination::Address { address, protocol } => {
            vec![FrontendKey::new(Address::from(address.ip()), Port::new(address.port()), *protocol as u8)]
        }
        Destination::Service(service) => service.frontends(&tables, &client, report.as_ref())?,
    };
    let path = client.path(pin_dir, report.as_ref().is_some_and(|report| report.host_only))?;
    let pods = Pods::of(report.as_ref());
    let mut explanations: Vec<Explanation> =
        keys.iter().map(|key| explain(&tables, key, &client, path, &pods)).collect();
    let endpoints = inventory::endpoints(&tables);
    for (key, explanation) in keys.iter().zip(&mut explanations) {
        if let Some(index) = explanation.index {
            let all = endpoints.get(&index).into_iter().flatten();
            let unused = all.filter(|endpoint| endpoint.usable.is_empty());
            explanation.unused = unused.filter_map(|endpoint| endpoint.address.parse().ok()).collect();
            explanation.problems = problems(&tables, index, report.as_ref());
        } else if pods.name(key.address.into()).is_none() {
            explanation.because += &not_installed(report.as_ref());
        }
    }
    if explanations.iter().any(|explanation| explanation.service.is_some()) {
        let beside = beside(arguments, report.as_ref(), path, &explanations);
        for explanation in explanations.iter_mut().filter(|explanation| explanation.service.is_some()) {
            explanation.beside.clone_from(&beside);
        }
    }
    let mut record = refused::Record::read(pin_dir, &tables, &client, report.as_ref())?;
    for (key, explanation) in keys.iter().zip(&mut explanations) {
        let refused::Recorded { of_client, others } = record.of(key);
        explanation.refused_client = of_client;
        explanation.refused_others = others;
    }
    if arguments.probe {
        let cgroup_root = report.as_ref().map(|report| report.cgroup_root.as_path());
        for (key, explanation) in keys.iter().zip(&mut explanations) {
            match probe(key, (&client, path), cgroup_root, explanation, &pods) {
                Ok(probes) => explanation.probes = probes,
                Err(why) => explanation.not_probed = Some(why),
            }
        }
    }
    match arguments.output {
        Output::Json if by_name => println!("{}", serde_json::to_string_pretty(&explanations)?),
        Output::Json => {
            for explanation in &explanations {
                println!("{}", serde_json::to_string_pretty(explanation)?);
            }
        }
        Output::Table => {
            for (number, explanation) in explanations.iter().enumerate() {
                if number > 0 {
                    println!();
                }
                print!("{}", explanation.in_words(&pods));
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn explain(
    tables: &Tables,
    key: &FrontendKey,
    client: &Client,
    path: PathTaken,
    pods: &Pods<'_>,
) -> Explanation {
    let recorder = Recorder::new(tables, client.unknown());
    let decision = select(&recorder, key, client, monotonic_nanoseconds, || 0);
    let (service, name, reason, endpoint, mut because) = match decision {
        Decision::NotService => {
            let address = key.address.into();
            let what = match pods.name(address) {
                Some(pod) => format!("it is the Pod {pod}'s, not the address of a Service"),
                None if recorder.is_of_a_service(&key.address) => {
                    "no Service has this port at this address".to_owned()
                }
                None => "not the address of a Service".to_owned(),
            };
            (None, "not-a-service", None, None, format!("left alone: {what}"))
        }
        Decision::Refuse { service, reason } => {
            let there: Vec<String> = match reason {
                Reason::UnknownPort => inventory::ports_at(tables, &key.address).into_iter().collect(),
                _ => Vec::new(),
            };
            let ports =
                if there.is_empty() { String::new() } else { format!("; there are {}", there.join(", ")) };
            let because = format!("{}: {}{ports}", refusal(client.scope, reason), why(client, reason));
            (service, "refuse", Some(reason), None, because)
        }
        Decision::Forward(forward) => {
            let text = if forward.remembered {
                "the client's last endpoint (ClientIP affinity), which is still usable".to_owned()
            } else if recorder.candidates().len() == 1 {
                "the only candidate".to_owned()
            } else {
                "one of the candidates, each equally likely".to_owned()
            };
            let endpoint = forward.remembered.then(|| socket(&forward.endpoint));
            (Some(forward.endpoint.service), "forward", None, endpoint, text)
        }
    };
    if key.protocol == Protocol::Sctp as u8 && service.is_some() {
        because += " (according to the maps; but no program serves SCTP, so it is left alone)";
    }
    if reason == Some(Reason::SourceNotInRanges)
        && let Some(index) = service
    {
        let ranges = inventory::source_ranges_of(tables, index).join(", ");
        because = match &*ranges {
            "" => format!("{because}, none of which could be used"),
            ranges => format!("{because}, of which these are installed for its family: {ranges}"),
        };
    }
    let candidates = recorder.candidates();
    let is_masqueraded = |endpoint: &&Endpoint| client.scope == Scope::Outside && !endpoint.is_local();
    let masqueraded = candidates.iter().filter(is_masqueraded).map(socket).collect();
    Explanation {
        client: client.told.clone(),
        destination: key.to_string(),
        path: path.to_string(),
        lookups: recorder.lines(),
        service: service.map(|index| inventory::name_of(tables, index)),
        index: service,
        candidates: candidates.iter().map(socket).collect(),
        masqueraded,
        decision: name,
        reason: reason.map(Reason::name),
        rows: reason.map_or(&[], Reason::rows),
        endpoint,
        because,
        unused: Vec::new(),
        affinity: service
            .and_then(|index| tables.policy(index))
            .is_some_and(|policy| policy.affinity_seconds > 0),
        problems: Vec::new(),
        refused_client: Vec::new(),
        refused_others: BTreeSet::new(),
        refused_before: service.map(|index| inventory::refused(tables, index)).unwrap_or_default(),
        beside: Vec::new(),
        probes: Vec::new(),
        not_probed: None,
    }
}

/// What of the Service at `index` could not be used or installed.
fn problems(tables: &Tables, index: u32, report: Option<&Report>) -> Vec<String> {
    let name = tables.names.get(&index, 0).ok().and_then(|name| identity(&name));
    let Some(ServicePortId { service, .. }) = name else { return Vec::new() };
    let own = problems_of_services(report).filter(|(of, _)| **of == service);
    own.map(|(_, problem)| format!("{}: {}", problem.field, problem.message)).collect()
}

/// What others do to this client's traffic: a sentence each.
fn beside(
    arguments: &Arguments,
    report: Option<&Report>,
    path: PathTaken,
    explanations: &[Explanation],
) -> Vec<String> {
    let Some(beside) = super::beside(&arguments.paths, report) else { return Vec::new() };
    let mut told = beside.service_proxies();
    match path {
        PathTaken::Socket | PathTaken::Unknown => told.extend(beside.excluded().chain(beside.displaced())),
        PathTaken::HostOnly | PathTaken::PassedBy(_) => {}
        PathTaken::Uplink => {
            let candidates = explanations.iter().flat_map(|explanation| &explanation.candidates);
            let endpoints = candidates.map(SocketAddr::ip).collect();
            told.extend(doctor::north_south(&arguments.paths, endpoints));
        }
    }
    told
}

/// Connects to the frontend and to its candidates; an error says why that would tell nothing.
fn probe(
    key: &FrontendKey,
    (client, path): (&Client, PathTaken),
    cgroup_root: Option<&Path>,
    explanation: &Explanation,
    pods: &Pods<'_>,
) -> Result<Vec<Probe>, String> {
    let Some(place) = client.place.as_deref() else {
        return Err("the client's network namespace is not known: only what runs on this node can be probed"
            .to_owned());
    };
    if key.protocol != Protocol::Tcp as u8 {
        return Err("only TCP tells its sender whether anything arrived".to_owned());
    }
    if let Some(reason) = explanation.reason {
        return Err(format!("it is refused before any packet is sent ({reason})"));
    }
    if explanation.service.is_none() {
        return Err("it is not the address of a Service".to_owned());
    }
    match path {
        PathTaken::PassedBy(PassedBy::Redirects) => {
            return Err(
                "the pod's own rules redirect what it sends: its sidecar would answer for all endpoints"
                    .to_owned(),
            );
        }
        PathTaken::Socket if !cgroup_root.is_none_or(probe::is_below) => {
            return Err("this process is in a cgroup that the socket programs do not serve (--cgroup-root)"
                .to_owned());
        }
        _ => {}
    }
    let frontend = SocketAddr::new(key.address.into(), key.port.get());
    probe::probe(place, frontend, &explanation.candidates, pods).map_err(|error| error.to_string())
}

/// Whose address may be asked for, as the tables do not have them.
fn not_installed(report: Option<&Report>) -> String {
    let services: BTreeSet<&ObjectName> = problems_of_services(report).map(|(service, _)| service).collect();
    match services.first() {
        None => String::new(),
        Some(first) => format!(
            " (unless it is that of a Service with a problem, of which `sidestep status` lists {}, such as {first})",
            services.len()
        ),
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

fn socket(endpoint: &Endpoint) -> SocketAddr {
    SocketAddr::new(endpoint.address.into(), endpoint.port.get())
}
