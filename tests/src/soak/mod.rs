//! The soak test: minutes of everything at once, in a lab of two nodes, while broken promises are counted.
//!
//! North-south clients reuse their source ports in order, floods of spoofed clients evict records from a small table,
//! endpoints come and go, and the agent is stopped, killed and started. Connection tracking is active on the node, so
//! that leftover entries show.
//!
//! | file | concept |
//! |---|---|
//! | `ledger` | counts of events and of broken promises: the result |
//! | `servers` | endpoints, which report the clients that they see, and detect a question that reached two of them |
//! | `tcp`, `udp` | clients |
//! | `flood` | spoofed clients |
//! | `changes` | changes of the Service and restarts of the agent |
//! | `traces` | what the lab's kernels saw and kept: unmasqueraded packets, conntrack entries |
//!
//! What never happens: a broken promise is missed because its client gave up, or a client counts as hanging because the
//! machine is slow ([`tcp::LIMIT`], [`udp::LIMIT`]).

mod changes;
mod flood;
mod ledger;
mod servers;
mod tcp;
mod traces;
mod udp;

use std::{
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, anyhow};

pub use self::ledger::Verdict;
use self::{changes::Changes, ledger::Ledger, servers::Server};
use crate::{
    Agent, TwoNodes, netfilter,
    place::Place,
    two_nodes::{Variant, node_ports, web},
};

/// Clients of each protocol and family.
const CLIENTS: u8 = 2;
/// The last byte of the first client's address.
const FIRST_CLIENT: u8 = 110;
/// Floods end this long before the end, so that conntrack forgets their half-open connections in time: endpoints
/// retransmit an unacknowledged SYN-ACK for about a minute, and conntrack keeps the entry for another one.
const WITHOUT_FLOODS: Duration = Duration::from_secs(20);
/// How long conntrack has to forget after the end: its longest timeout of a connection that is not established, which
/// is two minutes, with a margin.
const TO_FORGET: Duration = Duration::from_secs(125);
/// The interval of progress lines.
const PROGRESS: Duration = Duration::from_secs(5);

/// The parameters of a soak.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Settings {
    /// How long clients run.
    pub duration: Duration,
    /// The capacity of FLOWS (`--max-flows`).
    pub max_flows: u32,
}

