//! A client that asks from one port after the other, and begins again with the first one.

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

/// Who has asked so often, each time with more patience, hangs.
pub(super) const LIMIT: u32 = 5;
/// The patience of the first attempt.
const PATIENCE: Duration = Duration::from_millis(500);
/// Between exchanges. Those that ask more than once are remembered for some seconds, whatever comes, and those that are
/// remembered when their port comes again are too: all of them have to find room in a small table.
const PAUSE: Duration = Duration::from_millis(20);
/// A client's source ports, in the order in which they are used.
const PORTS: std::ops::Range<u16> = 20_000..21_000;

/// Asks until it is to stop; most sockets ask once, some ask more often.
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
        // Each datagram has a number of its own: the next one may go to another endpoint, if the first one's is gone.
        let question = identity().to_be_bytes();
        socket.set_read_timeout(Some(PATIENCE * attempt))?;
        match socket.send_to(&question, frontend) {
            Ok(_) => {}
            // What an earlier datagram met.
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

/// Reads until the answer to this question comes; late answers to earlier ones are passed over.
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
