//! Real connections from a client's network namespace (`--probe`); and where one fails at a pod of this node, what that pod
//! itself gets.

use std::{
    collections::BTreeSet,
    fmt,
    fs::{self, File},
    io,
    net::{SocketAddr, TcpStream},
    path::Path,
    time::{Duration, Instant},
};

use nix::sched::{CloneFlags, setns};
use serde::Serialize;

use super::pod::Pods;
use crate::dataplane::listening_in;

/// How long each attempt may take. A first lost packet is sent again after a second.
const PATIENCE: Duration = Duration::from_millis(2_500);
/// How many addresses are tried at most: each has a thread.
const MOST: usize = 64;

/// What became of one connection.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Probe {
    pub(super) address: SocketAddr,
    /// Until the connection was established, or refused, or given up.
    microseconds: u64,
    /// Why there is none.
    pub(super) error: Option<String>,
    /// Where the cause is to be looked for, if it is known.
    hint: Option<String>,
}

impl fmt::Display for Probe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let took = Duration::from_micros(self.microseconds);
        match (&self.error, &self.hint) {
            (None, _) => write!(f, "connected after {took:?}"),
            (Some(error), None) => write!(f, "NOT connected: {error}, after {took:?}"),
            (Some(error), Some(hint)) => write!(f, "NOT connected: {error}, after {took:?}; {hint}"),
        }
    }
}

/// Connects to a frontend and to its candidates.
pub(super) fn probe(
    namespace: &Path,
    frontend: SocketAddr,
    candidates: &[SocketAddr],
    pods: &Pods<'_>,
) -> Result<Vec<Probe>, String> {
    let all: Vec<SocketAddr> =
        std::iter::once(frontend).chain(candidates.iter().copied()).take(MOST).collect();
    let mut probes = connect_from(namespace, &all)?;
    std::thread::scope(|scope| {
        for probe in probes.iter_mut().skip(1).filter(|probe| probe.error.is_some()) {
            scope.spawn(|| probe.hint = hint(probe.address, pods));
        }
    });
    Ok(probes)
}

/// What an endpoint that is a pod of this node says of itself.
fn hint(endpoint: SocketAddr, pods: &Pods<'_>) -> Option<String> {
    let place = pods.place(endpoint.ip())?;
    let itself = connect_from(&place, &[endpoint]).ok()?.pop()?;
    if itself.error.is_none() {
        return Some("the pod itself connects: a rule, a policy or a route in between".to_owned());
    }
    let listening = listening_in(&place)?;
    let reached = |at: &&SocketAddr| at.ip().is_unspecified() || at.ip().to_canonical() == endpoint.ip();
    let ports: BTreeSet<u16> = listening.iter().filter(reached).map(SocketAddr::port).collect();
    Some(if ports.contains(&endpoint.port()) {
        "the pod listens there, and does not reach itself: rules of its own, or a process that accepts nothing".to_owned()
    } else if ports.is_empty() {
        "the pod listens nowhere".to_owned()
    } else {
        let ports: Vec<String> = ports.iter().map(ToString::to_string).collect();
        format!("the pod listens at {}, not there", ports.join(", "))
    })
}

/// Connects to each of these addresses over TCP, at the same time, and closes the connections.
fn connect_from(namespace: &Path, addresses: &[SocketAddr]) -> Result<Vec<Probe>, String> {
    let place = namespace.display();
    let file = File::open(namespace).map_err(|error| format!("cannot open {place}: {error}"))?;
    std::thread::scope(|scope| {
        // It enters the namespace, and so do the threads that it begins.
        let inside = scope.spawn(|| {
            setns(&file, CloneFlags::CLONE_NEWNET)
                .map_err(|error| format!("cannot enter {place}: {error}"))?;
            let begin = |address: &SocketAddr| {
                let address = *address;
                std::thread::Builder::new().spawn(move || attempt(address))
            };
            let attempts = addresses.iter().map(begin).collect::<Result<Vec<_>, _>>();
            let attempts = attempts.map_err(|error| format!("cannot begin a thread: {error}"))?;
            Ok(attempts.into_iter().filter_map(|attempt| attempt.join().ok()).collect())
        });
        inside.join().unwrap_or_else(|_| Err(format!("cannot enter {place}")))
    })
}

/// Whether the socket programs at this cgroup see what this process does.
pub(super) fn is_below(cgroup_root: &Path) -> bool {
    // The root alone has no such file.
    if !cgroup_root.join("cgroup.events").exists() {
        return true;
    }
    let own = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let own = own.lines().find_map(|line| line.strip_prefix("0::/")).map(Path::new);
    own.is_some_and(|own| own.ancestors().any(|part| part != Path::new("") && cgroup_root.ends_with(part)))
}

fn attempt(address: SocketAddr) -> Probe {
    let began = Instant::now();
    let result = TcpStream::connect_timeout(&address, PATIENCE);
    let microseconds = u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX);
    Probe { address, microseconds, error: result.err().map(|error| why(&error)), hint: None }
}

fn why(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => "refused, nobody listens there or a rule rejects it".to_owned(),
        io::ErrorKind::TimedOut => "no answer".to_owned(),
        io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable => {
            "no route, or nobody has that address".to_owned()
        }
        _ => error.to_string(),
    }
}
