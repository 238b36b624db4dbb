//! The thread that searches for stale sockets. It enters network namespaces, so it must do nothing else.

use std::{
    cell::OnceCell,
    collections::{BTreeMap, HashMap, HashSet},
    fs::File,
    ops::ControlFlow,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::Ordering,
        mpsc::{Receiver, RecvTimeoutError},
    },
    time::{Duration, Instant},
};

use aya::maps::{MapData, SkStorage};
use nix::sched::{CloneFlags, setns};
use proxy_common::{Address, Datagrams, HeldSocket, NodeEvent, Port, Translation};

use super::{
    Suspects, holders, reconnect,
    tracked::{Tracked, Wanted},
    verdict,
};
use crate::dataplane::{
    Error, SharedTables, Tables,
    node::{namespaces::Walk, netlink::Diag, system::netns_cookie_of_socket},
    programs::load::iterators::{HELD_SOCKETS, Iterators, UDP_SOCKETS},
    tables::grace::Readers,
};

/// A `connect()` that chose its endpoint before the change may have its peer only a while after its program
/// has ended: so long after each change there is another search.
const LAST_LOOK: Duration = Duration::from_secs(1);
/// For how long a socket that nobody seems to hold is looked for, every [`LAST_LOOK`], before it is destroyed: its
/// descriptor may be in flight between two processes.
const PATIENCE: Duration = Duration::from_secs(12);
/// Searches take at most one part in so many of the time, while changes come without end.
const SHARE: u32 = 10;
/// Longest pause between a change and its search.
const LONGEST_PAUSE: Duration = Duration::from_millis(400);

/// Everything that a search needs.
pub(super) struct Search {
    tables: SharedTables,
    sockets: SkStorage<MapData, Translation>,
    datagrams: SkStorage<MapData, Datagrams>,
    pin_dir: PathBuf,
    finder: Finder,
    tracked: Tracked,
    readers: Readers,
    home: File,
    /// Stale sockets without a holder, by cookie, and since when.
    lost: HashMap<u64, Instant>,
    waiting: Waiting,
    problem: Arc<Mutex<Option<String>>>,
    /// The last failure, logged once.
    told: Option<String>,
}

/// How held sockets are found.
enum Finder {
    /// Nothing had to be found so far.
    Undecided,
    /// By the kernel.
    Iterators(Iterators),
    /// By the descriptors of processes, on kernels that lack iterators.
    Descriptors,
}

/// Whether any socket waits for its Service to have an endpoint.
struct Waiting {
    /// Whether the last search met one.
    met: bool,
    /// [`NodeEvent::UnservedSocket`] when it began.
    noted: u64,
}

/// The existing endpoints, by Service, address and port: computed on first use.
type Living = OnceCell<HashSet<(u32, Address, Port)>>;

/// How many sockets were connected again, by the Service's address.
type Moved = BTreeMap<String, u32>;

impl Search {
    pub(super) fn new(
        pin_dir: &Path,
        tables: SharedTables,
        problem: Arc<Mutex<Option<String>>>,
    ) -> Result<Self, Error> {
        let home = Path::new("/proc/thread-self/ns/net");
        let cookies = netns_cookie_of_socket(&Diag::new()?)? != 0;
        Ok(Self {
            tables,
            sockets: Tables::sockets(pin_dir)?,
            datagrams: Tables::datagrams(pin_dir)?,
            pin_dir: pin_dir.to_owned(),
            finder: Finder::Undecided,
            tracked: Tracked::new(Tables::namespaces(pin_dir)?, cookies),
            readers: Readers::new(Tables::grace(pin_dir)?)?,
            home: File::open(home).map_err(Error::system("open", home))?,
            lost: HashMap::new(),
            waiting: Waiting { met: true, noted: 0 },
            problem,
            told: None,
        })
    }

