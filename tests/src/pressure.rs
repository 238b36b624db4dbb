//! Clients that connect repeatedly, and count failures.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use crate::{
    place::Place,
    traffic::{Asker, ask},
};

/// How many failures are kept as text; all are counted.
const KEPT: usize = 20;

/// One request.
type Client = dyn Fn() -> std::io::Result<()> + Send;

/// Clients in a place that run until they are stopped.
#[derive(Debug)]
pub struct Pressure {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Shared {
    stop: AtomicBool,
    requests: AtomicU64,
    failed: AtomicU64,
    /// The longest request, in microseconds.
    longest: AtomicU64,
    failures: Mutex<Vec<String>>,
}

/// The result.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Requests made.
    pub requests: u64,
    /// Requests that failed.
    pub failed: u64,
    /// The longest request.
    pub longest: Duration,
    /// The first few failures.
    pub failures: Vec<String>,
}

impl Pressure {
    /// Starts one client with a new TCP connection to `tcp` for each request, and one with a new UDP socket to `udp`
    /// for each request.
    pub fn start(place: &Place, tcp: SocketAddr, udp: SocketAddr) -> Self {
        Self::paced(place, tcp, udp, Duration::ZERO)
    }

    /// The same with a pause after each request.
    pub fn paced(place: &Place, tcp: SocketAddr, udp: SocketAddr, pause: Duration) -> Self {
        let shared = Arc::new(Shared::default());
        let clients: [(String, Box<Client>); 2] = [
            (format!("TCP to {tcp}"), Box::new(move || ask(tcp).map(drop))),
            (format!("UDP to {udp}"), Box::new(move || Asker::for_address(udp)?.ask(udp).map(drop))),
        ];
        let threads = clients.map(|(name, client)| {
            let (shared, place) = (Arc::clone(&shared), place.clone());
            thread::spawn(move || {
                place.enter().expect("the thread enters its place");
                shared.run(&name, client.as_ref(), pause);
            })
        });
        Self { shared, threads: threads.into() }
    }

    /// Requests made so far.
    pub fn requests(&self) -> u64 {
        self.shared.requests.load(Ordering::Relaxed)
    }

    /// Waits until the clients have made this many more requests, successful or not.
    pub fn let_pass(&self, requests: u64) {
        let goal = self.requests() + requests;
        crate::eventually("clients make requests", || self.requests() >= goal);
    }

    /// Stops the clients and returns the result.
    pub fn stop(mut self) -> Outcome {
        self.end();
        Outcome {
            requests: self.requests(),
            failed: self.shared.failed.load(Ordering::Relaxed),
            longest: Duration::from_micros(self.shared.longest.load(Ordering::Relaxed)),
            failures: self.shared.failures.lock().expect("no panic while locked").clone(),
        }
    }

    fn end(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

impl Drop for Pressure {
    fn drop(&mut self) {
        self.end();
    }
}

impl Shared {
    fn run(&self, name: &str, client: &Client, pause: Duration) {
        while !self.stop.load(Ordering::Relaxed) {
            if !pause.is_zero() {
                thread::sleep(pause);
            }
            let began = Instant::now();
            let result = client();
            let took = u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX);
            self.longest.fetch_max(took, Ordering::Relaxed);
            let number = self.requests.fetch_add(1, Ordering::Relaxed);
            if let Err(error) = result {
                self.failed.fetch_add(1, Ordering::Relaxed);
                let mut failures = self.failures.lock().expect("no panic while locked");
                if failures.len() < KEPT {
                    failures.push(format!("request {number}, {name}: {error}"));
                }
            }
        }
    }
}

impl Outcome {
    /// Panics if there were no requests, or if one failed.
    pub fn assert_flawless(&self) {
        assert!(self.requests > 0, "no request was made");
        assert!(
            self.failed == 0,
            "{} of {} requests failed: {:#?}",
            self.failed,
            self.requests,
            self.failures
        );
    }
}
