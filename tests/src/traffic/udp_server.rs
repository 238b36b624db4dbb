//! A UDP server in a pod.

use std::{
    net::{Ipv6Addr, SocketAddr, UdpSocket},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use anyhow::{Context, Result};
use socket2::{Domain, Protocol, Socket, Type};

use super::canonical;
use crate::place::Place;

/// The longest datagram.
const LONGEST: usize = 1 << 16;

/// A UDP server for both families; stops on drop. It answers with its name, the client, its own address, and the
/// request, as a resolver repeats the question.
#[derive(Debug)]
pub struct UdpServer {
    stop: Arc<AtomicBool>,
    requests: Arc<AtomicU64>,
    thread: Option<JoinHandle<()>>,
}

impl UdpServer {
    /// Starts a server on every address of a place.
    pub fn start(place: &Place, name: &str, port: u16) -> Result<Self> {
        Self::start_at(place, name, (Ipv6Addr::UNSPECIFIED, port).into())
    }

    /// Starts a server on one address of a place.
    pub fn start_at(place: &Place, name: &str, address: SocketAddr) -> Result<Self> {
        let called = name.to_owned();
        Self::answering(place, name, address, move |request, client, local| {
            let mut answer = format!("{called} {} {} ", canonical(client), canonical(local)).into_bytes();
            answer.extend_from_slice(request);
            Some(answer)
        })
    }

    /// Starts a server with these answers; the arguments are the request, the client and the server's address.
    pub(crate) fn answering(
        place: &Place,
        name: &str,
        address: SocketAddr,
        answer: impl Fn(&[u8], SocketAddr, SocketAddr) -> Option<Vec<u8>> + Send + 'static,
    ) -> Result<Self> {
        let socket = place
            .run(|| bind(address))
            .with_context(|| format!("cannot start the server {name} at {address}"))?;
        let local = socket.local_addr()?;
        let (stop, requests) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (stopped, counted) = (Arc::clone(&stop), Arc::clone(&requests));
        let thread = thread::Builder::new().name(name.to_owned()).spawn(move || {
            let mut request = vec![0; LONGEST];
            while !stopped.load(Ordering::Relaxed) {
                let Ok((length, client)) = socket.recv_from(&mut request) else { continue };
                counted.fetch_add(1, Ordering::Relaxed);
                if let Some(answer) = answer(&request[..length], client, local) {
                    // A client that is already gone is not an error of the server.
                    let _ = socket.send_to(&answer, client);
                }
            }
        })?;
        Ok(Self { stop, requests, thread: Some(thread) })
    }

    /// How many requests it has received.
    pub fn requests(&self) -> u64 {
        self.requests.load(Ordering::Relaxed)
    }

    /// Stops at once: UDP has no connections to wait for.
    pub fn stop(self) {}
}

impl Drop for UdpServer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn bind(address: SocketAddr) -> Result<UdpSocket> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
    if address.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    socket.set_read_timeout(Some(Duration::from_millis(20)))?;
    socket.bind(&address.into())?;
    Ok(socket.into())
}
