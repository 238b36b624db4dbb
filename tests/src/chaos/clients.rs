//! New connections all the time, and long-lived ones that ask regularly: pods' and processes' of both nodes to ClusterIPs,
//! and those of a host outside to NodePorts and LoadBalancer IPs.
//!
//! Each place has a thread, whose sockets are in its network namespace and cgroup. Connections from pods directly to
//! endpoints run beside them: what they show is the machine's doing, not ours.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use anyhow::Result;
use tokio::time::sleep;

use super::{
    Shared, Threads,
    cast::Cast,
    exchange::{self, Asker},
    ledger::{Event, Promise},
    services::{self, Way},
};
use crate::{
    cluster::{DNS_PORT, HTTP_PORT},
    random::Random,
};

/// How often a long-lived connection asks.
const PERIOD: Duration = Duration::from_secs(1);
/// Which share of the long-lived connections each place has, in percent: pods, nodes, outside.
const SHARES: [usize; 5] = [25, 15, 15, 10, 35];
/// One in so many long-lived ones is a UDP flow.
const UDP: usize = 4;

/// Starts all of them.
pub(super) fn begin(threads: &mut Threads, cast: &Cast) -> Result<()> {
    let places = [
        (&cast.clients[0], services::inside(0)),
        (&cast.clients[1], services::inside(1)),
        (cast.node(0), services::inside(0)),
        (cast.node(1), services::inside(1)),
        (cast.outside(), services::outside()),
    ];
    for ((number, (place, ways)), share) in places.into_iter().enumerate().zip(SHARES) {
        let direct = (number < cast.clients.len()).then(|| cast.endpoints[3 - number].v4);
        threads.start_in(place, move |shared| {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            let count = shared.settings.long_lived * share / 100;
            runtime.block_on(async {
                let mut tasks = Vec::new();
                for (client, way) in ways.iter().copied().enumerate() {
                    let pace = |protocol| {
                        Random::new(shared.settings.seed + (number * 1000 + client * 2 + protocol) as u64)
                    };
                    tasks.push(tokio::spawn(new_tcp(way, Arc::clone(shared), pace(0))));
                    tasks.push(tokio::spawn(new_udp(way, Arc::clone(shared), pace(1))));
                }
                for client in 0..count {
                    let way = ways[client % ways.len()];
                    // Where its endpoints change, a UDP flow may change with them.
                    let udp = client / ways.len() % UDP == UDP - 1 && way.service != services::SOME;
                    let shared = Arc::clone(shared);
                    tasks.push(if udp {
                        tokio::spawn(long_udp(way, shared))
                    } else {
                        tokio::spawn(long_tcp(way, shared))
                    });
                    // Not all at the same moment, now and later.
                    sleep(PERIOD / u32::try_from(count).unwrap_or(u32::MAX).max(1)).await;
                }
                if let Some(pod) = direct {
                    tasks.push(tokio::spawn(directly(
                        [HTTP_PORT, DNS_PORT].map(|port| SocketAddr::from((pod, port))),
                        Arc::clone(shared),
                    )));
                }
                for task in tasks {
                    task.await?;
                }
                Ok(())
            })
        })?;
    }
    Ok(())
}

async fn new_tcp(way: Way, shared: Arc<Shared>, mut random: Random) {
    while !shared.is_over() {
        pause(&shared, &mut random).await;
        let since = shared.roster.followed(way.node);
        match exchange::connect(way.tcp).await {
            Ok((stream, endpoint, took)) => {
                shared.ledger.count(Event::Tcp, 1);
                shared.ledger.took(took, false);
                judge(&shared, way, way.tcp, since, endpoint);
                if random.once_in(8) {
                    // Ends with a reset.
                    let _ = socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO));
                }
            }
            Err(error) => {
                shared.ledger.broke(Promise::Failed, || format!("TCP to {}: {error}", named(way, way.tcp)));
            }
        }
    }
}

async fn new_udp(way: Way, shared: Arc<Shared>, mut random: Random) {
    while !shared.is_over() {
        pause(&shared, &mut random).await;
        let since = shared.roster.followed(way.node);
        let asked = async {
            let mut asker = Asker::new(way.udp, random.once_in(2)).await?;
            let answer = asker.ask().await;
            shared.ledger.count(Event::Repeated, asker.repeated);
            answer
        };
        match asked.await {
            Ok((endpoint, took)) => {
                shared.ledger.count(Event::Udp, 1);
                shared.ledger.took(took, false);
                judge(&shared, way, way.udp, since, endpoint);
            }
            Err(error) => {
                shared.ledger.broke(Promise::Failed, || format!("UDP to {}: {error}", named(way, way.udp)));
            }
        }
    }
}

