//! CLIENTS: the addresses of each network namespace, against which the socket programs check a LoadBalancer IP's
//! source ranges (ST-1, ST-8).
//!
//! At `connect()` a socket usually has no address yet. Its source address depends on its network namespace alone, so
//! this thread finds it beforehand: a pod's address, or the node's for the node's own processes. (If the process has
//! bound the socket to an address, the program checks that one.)
//!
//! While no Service has source ranges, nothing happens. Otherwise the thread searches the namespaces again when
//! mounts change (a container runtime mounts a new pod's namespace), when a client was refused because its namespace
//! was unknown, and periodically.
//!
//! | file | concept |
//! |---|---|
//! | `watch` | the thread: looks through the namespaces and keeps CLIENTS |
//! | `schedule` | when to look |
//! | `mounts` | whether anything was mounted |
//! | `addresses` | which addresses a namespace's packets have |

mod addresses;
mod mounts;
mod schedule;
mod watch;

use std::{
    collections::BTreeSet,
    path::Path,
    sync::{
        Arc, Mutex, PoisonError,
        mpsc::{Sender, channel},
    },
    thread::JoinHandle,
    time::Duration,
};

use proxy_common::{Address, AddressBits};

use self::watch::Watch;
use crate::{
    dataplane::{Error, SharedTables},
    plan::{AllowedClients, Changes, ServicePlan},
};

/// Longest wait for the first search, before the first restricted LoadBalancer IP is installed.
const FIRST_LOOK: Duration = Duration::from_secs(1);

/// A restricted LoadBalancer IP of each family, IPv4 first; `None` where there is none.
type Vips = [Option<Address>; 2];

/// What selects one of a namespace's addresses.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
struct Sought {
    vips: Vips,
    /// Addresses that are the node's.
    nodes: Vec<Address>,
}

/// A message to the thread.
#[derive(Debug)]
struct Order {
    /// Nothing while no LoadBalancer IP is restricted.
    sought: Option<Sought>,
    /// To be notified after the search.
    done: Option<Sender<()>>,
}

/// The thread that maintains CLIENTS, and the last message to it.
#[derive(Debug)]
pub(super) struct Clients {
    /// `None` only while dropping: the thread ends when the sender is gone.
    orders: Option<Sender<Order>>,
    told: Option<Sought>,
    /// Whether it has had a message: CLIENTS may hold what an earlier agent left.
    began: bool,
    problem: Arc<Mutex<Option<String>>>,
    thread: Option<JoinHandle<()>>,
}

impl Clients {
    pub(super) fn start(pin_dir: &Path, tables: &SharedTables) -> Result<Self, Error> {
        let problem = Arc::default();
        let watch = Watch::new(pin_dir, &tables.now(), Arc::clone(&problem))?;
        let (orders, received) = channel();
        let thread = std::thread::Builder::new()
            .name("clients".to_owned())
            .spawn(move || watch.run(&received))
            .map_err(Error::system("starting a thread", "clients"))?;
        Ok(Self { orders: Some(orders), told: None, began: false, problem, thread: Some(thread) })
    }

    /// Call it before `changes` are installed. If they contain the first restricted LoadBalancer IP, it waits for a
    /// search, so that no client is refused as unknown.
    pub(super) fn expect(&mut self, changes: &Changes, nodes: &BTreeSet<Address>) {
        if self.told.is_some() {
            return;
        }
        let restricted =
            changes.install.iter().filter(|plan| plan.allowed_clients != AllowedClients::Everyone);
        let vips: Vec<Address> = restricted.flat_map(ServicePlan::load_balancer_ips).collect();
        if vips.is_empty() {
            return;
        }
        let new = changes.addresses.iter().filter(|(_, bits)| bits.has(AddressBits::NODE));
        let nodes: BTreeSet<Address> =
            new.map(|(address, _)| *address).chain(nodes.iter().copied()).collect();
        let first = |v4| vips.iter().filter(|vip| vip.is_v4() == v4).min().copied();
        let (done, looked) = channel();
        let vips = [first(true), first(false)];
        self.tell(Some(Sought { vips, nodes: nodes.into_iter().collect() }), Some(done));
        // May time out on a very busy machine; the refusal of an unknown client then starts another search.
        let _ = looked.recv_timeout(FIRST_LOOK);
    }

    /// Call it when changes are installed, with the installed Services; never waits.
    pub(super) fn follow(&mut self, vips: Vips, nodes: &BTreeSet<Address>) {
        let sought =
            (vips != Vips::default()).then(|| Sought { vips, nodes: nodes.iter().copied().collect() });
        if !self.began || self.told != sought {
            self.tell(sought, None);
        }
    }

    fn tell(&mut self, sought: Option<Sought>, done: Option<Sender<()>>) {
        if let Some(orders) = &self.orders {
            // The thread ends only with us.
            let _ = orders.send(Order { sought: sought.clone(), done });
        }
        self.told = sought;
        self.began = true;
    }

    /// What keeps clients from being found.
    pub(super) fn problem(&self) -> Option<String> {
        self.problem.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for Clients {
    fn drop(&mut self) {
        self.orders = None;
        if let Some(thread) = self.thread.take() {
            // The thread ends within one search.
            let _ = thread.join();
        }
    }
}
