//! What the socket programs must know of each network namespace, since a socket does not tell: the addresses of its
//! packets (CLIENTS), and whether it is to be passed by (BYPASSED).
//!
//! A thread searches the namespaces when mounts change (a container runtime mounts a new pod's namespace, and the file
//! system of each container before it starts), when a client was refused because its namespace was unknown, and
//! periodically. While nothing is wanted, nothing happens.
//!
//! | file | concept |
//! |---|---|
//! | `watch` | the thread: looks through the namespaces |
//! | `schedule` | when to look |
//! | `mounts` | whether anything was mounted |
//! | `clients` | CLIENTS |
//! | `bypass` | BYPASSED |

mod bypass;
mod clients;
mod mounts;
mod schedule;
mod watch;

use std::{
    collections::BTreeSet,
    sync::{
        Arc, Mutex, PoisonError,
        mpsc::{Sender, channel},
    },
    thread::JoinHandle,
    time::Duration,
};

use proxy_common::{Address, AddressBits};

pub use self::bypass::PassedNamespace;
use self::{bypass::Told, clients::Sought, watch::Watch};
use crate::{
    dataplane::{Error, Options, SharedTables},
    plan::{AllowedClients, Changes, PodWishes, ServicePlan},
};

/// Longest wait for the first search: before the first restricted LoadBalancer IP is installed, or when programs are
/// attached.
const FIRST_LOOK: Duration = Duration::from_secs(1);

/// An address of a Service in each family, IPv4 first; `None` where there is none.
type Vips = [Option<Address>; 2];

/// What to search for.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
struct Wanted {
    /// The addresses of packets to restricted LoadBalancer IPs, while there are any.
    clients: Option<Sought>,
    passed_by: PassBy,
}

/// Whom to pass by.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
enum PassBy {
    /// Whom an earlier agent passed by: there are no programs of this one yet.
    #[default]
    AsBefore,
    /// Nobody.
    Nobody,
    /// Those to which these rules apply.
    Those(Rules),
}

/// Which namespaces are passed by.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
struct Rules {
    /// Whether also those that only look like it.
    detects: bool,
    /// Services' addresses, to which a namespace may have routes.
    services: Vips,
    /// What Pods say; nothing as long as it is not known of all of them.
    pods: Option<Arc<PodWishes>>,
}

impl Wanted {
    const fn is_nothing(&self) -> bool {
        self.clients.is_none() && !matches!(self.passed_by, PassBy::Those(_))
    }
}

/// A message to the thread.
#[derive(Debug)]
struct Order {
    wanted: Wanted,
    /// To be notified after the search.
    done: Option<Sender<()>>,
}

/// The thread that maintains CLIENTS and BYPASSED, and the last message to it.
#[derive(Debug)]
pub(super) struct Namespaces {
    /// `None` only while dropping: the thread ends when the sender is gone.
    orders: Option<Sender<Order>>,
    options: Options,
    services: Services,
    pods: Option<Arc<PodWishes>>,
    told: Wanted,
    /// Whether it has had a message: the maps may hold what an earlier agent left.
    began: bool,
    problem: Arc<Mutex<Option<String>>>,
    passed_by: Told,
    thread: Option<JoinHandle<()>>,
}

impl Namespaces {
    pub(super) fn start(options: &Options, tables: &SharedTables) -> Result<Self, Error> {
        let (problem, passed_by) = (Arc::default(), Told::default());
        let watch =
            Watch::new(&options.pin_dir, &tables.now(), Arc::clone(&problem), Arc::clone(&passed_by))?;
        let (orders, received) = channel();
        let thread = std::thread::Builder::new()
            .name("namespaces".to_owned())
            .spawn(move || watch.run(&received))
            .map_err(Error::system("starting a thread", "namespaces"))?;
        let (told, thread) = (Wanted::default(), Some(thread));
        Ok(Self {
            orders: Some(orders),
            options: options.clone(),
            services: Services::default(),
            pods: None,
            told,
            began: false,
            problem,
            passed_by,
            thread,
        })
    }

    /// Call it before `changes` are installed. If they contain the first restricted LoadBalancer IP, it waits for a
    /// search, so that no client is refused as unknown.
    pub(super) fn expect(&mut self, changes: &Changes, nodes: &BTreeSet<Address>) {
        self.services.follow(changes);
        if let Some(pods) = &changes.pods {
            self.pods = Some(Arc::new(pods.clone()));
        }
        if self.told.clients.is_some() {
            return;
        }
        if let Some(sought) = sought(changes, nodes) {
            self.tell_and_wait(Wanted { clients: Some(sought), passed_by: self.told.passed_by.clone() });
        }
    }

