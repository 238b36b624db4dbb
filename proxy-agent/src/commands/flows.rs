//! `sidestep flows`: the connection records of north-south traffic and of pods' packets, read from FLOWS.

use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddr},
    process::ExitCode,
    str::FromStr,
};

use clap::Args;
use comfy_table::{Table, presets};
use nix::net::if_::if_indextoname;
use serde::Serialize;

use super::{Output, Paths, inventory};
use crate::dataplane::{FlowState, ListedFlow, Tables, list_flows, pod_devices, uptime};

/// Arguments of `flows`.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    paths: Paths,
    /// Output format
    ///
    /// The table is for people and may change between versions; programs read the JSON.
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
    /// Show only flows with this address, such as `198.51.100.7` or `10.244.1.12:8080`
    ///
    /// A flow matches if its client, frontend, endpoint or masquerade address has this IP address and, where you give
    /// one, this port. Write IPv6 with a port as `[fd00::1]:8080`.
    address: Option<Filter>,
}

/// An address, with or without a port.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Filter {
    address: IpAddr,
    port: Option<u16>,
}

impl FromStr for Filter {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Ok(address) = text.parse() {
            return Ok(Self { address, port: None });
        }
        let socket: SocketAddr = text.parse().map_err(|_| {
            format!(
                "{text:?} is neither an IP address nor address:port; write IPv6 with a port as [fd00::1]:80"
            )
        })?;
        Ok(Self { address: socket.ip(), port: Some(socket.port()) })
    }
}

impl Filter {
    fn is_of(self, flow: &ListedFlow) -> bool {
        let ends = [Some(flow.client), Some(flow.frontend), Some(flow.endpoint), flow.source];
        let is_this =
            |end: SocketAddr| end.ip() == self.address && self.port.is_none_or(|port| port == end.port());
        ends.into_iter().flatten().any(is_this)
    }
}

/// A flow as the command prints it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Told {
    protocol: String,
    client: SocketAddr,
    frontend: SocketAddr,
    endpoint: SocketAddr,
    /// The address and port that the endpoint sees instead of the client's, where the flow is masqueraded.
    source: Option<SocketAddr>,
    /// `None` once the Service or the endpoint is gone: the flow goes on without it.
    service: Option<String>,
    /// The device that the client's packets arrive at; nothing if it is gone.
    device: Option<String>,
    /// Whether that leads to a pod: the client is inside.
    of_pod: bool,
    state: FlowState,
    confirmed: bool,
    /// Whether it is on the fast path.
    fast: bool,
    idle_seconds: u32,
}

impl Told {
    fn of(flow: ListedFlow, tables: &Tables, pods: &BTreeSet<u32>, now: u32) -> Self {
        let ListedFlow {
            protocol,
            client,
            frontend,
            endpoint,
            source,
            service,
            device,
            state,
            answered: _,
            fast,
            confirmed,
            began: _,
            used,
        } = flow;
        Self {
            protocol: protocol.map_or("?".to_owned(), |protocol| protocol.to_string()),
            client,
            frontend,
            endpoint,
            source,
            service: service.map(|index| inventory::name_of(tables, index)),
            device: if_indextoname(device).ok().map(|name| name.to_string_lossy().into_owned()),
            of_pod: pods.contains(&device),
            state,
            confirmed,
            fast,
            idle_seconds: now.saturating_sub(used),
        }
    }
}

pub(super) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let tables = Tables::open(&arguments.paths.pin_dir)?;
    let mut flows = list_flows(&tables);
    flows.retain(|flow| arguments.address.is_none_or(|filter| filter.is_of(flow)));
    flows.sort_by_key(|flow| (flow.client, flow.frontend));
    let now = uptime();
    let pods = pod_devices(&arguments.paths.pin_dir)?;
    let flows: Vec<Told> = flows.into_iter().map(|flow| Told::of(flow, &tables, &pods, now)).collect();
    match arguments.output {
        Output::Json => println!("{}", serde_json::to_string_pretty(&flows)?),
        Output::Table => print(&flows),
    }
    Ok(ExitCode::SUCCESS)
}

fn print(flows: &[Told]) {
    if flows.is_empty() {
        println!("no flows: nobody outside and no pod's packets have asked for a Service");
        return;
    }
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header([
        "",
        "CLIENT",
        "FROM",
        "FRONTEND",
        "ENDPOINT",
        "MASQUERADED AS",
        "SERVICE",
        "STATE",
        "IDLE",
    ]);
    for flow in flows {
        let Told {
            protocol,
            client,
            frontend,
            endpoint,
            source,
            service,
            device,
            of_pod,
            state,
            confirmed,
            fast,
            idle_seconds,
        } = flow;
        table.add_row([
            protocol.clone(),
            client.to_string(),
            format!("{} {}", if *of_pod { "pod" } else { "uplink" }, device.as_deref().unwrap_or("(gone)")),
            frontend.to_string(),
            endpoint.to_string(),
            source.map_or("-".to_owned(), |source| source.to_string()),
            service.clone().unwrap_or("(gone)".to_owned()),
            format!(
                "{}{}{}",
                state.name(),
                // Once it is over, nothing protects its record any more.
                if *confirmed || *state == FlowState::Closed { "" } else { ", not confirmed" },
                if *fast { ", fast path" } else { "" }
            ),
            format!("{idle_seconds}s"),
        ]);
    }
    println!("{table}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flows_are_found_by_any_of_their_addresses() {
        let at = |text: &str| text.parse().expect("an address and port");
        let flow = ListedFlow {
            protocol: None,
            client: at("198.51.100.7:5000"),
            frontend: at("192.0.2.1:30080"),
            endpoint: at("[fd00::1]:8080"),
            source: Some(at("192.0.2.1:49152")),
            service: None,
            device: 2,
            state: FlowState::Established,
            confirmed: true,
            answered: true,
            fast: false,
            began: 1,
            used: 1,
        };
        for (text, found) in [
            ("198.51.100.7", true),
            ("198.51.100.7:5000", true),
            ("198.51.100.7:30080", false),
            ("192.0.2.1:49152", true),
            ("192.0.2.1:30080", true),
            ("fd00::1", true),
            ("[fd00::1]:8080", true),
            ("192.0.2.2", false),
        ] {
            assert_eq!(text.parse::<Filter>().expect(text).is_of(&flow), found, "{text}");
        }
        "web".parse::<Filter>().expect_err("no address");
    }
}
