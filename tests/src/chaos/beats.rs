//! Sees that each node follows: a Service of its own gets an endpoint and loses it, over and over, and a client on the node
//! sees both. Whatever was published before is in effect then: one watch has its changes in order, and the agent
//! installs Services in the order of their names.

use std::{
    io::ErrorKind,
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream},
    sync::Mutex,
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::Result;

use super::{
    Shared, Threads,
    cast::Cast,
    ledger::{Event, Promise},
    objects, services,
};
use crate::api_server::ApiServer;

/// How long an agent may take to follow when nothing stands in its way: after the API server was away it asks again
/// after half a minute at most.
const DEAF: Duration = Duration::from_mins(1);
/// Between looks at the Service.
const LOOK: Duration = Duration::from_millis(20);

/// Since when nothing stands in the way of each node's agent, as far as those know who disturb it.
#[derive(Debug)]
pub(super) struct Calm(Mutex<[(u32, Instant); 2]>);

impl Calm {
    pub(super) fn new() -> Self {
        Self(Mutex::new([(0, Instant::now()); 2]))
    }

    /// Something stands in the way now.
    pub(super) fn disturb(&self, node: usize) {
        self.0.lock().expect("no panic while locked")[node].0 += 1;
    }

    /// It does not any more.
    pub(super) fn settle(&self, node: usize) {
        let nodes = &mut self.0.lock().expect("no panic while locked");
        nodes[node].0 -= 1;
        nodes[node].1 = Instant::now();
    }

    /// How long nothing has.
    fn lasts(&self, node: usize) -> Duration {
        let (disturbed, since) = self.0.lock().expect("no panic while locked")[node];
        if disturbed > 0 { Duration::ZERO } else { since.elapsed() }
    }
}

/// The Service of a node.
fn name(node: usize) -> String {
    // The last one in the order of names.
    format!("zz-beat-{node}")
}

fn address(node: usize) -> IpAddr {
    Ipv4Addr::new(10, 96, 1, 200 + u8::try_from(node).expect("two nodes")).into()
}

/// Starts looking on both nodes.
pub(super) fn begin(threads: &mut Threads, cast: &Cast, api: &ApiServer) -> Result<()> {
    for node in [0, 1] {
        let (objects, endpoint) = (api.objects(), cast.endpoints[0].v4.into());
        objects.put(objects::service(&name(node), &[address(node)]));
        threads.start_in(&cast.clients[node], move |shared| {
            let mut on = false;
            loop {
                on = !on;
                let change = shared.roster.last();
                let start = Instant::now();
                let endpoints: &[(usize, IpAddr)] = if on { &[(0, endpoint)] } else { &[] };
                objects.put(objects::slice(&name(node), "IPv4", endpoints));
                if !seen(on, node, start, shared) {
                    return Ok(());
                }
                shared.roster.follow(node, change);
                shared.ledger.count(Event::Beat, 1);
                sleep(LOOK);
            }
        })?;
    }
    Ok(())
}

/// Waits until the Service has an endpoint, or none; whether that came before the end.
fn seen(on: bool, node: usize, start: Instant, shared: &Shared) -> bool {
    let at = SocketAddr::new(address(node), services::PORTS[0]);
    let mut told = false;
    while !shared.is_over() {
        let connected = TcpStream::connect_timeout(&at, Duration::from_secs(2));
        let is_on = connected.is_ok();
        if is_on == on && (on || connected.is_err_and(|error| error.kind() == ErrorKind::ConnectionRefused)) {
            return true;
        }
        let waited = shared.calm.lasts(node).min(start.elapsed());
        if waited > DEAF && !told {
            told = true;
            shared.ledger.broke(Promise::Deaf, || {
                format!("node {node} does not follow {waited:?} after nothing stood in its way")
            });
        }
        sleep(LOOK);
    }
    false
}
