//! The soak: minutes of everything at once, in a lab of two nodes, and promises that are counted all the while.
//!
//! Clients outside come back with their source ports in order, floods of made-up clients push out what they can from a
//! table of records that is small, endpoints come and go, the agent is stopped, killed and started; on the node
//! connection tracking is active, so that whatever is left in it shows.
//!
//! | file | concept |
//! |---|---|
//! | `ledger` | what has happened, and which promise was broken: the result |
//! | `servers` | endpoints, which tell whom they see, and notice a question that another one has had too |
//! | `tcp`, `udp` | clients |
//! | `flood` | clients that nobody has |
//! | `changes` | what is done to the Service and to the agent |
//! | `traces` | what the kernels of the lab keep of it: strays on the wire, entries of conntrack |
//!
//! What never happens: a promise that is broken is not counted because its client gave up, and a client that the
//! machine is too slow for is not counted as one that hangs ([`tcp::LIMIT`], [`udp::LIMIT`]).

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

/// Clients that connect, of each protocol and family.
const CLIENTS: u8 = 2;
/// The last byte of the first client's address.
const FIRST_CLIENT: u8 = 110;
/// Before the end floods are over, so that what they left half open is forgotten in time: endpoints answer a SYN that
/// nobody acknowledges for about a minute, and conntrack remembers it for another one.
const WITHOUT_FLOODS: Duration = Duration::from_secs(20);
/// After the end conntrack has so long to forget: its longest timeout of a connection that is not established, which is two
/// minutes, and a moment.
const TO_FORGET: Duration = Duration::from_secs(125);
/// How often a line of progress is printed.
const PROGRESS: Duration = Duration::from_secs(5);

/// How long, and on what.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Settings {
    /// How long clients go on.
    pub duration: Duration,
    /// Room for records (`--max-flows`).
    pub max_flows: u32,
}

/// Runs the soak, tells how it goes line by line, and returns what came of it.
pub fn run(settings: Settings, mut tell: impl FnMut(&str)) -> Result<Verdict> {
    let nodes = TwoNodes::new(Variant::DIRECT).context("making the lab")?;
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
        // Datagrams' records go in time, or the table would be full of them for a good reason.
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
        tell(&format!("clients have ended; conntrack has {} s to forget them", TO_FORGET.as_secs()));
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

/// The clients' addresses, of both families, which outside gets here.
fn clients(outside: &Place) -> Result<Vec<IpAddr>> {
    let numbers = FIRST_CLIENT..FIRST_CLIENT + CLIENTS;
    let texts = numbers.flat_map(|number| [format!("192.0.2.{number}"), format!("2001:db8:192::{number}")]);
    let clients: Vec<IpAddr> = texts.map(|text| text.parse()).collect::<Result<_, _>>()?;
    let lines = clients.iter().map(|client| match client {
        IpAddr::V4(client) => format!("addr add {client}/24 dev uplink\n"),
        IpAddr::V6(client) => format!("addr add {client}/64 dev uplink nodad\n"),
    });
    outside.namespace().ip_batch(&lines.collect::<String>())?;
    // A client that ended a connection a second ago may use its port for another one to the same place.
    let file = "/proc/sys/net/ipv4/tcp_tw_reuse";
    outside.run(|| std::fs::write(file, "1")).context(file)?;
    Ok(clients)
}

/// Threads that go on until they are told to stop.
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

    /// Ends them; the first error of any.
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
