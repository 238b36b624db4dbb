//! A client that sends from each source port in turn, over and over.

use std::{
    io::ErrorKind,
    net::{IpAddr, SocketAddr, UdpSocket},
    sync::atomic::{AtomicBool, Ordering},
    thread::sleep,
    time::Duration,
};

use anyhow::Result;

use super::{
    ledger::{Event, Ledger, Promise},
    tcp::identity,
};
use crate::random::Random;

/// An exchange hangs after this many attempts, each with a longer timeout.
pub(super) const LIMIT: u32 = 5;
/// The timeout of the first attempt.
const PATIENCE: Duration = Duration::from_millis(500);
/// The pause between exchanges. Records of exchanges with more than one question are confirmed and stay for some
/// seconds, and so do records that still exist when their port is reused: all of them need room in a small table.
const PAUSE: Duration = Duration::from_millis(20);
/// A client's source ports, in the order in which they are used.
const PORTS: std::ops::Range<u16> = 20_000..21_000;

/// Sends questions until it is stopped; most sockets send one, some send more.
pub(super) fn run(
    client: IpAddr,
    frontend: SocketAddr,
    number: u8,
    ledger: &Ledger,
    stop: &AtomicBool,
) -> Result<()> {
    let mut random = Random::new(u64::from(number) + 100);
    for port in PORTS.cycle() {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let source = SocketAddr::new(client, port);
        let socket = UdpSocket::bind(source)?;
        let questions = if random.once_in(8) { 4 } else { 1 };
        for _ in 0..questions {
            exchange(&socket, source, frontend, ledger)?;
        }
        sleep(PAUSE);
    }
    Ok(())
}

fn exchange(socket: &UdpSocket, source: SocketAddr, frontend: SocketAddr, ledger: &Ledger) -> Result<()> {
    for attempt in 1..=LIMIT {
        // Each datagram has a number of its own: a repeated one may reach another endpoint if the first one's is gone.
        let question = identity().to_be_bytes();
        socket.set_read_timeout(Some(PATIENCE * attempt))?;
        match socket.send_to(&question, frontend) {
            Ok(_) => {}
            // An ICMP error about an earlier datagram.
            Err(error) if error.kind() == ErrorKind::ConnectionRefused => ledger.count(Event::Refused, 1),
            Err(error) => return Err(error.into()),
        }
        if is_answered(socket, question, source, frontend, ledger) {
            ledger.count(Event::Exchange, 1);
            return Ok(());
        }
        ledger.count(Event::Repeated, 1);
    }
    ledger.broke(Promise::Hang, || format!("UDP {source} to {frontend}: no answer to {LIMIT} datagrams"));
    Ok(())
}

/// Reads until the answer to this question arrives; skips late answers to earlier ones.
fn is_answered(
    socket: &UdpSocket,
    question: [u8; 8],
    source: SocketAddr,
    frontend: SocketAddr,
    ledger: &Ledger,
) -> bool {
    let mut buffer = [0; 64];
    while let Ok((length, from)) = socket.recv_from(&mut buffer) {
        if from != frontend {
            ledger.broke(Promise::WrongAnswer, || {
                format!("UDP {source} asked {frontend}, and {from} answered")
            });
        } else if buffer[..length] == question {
            return true;
        }
    }
    false
}