    /// Call it when the programs are attached, which it waits for, and when other devices of pods have some: who is to be
    /// passed by may be served now, at that device.
    pub(super) fn look(&mut self) {
        if !self.options.passes_by() {
            return;
        }
        let is_first = self.told.passed_by == PassBy::AsBefore;
        let wanted = Wanted { clients: self.told.clients.clone(), passed_by: PassBy::Those(self.rules()) };
        if is_first { self.tell_and_wait(wanted) } else { self.tell(wanted, None) }
    }

    /// Waits for the search.
    fn tell_and_wait(&mut self, wanted: Wanted) {
        let (done, looked) = channel();
        self.tell(wanted, Some(done));
        // May time out on a very busy machine; the refusal of an unknown client then starts another search.
        let _ = looked.recv_timeout(FIRST_LOOK);
    }

    /// Call it when changes are installed, with the restricted LoadBalancer IPs; never waits.
    pub(super) fn follow(&mut self, restricted: Vips, nodes: &BTreeSet<Address>) {
        let clients = (restricted != Vips::default())
            .then(|| Sought { vips: restricted, nodes: nodes.iter().copied().collect() });
        let passed_by = match self.told.passed_by {
            PassBy::Those(_) => PassBy::Those(self.rules()),
            PassBy::AsBefore if !self.options.passes_by() => PassBy::Nobody,
            PassBy::AsBefore => PassBy::AsBefore,
            PassBy::Nobody => PassBy::Nobody,
        };
        let wanted = Wanted { clients, passed_by };
        if !self.began || self.told != wanted {
            self.tell(wanted, None);
        }
    }

    fn rules(&self) -> Rules {
        Rules {
            detects: self.options.sockets.detects_bypass,
            services: self.services.lowest(),
            pods: self.pods.clone(),
        }
    }

    fn tell(&mut self, wanted: Wanted, done: Option<Sender<()>>) {
        if let Some(orders) = &self.orders {
            // The thread ends only with us.
            let _ = orders.send(Order { wanted: wanted.clone(), done });
        }
        self.told = wanted;
        self.began = true;
    }

    /// What keeps clients, or those to be passed by, from being found.
    pub(super) fn problem(&self) -> Option<String> {
        self.problem.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whom the socket programs pass by.
    pub(super) fn passed_by(&self) -> Vec<PassedNamespace> {
        self.passed_by.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// The lowest ClusterIPs of each family: that of the API server, which stays, is the first of its range.
#[derive(Default, Debug)]
struct Services([BTreeSet<Address>; 2]);

impl Services {
    /// So many, as others than the API server's may go.
    const KEPT: usize = 16;

    fn follow(&mut self, changes: &Changes) {
        for (address, bits) in &changes.addresses {
            let Self([v4, v6]) = self;
            let of_family = if address.is_v4() { v4 } else { v6 };
            if !bits.has(AddressBits::CLUSTER_IP) {
                of_family.remove(address);
            } else if of_family.insert(*address) && of_family.len() > Self::KEPT {
                of_family.pop_last();
            }
        }
    }

    fn lowest(&self) -> Vips {
        self.0.each_ref().map(|of_family| of_family.first().copied())
    }
}

/// What to search for, if the changes have the first restricted LoadBalancer IP.
fn sought(changes: &Changes, nodes: &BTreeSet<Address>) -> Option<Sought> {
    let restricted = changes.install.iter().filter(|plan| plan.allowed_clients != AllowedClients::Everyone);
    let vips: Vec<Address> = restricted.flat_map(ServicePlan::load_balancer_ips).collect();
    if vips.is_empty() {
        return None;
    }
    let new = changes.addresses.iter().filter(|(_, bits)| bits.has(AddressBits::NODE));
    let nodes: BTreeSet<Address> = new.map(|(address, _)| *address).chain(nodes.iter().copied()).collect();
    let first = |v4| vips.iter().filter(|vip| vip.is_v4() == v4).min().copied();
    Some(Sought { vips: [first(true), first(false)], nodes: nodes.into_iter().collect() })
}

impl Drop for Namespaces {
    fn drop(&mut self) {
        self.orders = None;
        if let Some(thread) = self.thread.take() {
            // The thread ends within one search.
            let _ = thread.join();
        }
    }
}
