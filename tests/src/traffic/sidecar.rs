//! A sidecar, as Istio's and Linkerd's: netfilter redirects a pod's connections to it, and it asks the kernel where they
//! were to go.

use std::{
    io::{self, BufRead as _, BufReader, Write as _},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use anyhow::{Context as _, Result};
use nix::sys::socket::{getsockopt, sockopt};

use crate::place::Place;

/// Longest wait for a request of a connection.
const PATIENCE: Duration = Duration::from_secs(5);

/// A sidecar at work. Dropping it ends it.
#[derive(Debug)]
pub struct Sidecar {
    ends: Arc<AtomicBool>,
    address: SocketAddr,
    place: Place,
    thread: Option<JoinHandle<()>>,
}

impl Sidecar {
    /// Takes connections at `port` of a pod. It answers each line with the connection's original destination.
    pub fn start(place: &Place, port: u16) -> Result<Self> {
        let listener =
            place.run(|| TcpListener::bind((Ipv6Addr::UNSPECIFIED, port))).context("a sidecar's port")?;
        let ends = Arc::new(AtomicBool::new(false));
        let thread = std::thread::spawn({
            let ends = Arc::clone(&ends);
            move || {
                for stream in listener.incoming().flatten() {
                    if ends.load(Ordering::Relaxed) {
                        return;
                    }
                    // A client that is gone is nobody's fault.
                    let _ = answer(&stream);
                }
            }
        });
        let address = (Ipv4Addr::LOCALHOST, port).into();
        Ok(Self { ends, address, place: place.clone(), thread: Some(thread) })
    }

    /// Asks for `address`, and returns the destination that a sidecar saw.
    pub fn seen(address: SocketAddr) -> io::Result<SocketAddr> {
        let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.write_all(b"where to?\n")?;
        let mut line = String::new();
        BufReader::new(stream).read_line(&mut line)?;
        line.trim().parse().map_err(|_| io::Error::other(format!("no sidecar answered: {line:?}")))
    }
}

fn answer(stream: &TcpStream) -> io::Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line)?;
    // The kernel knows a v4-mapped connection by its IPv4 addresses.
    let is_v4 = stream.local_addr()?.ip().to_canonical().is_ipv4();
    let original = if is_v4 {
        let found = getsockopt(stream, sockopt::OriginalDst)?;
        let ip = Ipv4Addr::from(u32::from_be(found.sin_addr.s_addr));
        SocketAddr::new(ip.into(), u16::from_be(found.sin_port))
    } else {
        let found = getsockopt(stream, sockopt::Ip6tOriginalDst)?;
        let ip = IpAddr::from(found.sin6_addr.s6_addr);
        SocketAddr::new(ip, u16::from_be(found.sin6_port))
    };
    let mut stream = stream;
    writeln!(stream, "{original}")
}

impl Drop for Sidecar {
    fn drop(&mut self) {
        self.ends.store(true, Ordering::Relaxed);
        // It waits in accept().
        let _ = self.place.run(|| TcpStream::connect(self.address));
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
