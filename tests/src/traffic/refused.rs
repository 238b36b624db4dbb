//! Checks that packets to an address are refused at once.

use std::{
    io,
    net::SocketAddr,
    time::{Duration, Instant},
};

use super::{Asker, connect, is_refused};
use crate::pace::within;

/// A refusal arrives before the client's first retry.
const AT_ONCE: Duration = Duration::from_millis(500);

/// Asserts that TCP to `tcp` and UDP to `udp` are refused at once.
pub fn assert_refused(tcp: SocketAddr, udp: SocketAddr) -> io::Result<()> {
    let start = Instant::now();
    let connected = connect(tcp);
    assert!(is_refused(&connected), "TCP to {tcp}: {connected:?}");
    let asker = Asker::for_address(udp)?;
    asker.connect(udp)?;
    let answer = asker.ask_peer();
    assert!(is_refused(&answer), "UDP to {udp}: {answer:?}");
    assert!(start.elapsed() < within(AT_ONCE), "{tcp}, {udp}: {:?}", start.elapsed());
    Ok(())
}
