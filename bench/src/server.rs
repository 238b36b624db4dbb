//! The server: short and persistent TCP connections, and datagrams. One process for each pod.

use std::{
    io::{self, Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener, TcpStream},
    os::fd::RawFd,
    process::{Child, Command, Stdio},
    thread,
};

use anyhow::{Context as _, Result, ensure};
use sidestep_tests::{cgroup::Cgroup, namespace::Namespace};
use socket2::{Domain, Socket, Type};

use crate::{
    place::{self, Urgency},
    protocol::{SERVER_PORT, STAYS, WHO},
    sink::Sink,
};

/// Connections that may wait to be accepted: more than a client makes in one turn.
const BACKLOG: i32 = 16_384;

/// A server; ended and waited for on drop.
#[derive(Debug)]
pub(crate) struct Server(Child);

impl Server {
    /// Starts a server in this namespace and cgroup, and waits until it listens. It answers these sockets too.
    pub(crate) fn start(
        namespace: &Namespace,
        cgroup: &Cgroup,
        processor: usize,
        sinks: &[Sink],
        urgency: Urgency,
    ) -> Result<Self> {
        let sinks: Vec<RawFd> = sinks.iter().map(Sink::descriptor).collect();
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["server", &processor.to_string()]).args(sinks.iter().map(RawFd::to_string));
        command.stdin(Stdio::null()).stdout(Stdio::piped());
        place::put(&mut command, namespace, cgroup, sinks, urgency)?;
        let mut server = Self(command.spawn().context("cannot start a server")?);
        let mut ready = [0];
        let length = server.0.stdout.as_mut().context("the server's output")?.read(&mut ready)?;
        ensure!(length == 1, "the server ended at once");
        Ok(server)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The server's side, on this processor: answers until it is killed.
pub(crate) fn main(processor: usize, sinks: &[RawFd]) -> Result<()> {
    place::pin(processor)?;
    let listener = listen(SERVER_PORT)?;
    for &descriptor in sinks {
        let sink = Sink::inherited(descriptor);
        thread::spawn(move || {
            let mut buffer = [0; 64];
            loop {
                if let Ok((length, client)) = sink.socket().recv_from(&mut buffer) {
                    let _ = match buffer[..length] {
                        [WHO] => sink.socket().send_to(&who(client), client),
                        _ => sink.socket().send_to(&buffer[..length], client),
                    };
                }
            }
        });
    }
    io::stdout().write_all(b"!")?;
    io::stdout().flush()?;
    for stream in listener.incoming().flatten() {
        answer(stream);
    }
    Ok(())
}

/// Echoes every byte until the client closes or resets the connection.
fn answer(mut stream: TcpStream) {
    let _ = stream.set_nodelay(true);
    let mut byte = [0];
    while matches!(stream.read(&mut byte), Ok(1)) {
        if byte == [WHO] {
            let _ = stream.peer_addr().and_then(|client| stream.write_all(&who(client)));
            return;
        }
        if stream.write_all(&byte).is_err() {
            return;
        }
        if byte == [STAYS] {
            thread::spawn(move || {
                while matches!(stream.read(&mut byte), Ok(1)) && stream.write_all(&byte).is_ok() {}
            });
            return;
        }
    }
}

fn who(client: SocketAddr) -> [u8; 4] {
    match client {
        SocketAddr::V4(client) => client.ip().octets(),
        SocketAddr::V6(_) => Ipv4Addr::UNSPECIFIED.octets(),
    }
}

fn listen(port: u16) -> Result<TcpListener> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    socket.bind(&SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, port).into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}