    /// Searches on each request, and once more [`LAST_LOOK`] later, until the sender is gone.
    pub(super) fn run(mut self, asked: &Receiver<Suspects>) {
        // Those of the last search, which have another one coming.
        let mut again = Suspects::default();
        loop {
            let next = if again.are_none() {
                asked.recv().map_err(|_| RecvTimeoutError::Disconnected)
            } else {
                asked.recv_timeout(LAST_LOOK)
            };
            let began = Instant::now();
            match next {
                Ok(mut suspects) => {
                    for more in asked.try_iter() {
                        suspects.add(more);
                    }
                    if !self.concerns(&mut suspects) {
                        continue;
                    }
                    // Programs that read the old tables have ended then.
                    self.readers.wait();
                    again.add(suspects);
                    self.search(&again, false);
                }
                Err(RecvTimeoutError::Timeout) => {
                    self.search(&std::mem::take(&mut again), true);
                    again.any = !self.lost.is_empty();
                }
                Err(RecvTimeoutError::Disconnected) => return,
            }
            std::thread::sleep(LONGEST_PAUSE.min(began.elapsed() * (SHARE - 1)));
        }
    }

    /// Whether there is anything to search for. Services that came, or got endpoints, concern only sockets that wait.
    fn concerns(&self, suspects: &mut Suspects) -> bool {
        if std::mem::take(&mut suspects.served) && (self.waiting.met || self.unserved() != self.waiting.noted)
        {
            suspects.any = true;
        }
        !suspects.are_none()
    }

    fn unserved(&self) -> u64 {
        self.tables.now().totals.word(NodeEvent::UnservedSocket as u32, 0).load(Ordering::Acquire)
    }

    /// Connects again what it finds stale; in the `last` search for a change it also looks for what nobody holds.
    fn search(&mut self, suspects: &Suspects, last: bool) {
        let began = Instant::now();
        self.waiting = Waiting { met: false, noted: self.unserved() };
        let found = match self.finder() {
            Finder::Undecided => Ok(Moved::new()),
            Finder::Iterators(mut iterators) => {
                let found = self.by_iterators(&mut iterators, last);
                self.finder = Finder::Iterators(iterators);
                found
            }
            Finder::Descriptors => {
                self.finder = Finder::Descriptors;
                self.by_descriptors(suspects, last)
            }
        };
        // A thread that stays keeps the namespace of a pod that is gone.
        let home = setns(&self.home, CloneFlags::CLONE_NEWNET)
            .map_err(|errno| Error::system("setns", "/proc/thread-self/ns/net")(errno.into()));
        match found.and_then(|moved| home.map(|()| moved)) {
            Ok(moved) => {
                for (frontend, sockets) in &moved {
                    tracing::info!(
                        frontend,
                        sockets,
                        "connected UDP sockets again: their endpoint is gone, or one came"
                    );
                }
                self.told = None;
            }
            Err(error) => self.tell(&error),
        }
        self.report();
        tracing::debug!(last, took = ?began.elapsed(), "searched for stale UDP sockets");
    }

    /// Takes the way to find sockets; undecided as long as no namespace has any that could be stale.
    fn finder(&mut self) -> Finder {
        let finder = std::mem::replace(&mut self.finder, Finder::Undecided);
        if !matches!(finder, Finder::Undecided) || self.tracked.wanted(&self.tables.now()).is_done() {
            return finder;
        }
        Iterators::load(&self.pin_dir, &[HELD_SOCKETS, UDP_SOCKETS]).map_or_else(
            |error| {
                tracing::debug!(%error, "no iterators over sockets: searching through /proc");
                Finder::Descriptors
            },
            Finder::Iterators,
        )
    }

    fn by_iterators(&mut self, iterators: &mut Iterators, last: bool) -> Result<Moved, Error> {
        let (living, mut moved) = (Living::new(), Moved::new());
        // By cookie, whether the socket could be connected again.
        let mut tried = HashMap::new();
        for held in iterators.read::<HeldSocket>(HELD_SOCKETS)? {
            if !tried.contains_key(&held.cookie)
                && self.is_stale(&held.translation, &living)
                && let Some(socket) = holders::borrow(&held)
                // Its owner may have connected it elsewhere since.
                && self.record(&socket, &held.peer, held.peer_port) == Some(held.translation)
                && let Some(success) = self.connect_again(&socket, &held.translation, &mut moved)
            {
                tried.insert(held.cookie, success);
            }
        }
        if last {
            self.look_for_lost(iterators, &living, &tried)?;
        }
        Ok(moved)
    }