/// Runs the soak, prints its progress, and returns the result.
pub fn run(settings: Settings, mut tell: impl FnMut(&str)) -> Result<Verdict> {
    let nodes = TwoNodes::new(Variant::DIRECT).context("cannot make the lab")?;
    tell(&format!("the lab is {}", nodes.lab().name()));
    netfilter::track(nodes.node())?;
    let clients = clients(nodes.outside())?;
    let ledger = Arc::new(Ledger::default());
    let servers: Vec<Server> = [("here-0", true), ("there-0", false), ("here-1", true), ("there-1", false)]
        .into_iter()
        .map(|(name, here)| {
            let pod = if here { nodes.pod_here(name) } else { nodes.pod_there(name) }?;
            Server::start(pod, !here, &clients, &ledger)
        })
        .collect::<Result<_>>()?;
    let pods: Vec<&Place> = servers.iter().map(Server::place).collect();
    traces::count_strays(nodes.other_node())?;
    nodes.publish_places("web", &web(), &pods)?;
    let agent = Agent::reading(nodes.lab()).arguments([
        format!("--max-flows={}", settings.max_flows),
        // The timeout of UDP records is short, or they alone would fill the table.
        "--conntrack-udp-timeout=5s".to_owned(),
        "--conntrack-udp-timeout-stream=5s".to_owned(),
    ]);
    let agent = agent.started(nodes.lab())?;

    let stop = Arc::new(AtomicBool::new(false));
    let mut threads = Threads { stop: Arc::clone(&stop), threads: Vec::new() };
    for (number, client) in (0..).zip(&clients) {
        let ways = node_ports().into_iter().filter(|way| way.tcp.is_ipv4() == client.is_ipv4());
        for way in ways {
            let (shared, stopped, client) = (Arc::clone(&ledger), Arc::clone(&stop), *client);
            threads.start("tcp", nodes.outside(), move || {
                tcp::run(client, way.tcp, number, &shared, &stopped);
                Ok(())
            })?;
            let (shared, stopped) = (Arc::clone(&ledger), Arc::clone(&stop));
            threads.start("udp", nodes.outside(), move || {
                udp::run(client, way.udp, number, &shared, &stopped)
            })?;
        }
    }
    let verdict = {
        let start = Instant::now();
        let mut changes = Changes::new(&nodes, pods.clone(), agent);
        let mut flood = flood::Flood::new(&nodes)?;
        let mut next = PROGRESS;
        while start.elapsed() < settings.duration {
            changes.step(&ledger)?;
            if start.elapsed() + WITHOUT_FLOODS < settings.duration {
                flood.step(&ledger)?;
            }
            if start.elapsed() >= next {
                next += PROGRESS;
                ledger.set_strays(traces::strays(nodes.other_node())?);
                tell(&ledger.line(start.elapsed()));
            }
        }
        threads.end()?;
        let over = Instant::now();
        ledger.set_strays(traces::strays(nodes.other_node())?);
        tell(&ledger.line(start.elapsed()));
        changes.settle()?;
        tell(&format!("clients have ended; waiting {} s for conntrack to forget them", TO_FORGET.as_secs()));
        let mut places = vec![nodes.node(), nodes.other_node(), nodes.outside()];
        places.extend(&pods);
        while over.elapsed() < TO_FORGET {
            thread::sleep(PROGRESS);
            let left: usize =
                places.iter().map(|place| traces::left(place).map_or(0, |left| left.len())).sum();
            tell(&format!("{:>4} s after the end: {left} entries", over.elapsed().as_secs()));
            if left == 0 {
                break;
            }
        }
        for place in places {
            ledger.remembered(place.name(), &traces::left(place)?);
        }
        ledger.verdict()
    };
    drop(servers);
    Ok(verdict)
}

/// Gives `outside` the clients' addresses of both families.
fn clients(outside: &Place) -> Result<Vec<IpAddr>> {
    let numbers = FIRST_CLIENT..FIRST_CLIENT + CLIENTS;
    let texts = numbers.flat_map(|number| [format!("192.0.2.{number}"), format!("2001:db8:192::{number}")]);
    let clients: Vec<IpAddr> = texts.map(|text| text.parse()).collect::<Result<_, _>>()?;
    let lines = clients.iter().map(|client| match client {
        IpAddr::V4(client) => format!("addr add {client}/24 dev uplink\n"),
        IpAddr::V6(client) => format!("addr add {client}/64 dev uplink nodad\n"),
    });
    outside.namespace().ip_batch(&lines.collect::<String>())?;
    // Allow a client to reuse a port in TIME-WAIT after a second.
    let file = "/proc/sys/net/ipv4/tcp_tw_reuse";
    outside.run(|| std::fs::write(file, "1")).context(file)?;
    Ok(clients)
}

/// Threads that run until they are stopped.
struct Threads {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<Result<()>>>,
}

impl Threads {
    fn start(
        &mut self,
        name: &str,
        place: &Place,
        work: impl FnOnce() -> Result<()> + Send + 'static,
    ) -> Result<()> {
        let place = place.clone();
        let thread = thread::Builder::new().name(name.to_owned()).spawn(move || {
            place.enter()?;
            work()
        })?;
        self.threads.push(thread);
        Ok(())
    }

    /// Stops and joins them; returns the first error.
    fn end(&mut self) -> Result<()> {
        self.stop.store(true, Ordering::Relaxed);
        self.threads
            .drain(..)
            .try_for_each(|thread| thread.join().map_err(|_| anyhow!("a client panicked"))?)
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        let _ = self.end();
    }
}
