//! The thread that searches for stale sockets. It enters network namespaces, so it must do nothing else.

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

use aya::maps::{MapData, SkStorage};
use nix::sched::{CloneFlags, setns};
use proxy_common::{Address, NodeEvent, Port, Translation};

use super::{
    Suspects, holders,
    tracked::{Tracked, Wanted},
    verdict,
};
use crate::dataplane::{
    Error, Tables,
    node::{
        namespaces::Walk,
        netlink::{Diag, Found},
        system::netns_cookie_of_socket,
    },
    tables::grace::Readers,
};

/// A `connect()` that chose its endpoint before the change may have its peer only a while after its program
/// has ended: so long after each change there is another search.
const LAST_LOOK: Duration = Duration::from_secs(1);
/// Searches take at most one part in so many of the time, while changes come without end.
const SHARE: u32 = 10;
/// Longest pause between a change and its search.
const LONGEST_PAUSE: Duration = Duration::from_millis(400);
/// Everything that a search needs.
pub(super) struct Search {
    tables: Tables,
    sockets: SkStorage<MapData, Translation>,
    tracked: Tracked,
    readers: Readers,
    home: File,
    /// The last failure, logged once.
    told: Option<String>,
}

/// The existing endpoints, by Service, address and port: computed on first use.
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
                    // Programs that read the old tables have ended then.
                    self.readers.wait();
                    again.add(suspects);
                    self.everywhere(&again);
                }
                Err(RecvTimeoutError::Timeout) => self.everywhere(&std::mem::take(&mut again)),
                Err(RecvTimeoutError::Disconnected) => return,
            }
            std::thread::sleep(LONGEST_PAUSE.min(began.elapsed() * (SHARE - 1)));
        }
    }

    /// Searches every namespace that may have something.
    fn everywhere(&mut self, suspects: &Suspects) {
        let began = Instant::now();
        let mut wanted = self.tracked.wanted(&self.tables);
        if wanted.is_done() {
            return;
        }
        let mut failure = None;
        let mut namespaces = Vec::new();
        let walked = Walk::through(|namespace, path| {
            match look_into(namespace, path, suspects, &mut wanted) {
                Ok(Some(namespace)) => namespaces.push(namespace),
                Ok(None) => {}
                Err(error) => failure = Some(error),
            }
            if wanted.is_done() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        // A thread that stays keeps the namespace of a pod that is gone.
        if let Err(errno) = setns(&self.home, CloneFlags::CLONE_NEWNET) {
            failure = Some(Error::system("setns", "/proc/thread-self/ns/net")(errno.into()));
        }
        if let Err(error) = self.close(&mut namespaces, &mut wanted) {
            failure = Some(error);
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
        tracing::debug!(namespaces = namespaces.len(), took = ?began.elapsed(), "searched for stale UDP sockets");
    }

    /// Closes the stale sockets among the suspects of these namespaces.
    fn close(&mut self, namespaces: &mut [Namespace], wanted: &mut Wanted) -> Result<(), Error> {
        let all = namespaces.iter().flat_map(|namespace| namespace.suspects.iter().cloned()).collect();
        let records = holders::records(&self.sockets, all);
        let living = Living::new();
        let mut closed = BTreeMap::<String, u32>::new();
        for namespace in namespaces {
            for socket in &namespace.suspects {
                // Without a record, or connected elsewhere since, it was not translated.
                let (address, port) = socket.peer();
                let record = records.get(&socket.cookie()).filter(|record| record.is_to(&address, port));
                let Some(record) = record else { continue };
                self.tracked.enter(wanted, namespace.cookie);
                if self.is_stale(record, &living) && namespace.diag.destroy(socket)? {
                    *closed.entry(format!("{address}:{port}")).or_default() += 1;
                    let total = self.tables.totals.word(NodeEvent::ClosedSocket as u32, 0);
                    total.fetch_add(1, Ordering::Relaxed);
                }
            }
        }
        for (endpoint, sockets) in &closed {
            tracing::info!(endpoint, sockets, "closed connected UDP sockets whose endpoint is gone");
        }
        Ok(())
    }

    fn is_stale(&self, record: &Translation, living: &Living) -> bool {
        verdict::is_stale(&self.tables, record, |service, address, port| {
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
                "cannot search every network namespace: connected UDP sockets may keep endpoints that are gone"
            );
            self.told = Some(message);
        }
    }
}

/// A searched namespace.
struct Namespace {
    cookie: u64,
    diag: Diag,
    suspects: Vec<Found>,
}

/// Collects the suspects of one namespace, if it is wanted.
fn look_into(
    namespace: &File,
    path: &Path,
    suspects: &Suspects,
    wanted: &mut Wanted,
) -> Result<Option<Namespace>, Error> {
    setns(namespace, CloneFlags::CLONE_NEWNET).map_err(|errno| Error::system("setns", path)(errno.into()))?;
    let diag = Diag::new()?;
    let cookie = netns_cookie_of_socket(&diag)?;
    if !wanted.meet(cookie) {
        return Ok(None);
    }
    let mut found = diag.connected()?;
    found.retain(|socket| suspects.include(&socket.peer()));
    Ok(Some(Namespace { cookie, diag, suspects: found }))
}