    /// What is stale still cannot be connected again (no route leads to the frontend), or no process holds it, but a message
    /// in flight or an `io_uring`.
    fn look_for_lost(
        &mut self,
        iterators: &mut Iterators,
        living: &Living,
        tried: &HashMap<u64, bool>,
    ) -> Result<(), Error> {
        let mut lost = HashMap::new();
        let mut failure = None;
        let whole = self.in_namespaces(|search, diag| {
            let mut ended = HashSet::new();
            for found in iterators.read::<HeldSocket>(UDP_SOCKETS)? {
                if !search.is_stale(&found.translation, living) {
                    continue;
                }
                let since = search.lost.get(&found.cookie).copied().unwrap_or_else(Instant::now);
                if since.elapsed() < PATIENCE && !tried.contains_key(&found.cookie) {
                    lost.insert(found.cookie, since);
                } else {
                    ended.insert(found.cookie);
                }
            }
            if let Err(error) = search.destroy(diag, &ended) {
                failure = Some(error);
            }
            Ok(true)
        });
        self.lost = lost;
        whole.and(failure.map_or(Ok(()), Err))
    }

    fn by_descriptors(&mut self, suspects: &Suspects, last: bool) -> Result<Moved, Error> {
        let (living, mut moved) = (Living::new(), Moved::new());
        let mut all = Vec::new();
        self.in_namespaces(|_, diag| {
            let before = all.len();
            all.extend(diag.connected()?.into_iter().filter(|socket| suspects.include(&socket.peer())));
            Ok(all.len() > before)
        })?;
        let mut fixed = HashSet::new();
        let lost = holders::walk(all, |found, socket| {
            let (address, port) = found.peer();
            // Without a record of this peer, it was not translated.
            if let Some(record) = self.record(socket, &address, port)
                && self.is_stale(&record, &living)
                && self.connect_again(socket, &record, &mut moved) == Some(false)
            {
                fixed.insert(found.cookie());
            }
        });
        if !last {
            return Ok(moved);
        }
        if !lost.is_empty() {
            tracing::debug!(sockets = lost.len(), "connected UDP sockets that no visible process holds");
        }
        if !fixed.is_empty() {
            self.in_namespaces(|search, diag| search.destroy(diag, &fixed).map(|()| true))?;
        }
        Ok(moved)
    }

    /// The record of a socket's peer.
    fn record(&self, socket: &OwnedFd, address: &Address, port: Port) -> Option<Translation> {
        let connected = self.sockets.get(socket, 0).ok()?;
        if connected.is_to(address, port) {
            return Some(connected);
        }
        // The last connect has failed: the peer is one from before it.
        let datagrams = self.datagrams.get(socket, 0).ok()?;
        datagrams.youngest(|record| record.connected(address, port)).map(|last| *datagrams.entry(last.entry))
    }

    /// Enters every namespace that may have translated UDP sockets. `visit` says whether it has.
    fn in_namespaces(
        &mut self,
        mut visit: impl FnMut(&mut Self, &Diag) -> Result<bool, Error>,
    ) -> Result<(), Error> {
        let mut wanted = self.tracked.wanted(&self.tables.now());
        if wanted.is_done() {
            return Ok(());
        }
        let mut failure = None;
        let whole = Walk::through(|namespace, path| {
            if let Err(error) = self.enter(namespace, path, &mut wanted, &mut visit) {
                failure = Some(error);
            }
            if wanted.is_done() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })?;
        if let Some(error) = failure {
            return Err(error);
        }
        if whole {
            self.tracked.finish(&wanted);
        }
        Ok(())
    }

