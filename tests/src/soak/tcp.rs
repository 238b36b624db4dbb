//! A client that connects from each source port in turn, over and over.

use std::{
    io::{self, ErrorKind, Read, Write},
    net::{IpAddr, SocketAddr, TcpStream},
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread::sleep,
    time::{Duration, Instant},
};

use socket2::{Domain, Protocol, SockRef, Socket, Type};

use super::{
    ledger::{Event, Ledger, Promise},
    servers::LENGTH,
};
use crate::random::Random;

/// A connection hangs after this long: a lost SYN or segment is retransmitted after 1, 3 and 7 seconds.
pub(super) const LIMIT: Duration = Duration::from_secs(12);
/// A handshake that takes this long had its SYN retransmitted.
const SLOW: Duration = Duration::from_millis(900);
/// The pause between connections: conntrack keeps an entry for two minutes where all packets go through the stack, and
/// has room for 262,144 by default.
const PAUSE: Duration = Duration::from_millis(2);
/// A client's source ports, in the order in which they are used.
const PORTS: std::ops::Range<u16> = 10_000..13_000;

/// Connects, asks and closes until it is stopped, and keeps some connections open for a while beside the others.
pub(super) fn run(client: IpAddr, frontend: SocketAddr, number: u8, ledger: &Ledger, stop: &AtomicBool) {
    let mut random = Random::new(u64::from(number) + 1);
    let mut staying: Vec<(TcpStream, u64, SocketAddr)> = Vec::new();
    for port in PORTS.cycle() {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        sleep(PAUSE);
        let source = SocketAddr::new(client, port);
        let start = Instant::now();
        let stream = match connect(source, frontend) {
            Ok(stream) => stream,
            Err(error) => {
                missed(ledger, &error, source, frontend);
                continue;
            }
        };
        if start.elapsed() > SLOW {
            ledger.count(Event::Slow, 1);
        }
        let server_ends = random.once_in(8);
        let id = identity() | u64::from(server_ends);
        let questions = if server_ends { 1 } else { 1 + random.below(4_u32) };
        if let Err(error) = (0..questions).try_for_each(|_| ask(&stream, id)) {
            failed(ledger, &error, source, frontend, "asking");
            continue;
        }
        if !server_ends && random.once_in(50) && staying.len() < 100 {
            staying.push((stream, id, source));
            continue;
        }
        finish(&stream, server_ends, &mut random, ledger, source, frontend);
        // Every few connections, one of the long-lived ones gets a question, and is sometimes closed.
        if !staying.is_empty() && random.once_in(4) {
            let chosen = random.index(staying.len());
            let (stream, id, source) = &staying[chosen];
            match ask(stream, *id) {
                Err(error) => {
                    failed(ledger, &error, *source, frontend, "in a later question");
                    staying.swap_remove(chosen);
                }
                Ok(()) if random.once_in(16) => {
                    finish(stream, false, &mut random, ledger, *source, frontend);
                    staying.swap_remove(chosen);
                }
                Ok(()) => {}
            }
        }
    }
    for (stream, id, source) in &staying {
        if let Err(error) = ask(stream, *id) {
            failed(ledger, &error, *source, frontend, "in the last question");
        }
        finish(stream, false, &mut random, ledger, *source, frontend);
    }
}

/// A unique even number.
pub(super) fn identity() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    NEXT.fetch_add(1, Ordering::Relaxed) << 1
}

fn connect(source: SocketAddr, frontend: SocketAddr) -> io::Result<TcpStream> {
    let socket = Socket::new(Domain::for_address(source), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_tcp_nodelay(true)?;
    socket.set_read_timeout(Some(LIMIT))?;
    socket.set_write_timeout(Some(LIMIT))?;
    socket.bind(&source.into())?;
    socket.connect(&frontend.into())?;
    Ok(socket.into())
}

fn ask(stream: &TcpStream, id: u64) -> io::Result<()> {
    let (question, mut answer) = (id.to_be_bytes(), [0; LENGTH]);
    (&mut &*stream).write_all(&question)?;
    (&mut &*stream).read_exact(&mut answer)?;
    if answer == question { Ok(()) } else { Err(ErrorKind::InvalidData.into()) }
}

/// Closes a connection: with a FIN, waiting for the server's FIN, or at once with a reset.
fn finish(
    stream: &TcpStream,
    server_ends: bool,
    random: &mut Random,
    ledger: &Ledger,
    source: SocketAddr,
    frontend: SocketAddr,
) {
    if !server_ends && random.once_in(8) {
        let _ = SockRef::from(stream).set_linger(Some(Duration::ZERO));
        ledger.count(Event::Connection, 1);
        return;
    }
    let ended = (|| {
        if !server_ends {
            stream.shutdown(std::net::Shutdown::Write)?;
        }
        let read = (&mut &*stream).read(&mut [0; LENGTH])?;
        if read == 0 { Ok(()) } else { Err(io::Error::from(ErrorKind::InvalidData)) }
    })();
    match ended {
        Ok(()) => ledger.count(Event::Connection, 1),
        Err(error) => failed(ledger, &error, source, frontend, "ending"),
    }
}

/// Records a connection that was not established.
fn missed(ledger: &Ledger, error: &io::Error, source: SocketAddr, frontend: SocketAddr) {
    match error.kind() {
        ErrorKind::ConnectionRefused => ledger.count(Event::Refused, 1),
        // The client's own kernel refuses: the last connection from this port is too recent.
        ErrorKind::AddrInUse | ErrorKind::AddrNotAvailable => {}
        ErrorKind::ConnectionReset => failed(ledger, error, source, frontend, "connecting"),
        _ => ledger.broke(Promise::Hang, || format!("TCP {source} to {frontend}, connecting: {error}")),
    }
}

/// Records a failure of an established connection.
fn failed(ledger: &Ledger, error: &io::Error, source: SocketAddr, frontend: SocketAddr, when: &str) {
    let promise = match error.kind() {
        ErrorKind::WouldBlock | ErrorKind::TimedOut => Promise::Hang,
        ErrorKind::InvalidData => Promise::WrongAnswer,
        _ => Promise::Broken,
    };
    ledger.broke(promise, || format!("TCP {source} to {frontend}, {when}: {error}"));
}
