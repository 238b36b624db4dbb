//! Endpoints. A question is eight bytes, a number that no other connection or datagram has; the answer repeats it, and
//! tells which endpoint it comes from.
//!
//! A server reads one question, or more, from each connection; one whose lowest bit is set asks the server to end the
//! connection before the client does.

use std::{
    io,
    net::{IpAddr, Ipv6Addr, SocketAddr, UdpSocket},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use anyhow::{Context, Result};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::ledger::{Ledger, Promise};
use crate::{
    cluster::{DNS_PORT, HTTP_PORT},
    place::Place,
    traffic::canonical,
};

/// Bytes of a question and of its answer.
pub(super) const LENGTH: usize = 8;
/// Room for datagrams of floods, in bytes.
const ROOM: usize = 8 << 20;
/// How often a server looks whether it is to stop.
const TICK: Duration = Duration::from_millis(50);

/// What both servers of an endpoint know.
struct Endpoint {
    name: &'static str,
    elsewhere: bool,
    clients: Vec<IpAddr>,
    ledger: Arc<Ledger>,
    stop: Arc<AtomicBool>,
}

impl Endpoint {
    /// Notes a question; an endpoint on another node must not see the client itself.
    fn note(&self, client: SocketAddr, question: u64) {
        let client = canonical(client);
        if self.elsewhere && self.clients.contains(&client.ip()) {
            self.ledger.broke(Promise::Unmasqueraded, || format!("{client} at {}", self.name));
        }
        self.ledger.came(question, self.name);
    }
}

/// An endpoint's servers of TCP and UDP; they end on drop.
pub(super) struct Server {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
    place: Place,
}

impl Server {
    /// Starts them in a pod, which is on another node or not.
    pub(super) fn start(
        place: Place,
        elsewhere: bool,
        clients: &[IpAddr],
        ledger: &Arc<Ledger>,
    ) -> Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        // There are four of them in a process.
        let name: &'static str = place.name().to_owned().leak();
        let endpoint = Arc::new(Endpoint {
            name,
            elsewhere,
            clients: clients.to_vec(),
            ledger: Arc::clone(ledger),
            stop: Arc::clone(&stop),
        });
        let (listener, socket) = place.run(|| Ok::<_, io::Error>((listen()?, bind()?))).context(name)?;
        let (tcp, udp) = (Arc::clone(&endpoint), endpoint);
        let threads = vec![
            thread::Builder::new().name(format!("{name}-tcp")).spawn(move || serve_tcp(listener, &tcp))?,
            thread::Builder::new().name(format!("{name}-udp")).spawn(move || serve_udp(&socket, &udp))?,
        ];
        Ok(Self { stop, threads, place })
    }

    /// The pod.
    pub(super) const fn place(&self) -> &Place {
        &self.place
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

fn serve_tcp(listener: std::net::TcpListener, endpoint: &Arc<Endpoint>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build();
    let runtime = runtime.expect("a runtime");
    runtime.block_on(async {
        let listener = tokio::net::TcpListener::from_std(listener).expect("a listener");
        while !endpoint.stop.load(Ordering::Relaxed) {
            let Ok(Ok((stream, client))) = tokio::time::timeout(TICK, listener.accept()).await else {
                continue;
            };
            let endpoint = Arc::clone(endpoint);
            // A client that goes away in the middle is no matter of the server.
            tokio::spawn(async move { talk(stream, client, &endpoint).await });
        }
    });
}

async fn talk(mut stream: tokio::net::TcpStream, client: SocketAddr, endpoint: &Endpoint) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut question = [0; LENGTH];
    loop {
        match stream.read_exact(&mut question).await {
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return stream.shutdown().await,
            Err(error) => return Err(error),
        }
        let number = u64::from_be_bytes(question);
        endpoint.note(client, number);
        stream.write_all(&question).await?;
        if number & 1 == 1 {
            stream.shutdown().await?;
            // The client's own end, so that no reset follows.
            let _ = stream.read(&mut question).await;
            return Ok(());
        }
    }
}

fn serve_udp(socket: &UdpSocket, endpoint: &Endpoint) {
    let mut buffer = [0; 64];
    while !endpoint.stop.load(Ordering::Relaxed) {
        let Ok((length, client)) = socket.recv_from(&mut buffer) else { continue };
        if let Ok(question) = buffer[..length].try_into() {
            endpoint.note(client, u64::from_be_bytes(question));
            let _ = socket.send_to(&question, client);
        }
    }
}

fn listen() -> io::Result<std::net::TcpListener> {
    let socket = Socket::new(Domain::IPV6, Type::STREAM, Some(Protocol::TCP))?;
    socket.set_only_v6(false)?;
    socket.set_reuse_address(true)?;
    socket.bind(&SocketAddr::from((Ipv6Addr::UNSPECIFIED, HTTP_PORT)).into())?;
    socket.listen(4096)?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

fn bind() -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::IPV6, Type::DGRAM, Some(Protocol::UDP))?;
    socket.set_only_v6(false)?;
    crate::sockets::set_option(
        &socket,
        libc::SOL_SOCKET,
        libc::SO_RCVBUFFORCE,
        ROOM.try_into().map_err(io::Error::other)?,
    )?;
    socket.set_read_timeout(Some(TICK))?;
    socket.bind(&SocketAddr::from((Ipv6Addr::UNSPECIFIED, DNS_PORT)).into())?;
    Ok(socket.into())
}
