//! Endpoints. A question is a unique eight-byte number; the answer repeats it and names the endpoint.
//!
//! A server reads one or more questions from each connection; a question with its lowest bit set asks the server to
//! close the connection before the client does.

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

/// The length of a question, and of its answer, in bytes.
pub(super) const LENGTH: usize = 8;
/// The receive buffer, with room for floods, in bytes.
const ROOM: usize = 8 << 20;
/// How often a server checks whether to stop.
const TICK: Duration = Duration::from_millis(50);

/// The state that both servers of an endpoint share.
struct Endpoint {
    name: &'static str,
    elsewhere: bool,
    clients: Vec<IpAddr>,
    ledger: Arc<Ledger>,
    stop: Arc<AtomicBool>,
}

impl Endpoint {
    /// Records a question; an endpoint on another node must not see the client's address.
    fn note(&self, client: SocketAddr, question: u64) {
        let client = canonical(client);
        if self.elsewhere && self.clients.contains(&client.ip()) {
            self.ledger.broke(Promise::Unmasqueraded, || format!("{client} at {}", self.name));
        }
        self.ledger.came(question, self.name);
    }
}

/// An endpoint's TCP and UDP servers; they stop on drop.
pub(super) struct Server {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
    place: Place,
}

impl Server {
    /// Starts them in a pod on either node.
    pub(super) fn start(
        place: Place,
        elsewhere: bool,
        clients: &[IpAddr],
        ledger: &Arc<Ledger>,
    ) -> Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        // The process has four servers.
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
            // A client that disconnects early is not an error of the server.
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
            // Wait for the client's FIN, so that no reset follows.
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