    fn enter(
        &mut self,
        namespace: &File,
        path: &Path,
        wanted: &mut Wanted,
        visit: &mut impl FnMut(&mut Self, &Diag) -> Result<bool, Error>,
    ) -> Result<(), Error> {
        setns(namespace, CloneFlags::CLONE_NEWNET)
            .map_err(|errno| Error::system("setns", path)(errno.into()))?;
        let diag = Diag::new()?;
        let cookie = netns_cookie_of_socket(&diag)?;
        if wanted.meet(cookie) && visit(self, &diag)? {
            self.tracked.enter(wanted, cookie);
        }
        Ok(())
    }

    /// Whether the socket could be connected again; nothing for one that is not UDP.
    fn connect_again(&self, socket: &OwnedFd, record: &Translation, moved: &mut Moved) -> Option<bool> {
        match reconnect::connect_again(socket, record.frontend, record.frontend_port) {
            Ok(true) => {
                *moved.entry(format!("{}:{}", record.frontend, record.frontend_port)).or_default() += 1;
                self.count(NodeEvent::MovedSocket);
                Some(true)
            }
            Ok(false) => None,
            Err(error) => {
                tracing::debug!(%error, frontend = %record.frontend, "a UDP socket cannot be connected again");
                Some(false)
            }
        }
    }

    /// Their owners get ECONNABORTED, rather than sending to nobody for ever.
    fn destroy(&self, diag: &Diag, cookies: &HashSet<u64>) -> Result<(), Error> {
        if cookies.is_empty() {
            return Ok(());
        }
        let mut closed = BTreeMap::<String, u32>::new();
        for socket in diag.connected()?.iter().filter(|socket| cookies.contains(&socket.cookie())) {
            if diag.destroy(socket)? {
                let (address, port) = socket.peer();
                *closed.entry(format!("{address}:{port}")).or_default() += 1;
                self.count(NodeEvent::ClosedSocket);
            }
        }
        for (endpoint, sockets) in &closed {
            tracing::info!(
                endpoint,
                sockets,
                "closed connected UDP sockets whose endpoint is gone: they could not be connected again"
            );
        }
        Ok(())
    }

    fn count(&self, event: NodeEvent) {
        self.tables.now().totals.word(event as u32, 0).fetch_add(1, Ordering::Relaxed);
    }

    fn is_stale(&mut self, record: &Translation, living: &Living) -> bool {
        if record.is_direct() {
            return false;
        }
        if record.is_unserved() {
            let is_served = verdict::has_endpoints(&*self.tables.now(), record);
            self.waiting.met |= !is_served;
            return is_served;
        }
        verdict::is_stale(&*self.tables.now(), record, |service, address, port| {
            living.get_or_init(|| self.living()).contains(&(service, *address, port))
        })
    }

    fn living(&self) -> HashSet<(u32, Address, Port)> {
        let ids = 1..self.tables.now().states.len();
        let alive = ids.filter_map(|id| {
            let state = self.tables.now().states.load(id).filter(|state| verdict::is_alive(*state))?;
            self.tables.now().endpoints.load(state.slot).filter(|endpoint| endpoint.id == id)
        });
        alive.map(|endpoint| (endpoint.service, endpoint.address, endpoint.port)).collect()
    }

    fn tell(&mut self, error: &Error) {
        let message = error.to_string();
        if self.told.as_ref() != Some(&message) {
            tracing::warn!(
                %error,
                "cannot search everywhere: connected UDP sockets may keep endpoints that are gone"
            );
            self.told = Some(message);
        }
    }

    /// Tells `status` what could not be found.
    fn report(&self) {
        let lost = self.lost.len();
        let told = (lost > 0).then(|| {
            format!(
                "{lost} stale (their endpoint is gone) and held by no process: a descriptor in flight between processes, or \
                 registered with an io_uring alone; closed after {} s",
                PATIENCE.as_secs()
            )
        });
        *self.problem.lock().unwrap_or_else(PoisonError::into_inner) = told;
    }
}
