//! The thread that searches network namespaces. It enters them, so it must do nothing else.

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

use nix::sched::{CloneFlags, setns};
use proxy_common::{NodeEvent, Reason};

use super::{
    Order, PassBy, Wanted,
    bypass::{Bypass, Search, Told},
    clients::{self, Clients},
    mounts::Mounts,
    schedule::Schedule,
};
use crate::dataplane::{
    Error, Mapped, Tables,
    node::{namespaces::Walk, netlink::Routes, system::netns_cookie_of_socket},
};

/// How often to check for a reason to search: two loads and a system call.
const GLANCE: Duration = Duration::from_millis(100);

/// What a failure means.
const REFUSED: &str = "LoadBalancer IPs with source ranges may refuse pods with `client-unknown`";
const NOT_PASSED: &str = "sockets of pods that redirect or route traffic to Services by themselves, or of namespaces in a \
                          pod, may not be passed by";

/// The state of the thread.
pub(super) struct Watch {
    clients: Clients,
    bypass: Bypass,
    totals: Mapped<u64>,
    home: File,
    mounts: Mounts,
    /// The namespaces that the last search met.
    met: HashSet<u64>,
    /// How many sockets had been in unknown namespaces then; nothing if it did not find who they are.
    unknown: Option<u64>,
    problem: Arc<Mutex<Option<String>>>,
}

/// What a search found.
#[derive(Default)]
struct Found {
    /// The cookies of all namespaces.
    met: HashSet<u64>,
    clients: HashMap<u64, proxy_common::ClientAddresses>,
    bypass: Search,
    failure: Option<String>,
}

impl Watch {
    pub(super) fn new(
        pin_dir: &Path,
        tables: &Tables,
        problem: Arc<Mutex<Option<String>>>,
        told: Told,
    ) -> Result<Self, Error> {
        let home = Path::new("/proc/thread-self/ns/net");
        Ok(Self {
            clients: Clients::new(pin_dir)?,
            bypass: Bypass::new(pin_dir, told)?,
            totals: tables.totals.clone(),
            home: File::open(home).map_err(Error::system("open", home))?,
            mounts: Mounts::new(),
            met: HashSet::new(),
            unknown: Some(0),
            problem,
        })
    }

    /// Handles messages until the sender is gone.
    pub(super) fn run(mut self, orders: &Receiver<Order>) {
        let mut wanted = Wanted::default();
        let mut schedule = Schedule::new(Instant::now());
        let (mut news, mut is_late) = (false, false);
        loop {
            let order = if wanted.is_nothing() && !is_late {
                orders.recv().map_err(|_| RecvTimeoutError::Disconnected)
            } else {
                orders.recv_timeout(GLANCE)
            };
            let mut done = None;
            match order {
                // Perhaps one for each of many pods: the schedule says when.
                Ok(Order { wanted: next, done: None }) => (wanted, news) = (next, true),
                Ok(order) => (wanted, done) = (order.wanted, order.done),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            if done.is_none() {
                let news = std::mem::take(&mut news) | self.mounts.have_changed() | self.has_unknown();
                is_late = !schedule.is_due(Instant::now(), self.refusals(), news);
                if is_late {
                    continue;
                }
            }
            let (began, refusals) = (Instant::now(), self.refusals());
            self.look(&wanted, refusals != schedule.refusals());
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

    /// Whether sockets asked for Services in namespaces that nobody has looked at.
    fn has_unknown(&self) -> bool {
        self.unknown.is_some_and(|known| known != self.unknown_sockets())
    }

    fn unknown_sockets(&self) -> u64 {
        self.totals.word(NodeEvent::UnknownNamespace as u32, 0).load(Ordering::Relaxed)
    }

    /// Searches all namespaces for what is wanted. `refused` says that an unknown client was refused since the last search.
    fn look(&mut self, wanted: &Wanted, refused: bool) {
        let (began, unknown, asked) = (Instant::now(), self.unknown_sockets(), self.has_unknown());
        let mut found = Found { bypass: self.bypass.begin(), ..Found::default() };
        let walked = if wanted.is_nothing() { Ok(true) } else { self.walk(wanted, &mut found) };
        let failure = found.failure.or_else(|| walked.err().map(|error| error.to_string()));
        let whole = failure.is_none();
        let consequence = if wanted.clients.is_some() { REFUSED } else { NOT_PASSED };
        let mut failure = failure.map(|why| format!("{consequence}: {why}"));
        match &wanted.passed_by {
            PassBy::Those(rules) => {
                let problem = self.bypass.decide(&found.bypass, rules, whole);
                failure = failure.or_else(|| problem.map(|why| format!("{NOT_PASSED}: {why}")));
            }
            PassBy::Nobody => self.bypass.forget(),
            PassBy::AsBefore => {}
        }
        // A thread that stayed in a namespace would keep it alive after its pod is gone.
        if let Err(errno) = setns(&self.home, CloneFlags::CLONE_NEWNET) {
            let error = Error::system("setns", "/proc/thread-self/ns/net")(errno.into());
            failure = Some(format!("{consequence}: {error}"));
        }
        if wanted.clients.is_some() {
            let problem = self.clients.enter(&found.clients, refused);
            if whole {
                self.clients.leave(&found.met);
            }
            failure = failure.or_else(|| problem.map(|why| format!("{REFUSED}: {why}")));
        } else {
            self.clients.forget();
        }
        *self.problem.lock().unwrap_or_else(PoisonError::into_inner) = failure;
        // Who is in a namespace that cannot be found asks no more until the next search.
        let is_fruitless = asked && found.met.is_subset(&self.met);
        self.unknown = Some(unknown).filter(|_| !is_fruitless);
        self.met = found.met;
        tracing::debug!(namespaces = self.met.len(), took = ?began.elapsed(), "searched network namespaces");
    }

    fn walk(&mut self, wanted: &Wanted, found: &mut Found) -> Result<bool, Error> {
        let mut is_home = true;
        Walk::through(|namespace, path| {
            let visited = setns(namespace, CloneFlags::CLONE_NEWNET)
                .map_err(|errno| Error::system("setns", path)(errno.into()))
                .and_then(|()| self.visit(wanted, found, (namespace, path), std::mem::take(&mut is_home)));
            if let Err(error) = visited {
                found.failure = Some(error.to_string());
            }
            ControlFlow::Continue(())
        })
    }

    /// Looks at the namespace that this thread has entered; the first one is the node's own.
    fn visit(
        &mut self,
        wanted: &Wanted,
        found: &mut Found,
        (namespace, path): (&File, &Path),
        is_home: bool,
    ) -> Result<(), Error> {
        let routes = Routes::new()?;
        let cookie = netns_cookie_of_socket(&routes)?;
        found.met.insert(cookie);
        if let Some(sought) = &wanted.clients {
            found.clients.insert(cookie, clients::here(&routes, cookie, sought));
        }
        match &wanted.passed_by {
            PassBy::Those(_) if is_home => found.bypass.knows(cookie, path),
            PassBy::Those(rules) => {
                self.bypass.look(&mut found.bypass, (cookie, namespace, path), (&self.home, &routes), rules);
            }
            PassBy::AsBefore | PassBy::Nobody => {}
        }
        Ok(())
    }
}
