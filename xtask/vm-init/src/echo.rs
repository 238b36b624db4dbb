//! The endpoint: echoes everything, over TCP and UDP.

use std::io::{self, Read as _, Write as _};
use std::net::{Ipv4Addr, TcpListener, UdpSocket};
use std::thread;

use anyhow::{Context as _, Result};

/// Ports of the endpoint, as in the EndpointSlice.
const TCP_PORT: u16 = 8080;
const UDP_PORT: u16 = 5353;

/// Serves in the background, until the machine stops.
pub(crate) fn serve(address: Ipv4Addr) -> Result<()> {
    let listener = TcpListener::bind((address, TCP_PORT)).context("listen on the endpoint's TCP port")?;
    let socket = UdpSocket::bind((address, UDP_PORT)).context("bind the endpoint's UDP port")?;
    thread::spawn(move || tcp(&listener));
    thread::spawn(move || udp(&socket));
    Ok(())
}

fn tcp(listener: &TcpListener) -> io::Result<()> {
    loop {
        let (mut stream, _) = listener.accept()?;
        let mut buffer = [0; 64];
        // A client that closes early is not an error of the server.
        if let Ok(length) = stream.read(&mut buffer) {
            let _ = stream.write_all(&buffer[..length]);
        }
    }
}

fn udp(socket: &UdpSocket) -> io::Result<()> {
    let mut buffer = [0; 64];
    loop {
        let (length, client) = socket.recv_from(&mut buffer)?;
        socket.send_to(&buffer[..length], client)?;
    }
}
