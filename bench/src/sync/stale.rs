//! `bench stale`: the time from the replacement of an endpoint until every connected UDP socket that had it is connected to
//! the new one.
//!
//! The agent is the real one. Its clients are sockets of this process in many network namespaces; the kernel's own tables
//! say whom they are connected to.

use std::{
    collections::BTreeSet,
    net::{Ipv4Addr, SocketAddr, SocketAddrV4, UdpSocket},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use nix::sys::resource::{Resource, setrlimit};
use sidestep_tests::{
    Agent, Lab,
    cluster::{self, DNS_PORT},
    manifest::Node,
    namespace::Namespace,
    sockets::udp_peers,
};

use super::{milliseconds, section, usage::processor_time};
use crate::{
    goals::Goal, interrupt, machine::Machine, options::Options, progress::Progress, report::Report,
    statistics::Summary,
};

/// Network namespaces with clients.
const NAMESPACES: u32 = 300;
/// The same, if there is little time.
const QUICK_NAMESPACES: u32 = 60;
/// Sockets in each.
const SOCKETS: usize = 50;
/// Replacements of the endpoint that are measured, after one that is not.
const REPLACEMENTS: usize = 15;
/// The same, if there is little time.
const QUICK_REPLACEMENTS: usize = 5;
const SERVICE: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(10, 96, 0, 53), 53);
/// In turns the only endpoint. Nobody is there: what counts is whom a socket is connected to.
const ENDPOINTS: [[u8; 4]; 2] = [[10, 244, 9, 1], [10, 244, 9, 2]];
/// Longest wait for all sockets.
const PATIENCE: Duration = Duration::from_secs(30);
/// The agent searches once more a second after a change: the next one comes when that is over.
const SETTLED: Duration = Duration::from_millis(1500);
/// Milliseconds that closing them all took before they were connected again.
const WANTED: f64 = 1840.0;

/// Runs the benchmark.
pub(crate) fn run(options: &Options) -> Result<Report> {
    let (namespaces, replacements) =
        if options.quick { (QUICK_NAMESPACES, QUICK_REPLACEMENTS) } else { (NAMESPACES, REPLACEMENTS) };
    let machine = Machine::find();
    let mut progress = Progress::new();
    progress.stage("making the clients");
    let descriptors = u64::from(namespaces) * SOCKETS as u64 + 1024;
    setrlimit(Resource::RLIMIT_NOFILE, descriptors, descriptors).context("RLIMIT_NOFILE")?;
    let lab = Lab::new()?;
    lab.manifests().write("node.yaml", &[&Node::lab()])?;
    let service = cluster::service("dns", &[&SERVICE.ip().to_string()]);
    lab.manifests().write("dns.yaml", &[&service])?;
    replace(&lab, ENDPOINTS[0])?;
    let agent = lab.agent()?;
    let clients = (0..namespaces)
        .map(|number| {
            interrupt::check()?;
            Clients::new(&lab, number)
        })
        .collect::<Result<Vec<Clients>>>()?;
    let sockets = clients.len() * SOCKETS;

    let (mut times, mut processor) = (Vec::new(), Vec::new());
    for (number, endpoint) in (0..=replacements).zip(ENDPOINTS.into_iter().cycle().skip(1)) {
        interrupt::check()?;
        progress.stage(format!("replacement {number} of {replacements}"));
        thread::sleep(SETTLED);
        let (time, used) = once(&lab, &agent, &clients, endpoint)?;
        if number > 0 {
            times.push(time);
            processor.push(used);
        }
    }
    let goal = Goal::at_most(
        format!("ms until {sockets} sockets are connected to the new endpoint"),
        Summary::of(&times),
        WANTED,
    );
    let measured = section(
        format!("{sockets} stale sockets in {namespaces} network namespaces"),
        "ms",
        [
            ("until all are connected to the new endpoint", times),
            ("… processor time of the agent until then", processor),
        ],
    );
    progress.stage("cleaning up");
    drop(clients);
    let seconds = progress.seconds();
    Ok(Report {
        benchmark: "stale",
        machine,
        method: method(replacements),
        sections: vec![measured],
        tables: Vec::new(),
        notes: Vec::new(),
        goals: vec![goal],
        seconds,
    })
}

/// The sockets of one network namespace, connected to the Service.
struct Clients {
    namespace: Namespace,
    _sockets: Vec<UdpSocket>,
}

impl Clients {
    fn new(lab: &Lab, number: u32) -> Result<Self> {
        let namespace = Namespace::new(format!("{}-clients-{number}", lab.name()))?;
        // A route is all that a UDP socket needs to be connected.
        namespace.ip_batch("link set lo up\naddr add 10.244.8.1/32 dev lo\nroute add 10.0.0.0/8 dev lo\n")?;
        let root = lab.root();
        let sockets = namespace.run(|| -> Result<Vec<UdpSocket>> {
            root.enter()?;
            (0..SOCKETS)
                .map(|_| {
                    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
                    socket.connect(SERVICE)?;
                    Ok(socket)
                })
                .collect()
        })??;
        Ok(Self { namespace, _sockets: sockets })
    }

    /// Whether all are connected to this endpoint. The calling thread enters the network namespace.
    fn are_at(&self, endpoint: SocketAddr) -> Result<bool> {
        self.namespace.enter()?;
        let peers = udp_peers()?;
        ensure!(peers.len() == SOCKETS, "{} of {SOCKETS} sockets are left", peers.len());
        Ok(peers.iter().all(|(_, peer)| *peer == endpoint))
    }
}

/// Milliseconds until all sockets are at this endpoint, and of the agent's processor time until then.
fn once(lab: &Lab, agent: &Agent, clients: &[Clients], endpoint: [u8; 4]) -> Result<(f64, f64)> {
    let pid = agent.pid().context("the agent runs")?;
    thread::scope(|scope| {
        // It enters one namespace after the other.
        let work = scope.spawn(|| {
            let used = processor_time(pid)?;
            replace(lab, endpoint)?;
            let began = Instant::now();
            let mut waiting: BTreeSet<usize> = (0..clients.len()).collect();
            while let Some(&next) = waiting.first() {
                if clients[next].are_at((endpoint, DNS_PORT).into())? {
                    waiting.remove(&next);
                } else {
                    ensure!(
                        began.elapsed() < PATIENCE,
                        "{} namespaces wait after {PATIENCE:?}",
                        waiting.len()
                    );
                    thread::sleep(Duration::from_millis(1));
                }
            }
            let time = milliseconds(began.elapsed());
            Ok((time, milliseconds(processor_time(pid)?.saturating_sub(used))))
        });
        work.join().map_err(|_| anyhow::anyhow!("the measuring thread panicked"))?
    })
}

/// Makes this the only endpoint.
fn replace(lab: &Lab, endpoint: [u8; 4]) -> Result<()> {
    lab.manifests().write("dns-endpoints.yaml", &[&cluster::slice("dns").ready(endpoint)])
}

fn method(replacements: usize) -> Vec<String> {
    vec![
        format!(
            "The agent's release binary follows a directory of manifests; {replacements} replacements of the one endpoint of a \
             Service, after one that is not counted. All sockets belong to one process."
        ),
        "From the write of the EndpointSlice until /proc/net/udp of every network namespace shows all sockets connected to the \
         new endpoint, one namespace read after the other."
            .to_owned(),
    ]
}
