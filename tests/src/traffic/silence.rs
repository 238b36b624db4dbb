//! Checks that packets to an address are dropped: neither answered nor refused.

use std::{
    io::{self, ErrorKind},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

use super::Asker;

/// How long to wait for nothing. An answer takes less than a millisecond; a SYN is retransmitted after a second.
const LISTENED: Duration = Duration::from_millis(600);

/// Asserts that TCP to `tcp` and UDP to `udp` get neither an answer nor a refusal.
pub fn assert_silent(tcp: SocketAddr, udp: SocketAddr) -> io::Result<()> {
    let connected = TcpStream::connect_timeout(&tcp, LISTENED);
    let is_silent = matches!(&connected, Err(error) if error.kind() == ErrorKind::TimedOut);
    assert!(is_silent, "TCP to {tcp} is not dropped: {connected:?}");
    let asker = Asker::for_address(udp)?;
    asker.socket().set_read_timeout(Some(LISTENED))?;
    asker.connect(udp)?;
    let answer = asker.ask_peer();
    let is_silent = matches!(&answer, Err(error) if error.kind() == ErrorKind::WouldBlock);
    assert!(is_silent, "UDP to {udp} is not dropped: {answer:?}");
    Ok(())
}
