//! Real connections from a client's network namespace (`--probe`); and where one fails at a pod of this node, what that pod
//! itself gets.

use std::{
    collections::BTreeSet,
    fmt, fs, io,
    net::{IpAddr, SocketAddr, TcpStream},
    path::Path,
    time::{Duration, Instant},
};

use nix::sched::CloneFlags;
use serde::Serialize;

use crate::{
    commands::names::Pods,
    dataplane::{Error, in_namespace, listening_in},
};

/// How long each attempt may take. A first lost packet is sent again after a second.
const PATIENCE: Duration = Duration::from_millis(2_500);
/// How many addresses are tried at most: each has a thread.
const MOST: usize = 64;
/// Of how many pods that fail the network namespace is looked at.
const ASKED: usize = 8;

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
) -> Result<Vec<Probe>, Error> {
    let all: Vec<SocketAddr> =
        std::iter::once(frontend).chain(candidates.iter().copied()).take(MOST).collect();
    let mut probes = connect_from(namespace, &all)?;
    std::thread::scope(|scope| {
        for probe in probes.iter_mut().skip(1).filter(|probe| probe.error.is_some()).take(ASKED) {
            // Where there can be no thread, there is no hint.
            let _ =
                std::thread::Builder::new().spawn_scoped(scope, || probe.hint = hint(probe.address, pods));
        }
    });
    Ok(probes)
}

/// What an endpoint that is a pod of this node says of itself.
fn hint(endpoint: SocketAddr, pods: &Pods<'_>) -> Option<String> {
    let place = pods.place(endpoint.ip())?;
    let itself = connect_from(&place, &[endpoint]).ok()?.pop()?;
    if itself.error.is_none() {
        return Some("it connects to itself: a rule, a policy or a route in between".to_owned());
    }
    Some(where_it_listens(&listening_in(&place).ok()?, endpoint))
}

/// What the sockets that listen in a pod say of an endpoint that does not answer.
fn where_it_listens(listening: &[SocketAddr], endpoint: SocketAddr) -> String {
    // `::` is mostly for IPv4, too.
    let is_any = |ip: IpAddr| ip.is_unspecified() && (ip.is_ipv6() || endpoint.is_ipv4());
    let (there, others): (Vec<&SocketAddr>, Vec<&SocketAddr>) =
        listening.iter().partition(|at| is_any(at.ip()) || at.ip().to_canonical() == endpoint.ip());
    let is_port = |at: &&SocketAddr| at.port() == endpoint.port();
    let ports: BTreeSet<u16> = there.iter().map(|at| at.port()).collect();
    if there.iter().any(&is_port) {
        "it listens there, and does not reach itself: rules of its own, or a process that accepts nothing"
            .to_owned()
    } else if let Some(other) = others.into_iter().find(is_port) {
        format!("it listens at {other} alone")
    } else if ports.is_empty() {
        "nothing listens in its network namespace".to_owned()
    } else {
        let ports: Vec<String> = ports.iter().map(ToString::to_string).collect();
        format!("it listens at {}, not there", ports.join(", "))
    }
}

/// Connects to each of these addresses over TCP, at the same time, and closes the connections.
fn connect_from(namespace: &Path, addresses: &[SocketAddr]) -> Result<Vec<Probe>, Error> {
    in_namespace(namespace, CloneFlags::CLONE_NEWNET, || {
        let begin = |address: &SocketAddr| {
            let address = *address;
            let thread = std::thread::Builder::new().spawn(move || attempt(address));
            thread.map_err(|error| Error::thread("probe", error))
        };
        let attempts = addresses.iter().map(begin).collect::<Result<Vec<_>, _>>()?;
        Ok(attempts.into_iter().filter_map(|attempt| attempt.join().ok()).collect())
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
            "no route, nobody has that address, or a rule rejects it".to_owned()
        }
        _ => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_a_pod_listens_is_told() {
        let told = |endpoint: &str, listening: &[&str]| {
            let listening: Vec<SocketAddr> =
                listening.iter().map(|at| at.parse().expect("an address")).collect();
            where_it_listens(&listening, endpoint.parse().expect("an address"))
        };
        let (v4, v6) = ("10.244.1.7:8080", "[fd00::7]:8080");
        for (endpoint, listening) in
            [(v4, "0.0.0.0:8080"), (v4, "[::]:8080"), (v4, v4), (v6, "[::]:8080"), (v6, v6)]
        {
            assert!(told(endpoint, &[listening]).starts_with("it listens there"), "{endpoint} {listening}");
        }
        assert_eq!(told(v4, &["127.0.0.1:8080", "0.0.0.0:9090"]), "it listens at 127.0.0.1:8080 alone");
        assert_eq!(told(v6, &["0.0.0.0:8080"]), "it listens at 0.0.0.0:8080 alone");
        assert_eq!(told(v4, &["[::]:9090", "127.0.0.1:1"]), "it listens at 9090, not there");
        assert_eq!(told(v4, &["127.0.0.1:1"]), "nothing listens in its network namespace");
    }
}
