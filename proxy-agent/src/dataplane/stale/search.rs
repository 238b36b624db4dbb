//! The thread that searches: it enters namespaces, which no thread that does anything else may do.

use std::{
    cell::OnceCell,
    collections::{BTreeMap, HashSet},
    fs::File,
    ops::ControlFlow,
    path::Path,
    sync::{
        atomic::Ordering,
        mpsc::{Receiver, RecvTimeoutError},
    },
    time::{Duration, Instant},
};

use aya::maps::MapData;
use nix::sched::{CloneFlags, setns};
use proxy_common::{Address, Port, Total};

use super::{
    super::{Error, Tables, grace::Readers, system::netns_cookie_of_socket},
    message::Found,
    namespaces::Walk,
    netlink::Diag,
    tracked::{Tracked, Wanted},
    verdict,
};

/// A `connect()` that chose its endpoint before the change may have its peer only a while after its program
/// has ended: so long after each change there is another search.
const LAST_LOOK: Duration = Duration::from_secs(1);
/// Searches take at most one part in so many of the time, while changes come without end.
const SHARE: u32 = 10;
/// Longest pause between a change and its search.
const LONGEST_PAUSE: Duration = Duration::from_millis(400);
/// How often a family is searched until nothing is found: a dump can miss sockets when others close.
const ROUNDS: usize = 4;

/// Everything that a search needs.
pub(super) struct Search {
    tables: Tables,
    sockets: MapData,
    tracked: Tracked,
    readers: Readers,
    home: File,
    /// The last failure: it is told once.
    told: Option<String>,
}

/// The endpoints there are, by Service, address and port: made only when somebody asks.
type Living = OnceCell<HashSet<(u32, Address, Port)>>;

impl Search {
    pub(super) fn new(pin_dir: &Path) -> Result<Self, Error> {
        let home = Path::new("/proc/thread-self/ns/net");
        let cookies = netns_cookie_of_socket(&Diag::new()?)? != 0;
        Ok(Self {
            tables: Tables::open(pin_dir)?,
            sockets: Tables::sockets(pin_dir)?,
            tracked: Tracked::new(Tables::namespaces(pin_dir)?, cookies),
            readers: Readers::new(Tables::grace(pin_dir)?)?,
            home: File::open(home).map_err(Error::system("open", home))?,
            told: None,
        })
    }

    /// Searches whenever it is asked to, and once more [`LAST_LOOK`] later, until nobody can ask any more.
    pub(super) fn run(mut self, asked: &Receiver<()>) {
        let mut look_again = false;
        loop {
            let next = if look_again {
                asked.recv_timeout(LAST_LOOK)
            } else {
                asked.recv().map_err(|_| RecvTimeoutError::Disconnected)
            };
            look_again = match next {
                Ok(()) => true,
                Err(RecvTimeoutError::Timeout) => false,
                Err(RecvTimeoutError::Disconnected) => return,
            };
            while asked.try_recv().is_ok() {}
            let began = Instant::now();
            if look_again {
                // Programs that read the old tables have ended then.
                self.readers.wait();
            }
            self.everywhere();
            std::thread::sleep(LONGEST_PAUSE.min(began.elapsed() * (SHARE - 1)));
        }
    }

    /// Searches every namespace that may have something.
    fn everywhere(&mut self) {
        let began = Instant::now();
        let mut wanted = self.tracked.wanted(&self.tables);
        if wanted.is_done() {
            return;
        }
        let living = Living::new();
        let mut failure = None;
        let (mut visited, mut closed) = (0_u32, BTreeMap::<String, u32>::new());
        let walked = Walk::through(|namespace, path| {
            match self.inside(namespace, path, &mut wanted, &living, &mut closed) {
                Ok(looked) => visited += u32::from(looked),
                Err(error) => failure = Some(error),
            }
            if wanted.is_done() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        // A thread that stays keeps the namespace of a pod that is gone.
        if let Err(errno) = setns(&self.home, CloneFlags::CLONE_NEWNET) {
            failure = Some(Error::system("setns", "/proc/thread-self/ns/net")(errno.into()));
        }
        match (walked, failure) {
            (Ok(whole), None) => {
                if whole {
                    self.tracked.finish(&wanted);
                }
                self.told = None;
            }
            (Err(error), _) | (Ok(_), Some(error)) => self.tell(&error),
        }
        for (endpoint, sockets) in &closed {
            tracing::info!(endpoint, sockets, "closed connected UDP sockets: their endpoint is gone");
        }
        tracing::debug!(namespaces = visited, took = ?began.elapsed(), "looked for stale UDP sockets");
    }

    /// Searches one namespace, if it is wanted.
    fn inside(
        &mut self,
        namespace: &File,
        path: &Path,
        wanted: &mut Wanted,
        living: &Living,
        closed: &mut BTreeMap<String, u32>,
    ) -> Result<bool, Error> {
        setns(namespace, CloneFlags::CLONE_NEWNET)
            .map_err(|errno| Error::system("setns", path)(errno.into()))?;
        let mut diag = Diag::new()?;
        let cookie = netns_cookie_of_socket(&diag)?;
        if !wanted.meet(cookie) {
            return Ok(false);
        }
        for family in [libc::AF_INET, libc::AF_INET6] {
            for round in 1.. {
                let mut found = diag.connected(family, &self.sockets)?;
                found.retain(Found::is_translated);
                if !found.is_empty() {
                    self.tracked.enter(wanted, cookie);
                }
                found.retain(|socket| self.is_stale(socket, living));
                if found.is_empty() || round > ROUNDS {
                    break;
                }
                for socket in &found {
                    if diag.destroy(socket)? {
                        let endpoint = format!("{}:{}", socket.record.backend, socket.record.backend_port);
                        *closed.entry(endpoint).or_default() += 1;
                        let total = self.tables.totals.word(Total::ClosedSocket as u32, 0);
                        total.fetch_add(1, Ordering::Relaxed);
                    }
                }
            }
        }
        Ok(true)
    }

    fn is_stale(&self, socket: &Found, living: &Living) -> bool {
        verdict::is_stale(&self.tables, &socket.record, |service, address, port| {
            living.get_or_init(|| self.living()).contains(&(service, *address, port))
        })
    }

    fn living(&self) -> HashSet<(u32, Address, Port)> {
        let ids = 1..self.tables.states.len();
        let alive = ids.filter_map(|id| {
            let state = self.tables.states.load(id).filter(|state| verdict::is_alive(*state))?;
            self.tables.endpoints.load(state.slot).filter(|endpoint| endpoint.id == id)
        });
        alive.map(|endpoint| (endpoint.service, endpoint.address, endpoint.port)).collect()
    }

    fn tell(&mut self, error: &Error) {
        let message = error.to_string();
        if self.told.as_ref() != Some(&message) {
            tracing::warn!(
                %error,
                "connected UDP sockets of endpoints that are gone may stay: not every namespace could be searched"
            );
            self.told = Some(message);
        }
    }
}