/// Asks on one connection until the end; one that breaks is counted, and has a successor.
async fn long_tcp(way: Way, shared: Arc<Shared>) {
    while !shared.is_over() {
        let since = shared.roster.followed(way.node);
        let (mut stream, first, _) = match exchange::connect(way.tcp).await {
            Ok(connected) => connected,
            Err(error) => {
                shared.ledger.broke(Promise::Failed, || format!("TCP to {}: {error}", named(way, way.tcp)));
                sleep(PERIOD).await;
                continue;
            }
        };
        judge(&shared, way, way.tcp, since, first);
        shared.ledger.count(Event::LongLived, 1);
        let broken = loop {
            sleep(PERIOD).await;
            match exchange::ask(&mut stream).await {
                Ok((endpoint, took)) => {
                    shared.ledger.count(Event::Asked, 1);
                    shared.ledger.took(took, false);
                    if endpoint != first {
                        break format!("endpoint {endpoint} instead of {first}");
                    }
                }
                Err(error) => break error.to_string(),
            }
            if shared.is_over() {
                return;
            }
        };
        shared.ledger.broke(Promise::Broken, || format!("TCP to {}: {broken}", named(way, way.tcp)));
    }
}

/// The same on one flow.
async fn long_udp(way: Way, shared: Arc<Shared>) {
    while !shared.is_over() {
        let flow = async {
            let mut asker = Asker::new(way.udp, true).await?;
            let (first, _) = asker.ask().await?;
            Ok::<_, std::io::Error>((asker, first))
        };
        let since = shared.roster.followed(way.node);
        let (mut asker, first) = match flow.await {
            Ok(flow) => flow,
            Err(error) => {
                shared.ledger.broke(Promise::Failed, || format!("UDP to {}: {error}", named(way, way.udp)));
                sleep(PERIOD).await;
                continue;
            }
        };
        judge(&shared, way, way.udp, since, first);
        shared.ledger.count(Event::LongLived, 1);
        let broken = loop {
            sleep(PERIOD).await;
            let before = asker.repeated;
            let answer = asker.ask().await;
            shared.ledger.count(Event::Repeated, asker.repeated - before);
            match answer {
                Ok((endpoint, took)) => {
                    shared.ledger.count(Event::Asked, 1);
                    shared.ledger.took(took, false);
                    if endpoint != first {
                        break format!("endpoint {endpoint} instead of {first}");
                    }
                }
                Err(error) => break error.to_string(),
            }
            if shared.is_over() {
                return;
            }
        };
        shared.ledger.broke(Promise::Broken, || format!("UDP to {}: {broken}", named(way, way.udp)));
    }
}

/// Asks an endpoint at its own address, by TCP and UDP in turn.
async fn directly([tcp, udp]: [SocketAddr; 2], shared: Arc<Shared>) {
    while !shared.is_over() {
        if let Ok((_, _, took)) = exchange::connect(tcp).await {
            shared.ledger.took(took, true);
        }
        if let Ok(mut asker) = Asker::new(udp, true).await
            && let Ok((_, took)) = asker.ask().await
        {
            shared.ledger.took(took, true);
        }
        sleep(shared.settings.pause / 4).await;
    }
}

fn judge(shared: &Shared, way: Way, address: SocketAddr, since: usize, endpoint: u8) {
    let may = shared.roster.may_answer(way.service, since);
    if may & (1_u8.checked_shl(endpoint.into()).unwrap_or(0)) == 0 {
        shared.ledger.broke(Promise::Misrouted, || {
            format!(
                "{} was answered by endpoint {endpoint}; its endpoints are {may:#06b}",
                named(way, address)
            )
        });
    }
}

fn named(way: Way, address: SocketAddr) -> String {
    format!("{} of {:?} through node {}, {address}", way.kind, services::NAMES[way.service], way.node)
}

/// Between half and one and a half pauses.
async fn pause(shared: &Shared, random: &mut Random) {
    let pause = shared.settings.pause;
    sleep(pause / 2 + pause * random.below(1000_u32) / 1000).await;
}
