//! A TCP server in a pod.

use std::{
    fmt,
    io::{self, BufRead, BufReader, Write},
    net::{Ipv6Addr, Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use socket2::{Domain, Protocol, Socket, Type};

use super::canonical;
use crate::place::Place;

/// How many connections a server accepts at a time; further ones wait in its queue.
const LIMIT: usize = 1024;
/// How long a stopping server waits for its clients to disconnect.
const DRAIN: Duration = Duration::from_secs(2);
/// How often a server checks whether to stop.
const TICK: Duration = Duration::from_millis(20);

/// A TCP server for both families; stops on drop.
pub struct TcpServer {
    shared: Arc<Shared>,
    local: SocketAddr,
    accepting: Option<JoinHandle<()>>,
}

/// Serves one connection. An error ends it.
type Talk = Box<dyn Fn(&TcpStream) -> io::Result<()> + Send + Sync>;

struct Shared {
    talk: Talk,
    stop: AtomicBool,
    connections: AtomicU64,
    open: Mutex<Vec<TcpStream>>,
}

impl fmt::Debug for TcpServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TcpServer").field("local", &self.local).finish_non_exhaustive()
    }
}

impl TcpServer {
    /// Starts a server on every address of a place.
    pub fn start(place: &Place, name: &str, port: u16) -> Result<Self> {
        Self::start_at(place, name, (Ipv6Addr::UNSPECIFIED, port).into())
    }

    /// Starts a server on one address of a place.
    pub fn start_at(place: &Place, name: &str, address: SocketAddr) -> Result<Self> {
        let called = name.to_owned();
        Self::talking(place, name, address, Box::new(move |stream| introduce(&called, stream)))
    }

    /// Starts a server that serves each connection with `talk`.
    pub(crate) fn talking(place: &Place, name: &str, address: SocketAddr, talk: Talk) -> Result<Self> {
        let listener = place
            .run(|| listen(address))
            .with_context(|| format!("cannot start the server {name} at {address}"))?;
        let local = listener.local_addr()?;
        let shared = Arc::new(Shared {
            talk,
            stop: AtomicBool::new(false),
            connections: AtomicU64::new(0),
            open: Mutex::default(),
        });
        let accepting = Arc::clone(&shared);
        let accepting =
            thread::Builder::new().name(name.to_owned()).spawn(move || accepting.accept(&listener))?;
        Ok(Self { shared, local, accepting: Some(accepting) })
    }

    /// The address at which it listens.
    pub const fn local(&self) -> SocketAddr {
        self.local
    }

    /// How many connections it has accepted.
    pub fn connections(&self) -> u64 {
        self.shared.connections.load(Ordering::Relaxed)
    }

    /// Stops listening, gives clients a moment to finish, and disconnects those that stay.
    pub fn stop(self) {}
}

impl Drop for TcpServer {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.accepting.take() {
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn accept(self: Arc<Self>, listener: &TcpListener) {
        let mut serving: Vec<JoinHandle<()>> = Vec::new();
        while !self.stop.load(Ordering::Relaxed) {
            serving.retain(|thread| !thread.is_finished());
            if serving.len() == LIMIT {
                thread::sleep(Duration::from_millis(1));
                continue;
            }
            // No connection within the listener's timeout: check whether to stop.
            let Ok((stream, _)) = listener.accept() else { continue };
            self.connections.fetch_add(1, Ordering::Relaxed);
            let shared = Arc::clone(&self);
            serving.push(thread::spawn(move || shared.serve(&stream)));
        }
        // Connected clients get their answers; idle ones are disconnected.
        let start = Instant::now();
        while serving.iter().any(|thread| !thread.is_finished()) && start.elapsed() < DRAIN {
            thread::sleep(Duration::from_millis(2));
        }
        for stream in self.open.lock().expect("no panic while locked").drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
        for thread in serving {
            let _ = thread.join();
        }
    }

    fn serve(&self, stream: &TcpStream) {
        if let Ok(copy) = stream.try_clone() {
            let mut open = self.open.lock().expect("no panic while locked");
            open.retain(|stream| stream.peer_addr().is_ok());
            open.push(copy);
        }
        // A client that disconnects early is not an error of the server.
        let _ = self.greet(stream);
        let _ = stream.shutdown(Shutdown::Both);
    }

    fn greet(&self, stream: &TcpStream) -> io::Result<()> {
        // Connections inherit the listener's timeout, but clients may be idle.
        stream.set_read_timeout(None)?;
        stream.set_nodelay(true)?;
        (self.talk)(stream)
    }
}

/// Answers lines and HTTP requests with the server's name and the connection's addresses.
fn introduce(name: &str, stream: &TcpStream) -> io::Result<()> {
    let peer = canonical(stream.peer_addr()?);
    let local = canonical(stream.local_addr()?);
    let answer = format!("{name} {peer} {local}\n");
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    while reader.read_line(&mut line)? > 0 {
        if line.starts_with("GET ") {
            while reader.read_line(&mut line)? > "\r\n".len() {}
            let length = answer.len();
            return write!(&mut &*stream, "HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{answer}");
        }
        (&mut &*stream).write_all(answer.as_bytes())?;
        line.clear();
    }
    Ok(())
}

fn listen(address: SocketAddr) -> Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    socket.set_reuse_address(true)?;
    // Accepts TCP Fast Open, as servers on the internet do.
    let fast_open: libc::c_int = 16;
    crate::sockets::set_option(&socket, libc::IPPROTO_TCP, libc::TCP_FASTOPEN, fast_open)?;
    socket.bind(&address.into())?;
    socket.listen(1024)?;
    socket.set_read_timeout(Some(TICK))?;
    Ok(socket.into())
}
