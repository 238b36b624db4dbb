//! Real connections from a client's network namespace (`--probe`).

use std::{
    fs::File,
    io,
    net::{SocketAddr, TcpStream},
    path::Path,
    time::{Duration, Instant},
};

use anyhow::Context as _;
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
pub(super) fn probe(namespace: &Path, addresses: &[SocketAddr]) -> anyhow::Result<Vec<Probe>> {
    let file = File::open(namespace).with_context(|| format!("cannot open {}", namespace.display()))?;
    std::thread::scope(|scope| {
        // It enters the namespace, and so do the threads that it begins.
        let inside = scope.spawn(|| {
            setns(&file, CloneFlags::CLONE_NEWNET)
                .with_context(|| format!("cannot enter {}", namespace.display()))?;
            let attempts: Vec<_> = addresses
                .iter()
                .take(MOST)
                .map(|address| {
                    std::thread::spawn({
                        let address = *address;
                        move || attempt(address)
                    })
                })
                .collect();
            Ok(attempts.into_iter().filter_map(|attempt| attempt.join().ok()).collect())
        });
        inside.join().unwrap_or_else(|_| anyhow::bail!("cannot enter {}", namespace.display()))
    })
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
