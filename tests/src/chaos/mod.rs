//! Chaos: traffic of every kind in a lab of two nodes with an agent on each, while agents and the API server suffer
//! whatever a cluster has in store for them, and every connection is judged.
//!
//! | file | concept |
//! |---|---|
//! | `cast` | the two nodes, their pods and agents, the host outside, and the API server there |
//! | `services` | the judged Services, and the ways to them |
//! | `objects` | their objects, and those of thousands of others that nobody asks |
//! | `roster` | which endpoints may answer: those that were published, and not seen to be replaced |
//! | `beats` | sees, node by node, that a published change is in effect |
//! | `servers` | endpoints; an answer says which one it is from |
//! | `exchange` | one question and its answer, over TCP and UDP |
//! | `clients` | new connections all the time, and long-lived ones |
//! | `disturbance` | what happens to agents and to the cluster, in an order that follows from the seed |
//! | `agents`, `cluster` | do that |
//! | `ledger` | counts, and the verdict |
//! | `interrupt` | Ctrl-C |
//!
//! A long-lived connection is **broken** when it ends, stalls ([`exchange::STALL`]) or changes its endpoint; a new one has
//! **failed** when it is not answered in time: all Services have an endpoint at all times. An answer from what is not an
//! endpoint of the Service is **misrouted**. An agent is **deaf** when a change is not in effect a minute after nothing
//! stood in its way any more.
//!
//! What never happens: a failure that is excused because something was disturbed at that time. So nothing is done that
//! would excuse one: devices stay up, and pods stay alive when they leave their Services.

mod agents;
mod beats;
mod cast;
mod clients;
mod cluster;
mod disturbance;
mod exchange;
mod interrupt;
mod ledger;
mod objects;
mod roster;
mod servers;
mod services;

use std::{
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle, sleep},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, anyhow, ensure};

use self::{
    beats::Calm,
    cast::Cast,
    cluster::Cluster,
    ledger::{Event, Ledger},
    roster::Roster,
};
pub use self::{interrupt::Interrupt, ledger::Verdict};
use crate::place::Place;

/// The interval of progress lines.
const PROGRESS: Duration = Duration::from_secs(5);
/// Longest wait for the first exchange of every long-lived connection.
const GATHER: Duration = Duration::from_mins(1);

/// The parameters.
#[derive(Clone, Debug)]
pub struct Settings {
    /// How long agents and cluster are disturbed.
    pub duration: Duration,
    /// Where all random choices begin.
    pub seed: u64,
    /// Long-lived connections.
    pub long_lived: usize,
    /// The most Services that are made at a time, beside the judged ones.
    pub crowd: u32,
    /// The pause of each client of new connections: there are some ninety.
    pub pause: Duration,
    /// Versions of the agent, among which nodes are upgraded and downgraded; without any, the one to test.
    pub binaries: Vec<PathBuf>,
}

/// What all threads share.
struct Shared {
    settings: Settings,
    ledger: Ledger,
    roster: Roster,
    calm: Calm,
    stop: AtomicBool,
}

impl Shared {
    fn is_over(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// Sleeps; whether there is more to do.
    fn rest(&self, pause: Duration) -> bool {
        let end = Instant::now() + pause;
        while !self.is_over() {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return true;
            }
            sleep(left.min(Duration::from_millis(50)));
        }
        false
    }
}

/// Runs it, tells of its progress, and returns the result. An interrupt ends it early and in order.
pub fn run(settings: Settings, interrupt: &Interrupt, mut tell: impl FnMut(&str)) -> Result<Verdict> {
    let duration = settings.duration;
    let cast = Cast::assemble()?;
    tell(&format!("the lab is {}, the seed {}", cast.name(), settings.seed));
    let stop = AtomicBool::new(false);
    let shared = Arc::new(Shared {
        settings,
        ledger: Ledger::default(),
        roster: Roster::new(),
        calm: Calm::new(),
        stop,
    });
    let mut threads = Threads { shared: Arc::clone(&shared), threads: Vec::new() };
    let servers = cast.serve()?;
    let api = cast.api_server()?;
    let agents = cast.agents(&api, &shared)?;
    beats::begin(&mut threads, &cast, &api)?;
    clients::begin(&mut threads, &cast)?;
    let start = Instant::now();
    while shared.ledger.long_lived() < shared.settings.long_lived as u64 && !interrupt.is_pending() {
        ensure!(
            start.elapsed() < GATHER,
            "only {} long-lived connections in {GATHER:?}\n{}",
            shared.ledger.long_lived(),
            shared.ledger.verdict(Duration::ZERO, &shared.settings)
        );
        sleep(Duration::from_millis(50));
    }
    tell(&format!("{} long-lived connections; now everything at once", shared.ledger.long_lived()));

    let start = Instant::now();
    let agents = Threads::start("agents", {
        let shared = Arc::clone(&shared);
        move || agents::disturb(agents, &shared)
    })?;
    let cluster = Cluster::new(api, &cast);
    let cluster = Threads::start("cluster", {
        let shared = Arc::clone(&shared);
        move || cluster.disturb(&shared)
    })?;
    let mut next = PROGRESS;
    while start.elapsed() < duration
        && !interrupt.is_pending()
        && !agents.is_finished()
        && !cluster.is_finished()
    {
        sleep(Duration::from_millis(50));
        if start.elapsed() >= next {
            next += PROGRESS;
            tell(&shared.ledger.line(start.elapsed()));
        }
    }
    shared.stop.store(true, Ordering::Relaxed);
    let took = start.elapsed();
    // The clients' last exchanges are with the agents as they are now.
    let clients = threads.end();
    let (cluster, agents) = (joined(cluster), joined(agents));
    let agents = agents?;
    let [bigger, smaller] = agents.resizes();
    shared.ledger.count(Event::Growth, bigger);
    shared.ledger.count(Event::Shrinkage, smaller);
    // What an agent leaves is put away as users do it, and by the lab.
    drop((cluster?, agents));
    clients?;
    drop(servers);
    Ok(shared.ledger.verdict(took, &shared.settings))
}

/// Threads that run until it is over.
struct Threads {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<Result<()>>>,
}

impl Threads {
    /// Starts one that returns something.
    fn start<T: Send + 'static>(
        name: &str,
        work: impl FnOnce() -> Result<T> + Send + 'static,
    ) -> Result<JoinHandle<Result<T>>> {
        thread::Builder::new().name(name.to_owned()).spawn(work).with_context(|| format!("the thread {name}"))
    }

    /// Starts one in a place.
    fn start_in(
        &mut self,
        place: &Place,
        work: impl FnOnce(&Arc<Shared>) -> Result<()> + Send + 'static,
    ) -> Result<()> {
        let (place, shared) = (place.clone(), Arc::clone(&self.shared));
        let thread = Self::start(place.name(), {
            let place = place.clone();
            move || {
                place.enter()?;
                work(&shared)
            }
        })?;
        self.threads.push(thread);
        Ok(())
    }

    /// Waits for those in places; the first error.
    fn end(&mut self) -> Result<()> {
        self.threads.drain(..).map(joined).fold(Ok(()), Result::and)
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        let _ = self.end();
    }
}

fn joined<T>(thread: JoinHandle<Result<T>>) -> Result<T> {
    thread.join().map_err(|_| anyhow!("a thread panicked"))?
}
