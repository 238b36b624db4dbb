//! Endpoints whose addresses identify their Service, and one server behind all of them.
//!
//! The Service with number `s` owns 10.250.`s`.0/24 and nothing else. All of these addresses are local to one pod, in
//! which the clients run, too; the server answers each TCP connection with its local address. For a UDP socket the
//! routing table identifies the Service: connecting to an endpoint of it selects 10.251.`s`.1 as the source address,
//! and no packet has to be sent.

use std::{
    fmt::Write as _,
    io::Write as _,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use anyhow::Result;
use sidestep_tests::Place;
use socket2::SockRef;

/// The port of every endpoint.
pub(crate) const PORT: u16 = 8080;
/// Permanent Services, `10.97.0.<number>`.
pub(crate) const STEADY: u8 = 64;
/// Services that come and go, `10.98.0.<number>`.
pub(crate) const FLEETING: u8 = 16;
/// An address that moves between two Services and always belongs to one of them, `10.99.0.1`.
pub(crate) const MOVING: [u8; 2] = [200, 201];
/// A Service whose source ranges change and never contain the clients, `10.100.0.1`.
pub(crate) const CLOSED: u8 = 202;

/// The addresses that clients use.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Vip {
    /// Of a permanent Service.
    Steady(u8),
    /// Of a Service that comes and goes.
    Fleeting(u8),
    /// The address that moves.
    Moving,
    /// An address that the clients may not use.
    Closed,
}

impl Vip {
    /// The address.
    pub(crate) const fn address(self) -> Ipv4Addr {
        match self {
            Self::Steady(number) => Ipv4Addr::new(10, 97, 0, number + 1),
            Self::Fleeting(number) => Ipv4Addr::new(10, 98, 0, number + 1),
            Self::Moving => Ipv4Addr::new(10, 99, 0, 1),
            Self::Closed => Ipv4Addr::new(10, 100, 0, 1),
        }
    }

    /// The numbers of the Services that it may belong to.
    pub(crate) const fn owners(self) -> [u8; 2] {
        match self {
            Self::Steady(number) => [number; 2],
            Self::Fleeting(number) => [STEADY + number; 2],
            Self::Moving => MOVING,
            Self::Closed => [CLOSED; 2],
        }
    }
}

/// Endpoint `number` of a Service.
pub(crate) const fn endpoint(service: u8, number: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 250, service, number)
}

/// The local address of a UDP socket that is connected to an endpoint of this Service.
pub(crate) const fn source(service: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 251, service, 1)
}

/// The server behind every endpoint; ends on drop.
#[derive(Debug)]
pub(crate) struct Server {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// Makes all endpoints local to `pod` and serves them.
    pub(crate) fn start(pod: &Place) -> Result<Self> {
        let mut routes = "route add local 10.251.0.0/16 dev lo\n".to_owned();
        for service in 0..=u8::MAX {
            writeln!(routes, "route add local 10.250.{service}.0/24 dev lo src {}", source(service))?;
        }
        pod.namespace().ip_batch(&routes)?;
        let listener = pod.run(|| TcpListener::bind((Ipv4Addr::UNSPECIFIED, PORT)))?;
        SockRef::from(&listener).set_read_timeout(Some(Duration::from_millis(20)))?;
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                let Ok((mut stream, _)) = listener.accept() else { continue };
                if let Ok(SocketAddr::V4(local)) = stream.local_addr() {
                    // A client that closed early counts its own failure.
                    let _ = stream.write_all(&local.ip().octets());
                }
            }
        });
        Ok(Self { stop, thread: Some(thread) })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
