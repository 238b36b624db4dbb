//! The thread that maintains CLIENTS. It enters network namespaces, so it must do nothing else.

use std::{
    collections::{HashMap, HashSet},
    fs::File,
    ops::ControlFlow,
    path::Path,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::Ordering,
        mpsc::{Receiver, RecvTimeoutError},
    },
    time::{Duration, Instant},
};

use aya::maps::{self, MapData};
use nix::sched::{CloneFlags, setns};
use proxy_common::{ClientAddresses, Reason};

use super::{Order, Sought, addresses, mounts::Mounts, schedule::Schedule};
use crate::dataplane::{Error, Mapped, Tables, node::namespaces::Walk};

/// How often to check for a reason to search: two loads and a system call.
const GLANCE: Duration = Duration::from_millis(100);

/// After this many fruitless searches the cause is not only a new pod without an address.
const FRUITLESS: u32 = 3;

/// The state of the thread.
pub(super) struct Watch {
    clients: maps::HashMap<MapData, u64, ClientAddresses>,
    totals: Mapped<u64>,
    /// What CLIENTS holds.
    known: HashMap<u64, ClientAddresses>,
    home: File,
    mounts: Mounts,
    /// How many searches in a row found no new client although an unknown one had been refused.
    fruitless: u32,
    problem: Arc<Mutex<Option<String>>>,
}

impl Watch {
    pub(super) fn new(
        pin_dir: &Path,
        tables: &Tables,
        problem: Arc<Mutex<Option<String>>>,
    ) -> Result<Self, Error> {
        let home = Path::new("/proc/thread-self/ns/net");
        let clients = Tables::clients(pin_dir)?;
        let mut known = HashMap::new();
        for entry in &clients {
            let (cookie, found) = entry.map_err(Error::map("CLIENTS"))?;
            known.insert(cookie, found);
        }
        Ok(Self {
            clients,
            totals: tables.totals.clone(),
            known,
            home: File::open(home).map_err(Error::system("open", home))?,
            mounts: Mounts::new(),
            fruitless: 0,
            problem,
        })
    }

    /// Handles messages until the sender is gone.
    pub(super) fn run(mut self, orders: &Receiver<Order>) {
        let mut sought: Option<Sought> = None;
        let mut schedule = Schedule::new(Instant::now());
        loop {
            let order = match sought {
                None => orders.recv().map_err(|_| RecvTimeoutError::Disconnected),
                Some(_) => orders.recv_timeout(GLANCE),
            };
            let mut done = None;
            match order {
                Ok(order) => (sought, done) = (order.sought, order.done),
                Err(RecvTimeoutError::Timeout) => {
                    if !schedule.is_due(Instant::now(), self.refusals(), self.mounts.have_changed()) {
                        continue;
                    }
                }
                Err(RecvTimeoutError::Disconnected) => return,
            }
            let Some(sought) = &sought else {
                self.forget();
                continue;
            };
            let (began, refusals) = (Instant::now(), self.refusals());
            self.look(sought, refusals != schedule.refusals());
            schedule = schedule.looked(began, Instant::now(), refusals);
            if let Some(done) = done {
                let _ = done.send(());
            }
        }
    }

    /// How many clients were refused because they were unknown.
    fn refusals(&self) -> u64 {
        self.totals.word(Reason::ClientUnknown as u32, 0).load(Ordering::Relaxed)
    }

    /// Searches all namespaces. `refused` says that an unknown client was refused since the last search.
    fn look(&mut self, sought: &Sought, refused: bool) {
        let began = Instant::now();
        let mut met = HashMap::new();
        let mut failure = None;
        let walked = Walk::through(|namespace, path| {
            let entered = setns(namespace, CloneFlags::CLONE_NEWNET)
                .map_err(|errno| Error::system("setns", path)(errno.into()));
            match entered.and_then(|()| addresses::here(sought)) {
                Ok((cookie, found)) => drop(met.insert(cookie, found)),
                Err(error) => failure = Some(error.to_string()),
            }
            ControlFlow::Continue(())
        });
        // A thread that stayed in a namespace would keep it alive after its pod is gone.
        if let Err(errno) = setns(&self.home, CloneFlags::CLONE_NEWNET) {
            failure = Some(Error::system("setns", "/proc/thread-self/ns/net")(errno.into()).to_string());
        }
        let known = self.known.len();
        let full = self.enter(&met);
        self.fruitless = if refused && self.known.len() == known { self.fruitless + 1 } else { 0 };
        match walked {
            Ok(_) if failure.is_none() => self.leave(&met.into_keys().collect()),
            Ok(_) => {}
            Err(error) => failure = Some(error.to_string()),
        }
        if self.fruitless >= FRUITLESS {
            failure.get_or_insert(
                "a client is in a network namespace that the agent cannot find (set hostPID and CAP_SYS_PTRACE \
                 on its pod), or that has no address of the IP family"
                    .to_owned(),
            );
        }
        *self.problem.lock().unwrap_or_else(PoisonError::into_inner) = failure.or(full).map(|why| {
            format!("LoadBalancer IPs with source ranges may refuse pods with `client-unknown`: {why}")
        });
        tracing::debug!(namespaces = self.known.len(), took = ?began.elapsed(), "searched network namespaces \
                                                                                 for client addresses");
    }

    /// Adds new entries. Returns the problem if the map is full.
    fn enter(&mut self, met: &HashMap<u64, ClientAddresses>) -> Option<String> {
        let mut full = None;
        for (cookie, found) in met {
            if self.known.get(cookie) == Some(found) {
                continue;
            }
            match self.clients.insert(cookie, found, 0) {
                Ok(()) => {
                    tracing::debug!(cookie, addresses = %found, "found a network namespace");
                    self.known.insert(*cookie, *found);
                }
                Err(error) => full = Some(format!("CLIENTS is full or cannot be written: {error}")),
            }
        }
        full
    }

    /// Removes namespaces that are gone. Their cookies are never reused.
    fn leave(&mut self, met: &HashSet<u64>) {
        let gone: Vec<u64> = self.known.keys().filter(|cookie| !met.contains(cookie)).copied().collect();
        for cookie in gone {
            let _ = self.clients.remove(&cookie);
            self.known.remove(&cookie);
        }
    }

    /// No Service has source ranges any more.
    fn forget(&mut self) {
        self.leave(&HashSet::new());
        *self.problem.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}
