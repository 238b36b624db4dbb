//! Real connections from a client's network namespace (`--probe`).

use std::{
    fs::{self, File},
    io,
    net::{SocketAddr, TcpStream},
    path::Path,
    time::{Duration, Instant},
};

use nix::sched::{CloneFlags, setns};
use serde::Serialize;

/// How long each attempt may take. A first lost packet is sent again after a second.
const PATIENCE: Duration = Duration::from_millis(2_500);
/// How many addresses are tried at most: each has a thread.
pub(super) const MOST: usize = 64;

/// What became of one connection.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Probe {
    pub(super) address: SocketAddr,
    /// Until the connection was established, or refused, or given up.
    pub(super) microseconds: u64,
    /// Why there is none.
    pub(super) error: Option<String>,
}

/// Connects to each of these addresses over TCP, at the same time, and closes the connections.
pub(super) fn probe(namespace: &Path, addresses: &[SocketAddr]) -> Result<Vec<Probe>, String> {
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
            let attempts = addresses.iter().take(MOST).map(begin).collect::<Result<Vec<_>, _>>();
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
    Probe { address, microseconds, error: result.err().map(|error| why(&error)) }
}

fn why(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => "refused: nobody listens there, or it is rejected".to_owned(),
        io::ErrorKind::TimedOut => format!("no answer within {:.1} s", PATIENCE.as_secs_f64()),
        _ => error.to_string(),
    }
}
