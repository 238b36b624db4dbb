//! Thousands of long-lived TCP connections, and servers for them.
//!
//! Both ends of ten thousand connections are more descriptors than a process may have, so each server is a process: the
//! test's own binary, which runs the test that is a server ([`serve_if_asked`]).

use std::{
    env,
    io::{self, ErrorKind, Read, Write},
    net::{Ipv6Addr, SocketAddr, TcpStream},
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::{PATIENCE, connect};
use crate::{eventually::wait_for, kept::Kept, place::Place};

/// The variable with the port and the mark of a server's process.
const SERVE: &str = "SIDESTEP_SERVE_A_CROWD";

/// A server that answers every byte with its mark; stops on drop.
#[derive(Debug)]
pub struct CrowdServer {
    _process: Kept,
}

impl CrowdServer {
    /// Starts it in a place; `test` is the name of the ignored test that calls [`serve_if_asked`].
    pub fn start(place: &Place, test: &str, port: u16, mark: u8) -> Result<Self> {
        let mut command = Command::new(env::current_exe()?);
        command.args(["--exact", test, "--ignored"]).env(SERVE, format!("{port} {mark}"));
        command.stdin(Stdio::null()).stdout(Stdio::null());
        let within = place.clone();
        let process = Kept::start(command, move || within.enter())?;
        wait_for(PATIENCE, "the server", || place.run(|| connect((place.v4, port).into())).is_ok())?;
        Ok(Self { _process: process })
    }
}

/// In a server's process, serves until it is killed; otherwise returns at once.
pub fn serve_if_asked() -> Result<()> {
    let Ok(asked) = env::var(SERVE) else { return Ok(()) };
    let (port, mark) = asked.split_once(' ').context("the variable has no port and mark")?;
    let (port, mark): (u16, u8) = (port.parse()?, mark.parse()?);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    runtime.block_on(async {
        let socket = tokio::net::TcpSocket::new_v6()?;
        socket.set_reuseaddr(true)?;
        socket.bind((Ipv6Addr::UNSPECIFIED, port).into())?;
        let listener = socket.listen(4096)?;
        loop {
            let (mut stream, _) = listener.accept().await?;
            tokio::spawn(async move {
                let mut question = [0; 1];
                while matches!(stream.read(&mut question).await, Ok(1)) {
                    if stream.write_all(&[mark]).await.is_err() {
                        break;
                    }
                }
            });
        }
    })
}

/// The clients' ends, each with the mark of its server.
#[derive(Debug)]
pub struct Crowd {
    connections: Vec<(TcpStream, u8)>,
}

impl Crowd {
    /// Opens this many connections to each of these addresses.
    pub fn gather(place: &Place, addresses: &[SocketAddr], each: usize) -> Result<Self> {
        let streams: io::Result<Vec<TcpStream>> =
            place.run(|| (0..each).flat_map(|_| addresses).map(|address| connect(*address)).collect());
        let connections = streams?.into_iter().map(|stream| (stream, 0)).collect();
        let mut crowd = Self { connections };
        crowd.ask(|before, mark| {
            *before = mark;
            true
        })?;
        Ok(crowd)
    }

    /// The number of connections.
    pub const fn len(&self) -> usize {
        self.connections.len()
    }

    /// Whether there are no connections.
    pub const fn is_empty(&self) -> bool {
        self.connections.is_empty()
    }

    /// The number of connections of each server.
    pub fn shares(&self) -> [usize; 256] {
        let mut shares = [0; 256];
        for (_, mark) in &self.connections {
            shares[usize::from(*mark)] += 1;
        }
        shares
    }

    /// Sends a request on every connection; an error unless each gets an answer from its original server.
    pub fn check(&mut self) -> Result<()> {
        self.ask(|before, mark| *before == mark)
    }

    fn ask(&mut self, mut is_right: impl FnMut(&mut u8, u8) -> bool) -> Result<()> {
        let mut failures = Vec::new();
        for (stream, _) in &self.connections {
            // Reading the answer will report a failure.
            let _ = (&*stream).write_all(b"?");
        }
        for (number, (stream, before)) in self.connections.iter_mut().enumerate() {
            // After the first timeout the others are short: all answers have arrived by then, or never will.
            let patience = if failures.is_empty() { PATIENCE } else { Duration::from_millis(1) };
            stream.set_read_timeout(Some(patience))?;
            let mut mark = [0; 1];
            match (&*stream).read(&mut mark) {
                Ok(1) if is_right(before, mark[0]) => {}
                Ok(1) => failures.push(format!("{number}: answered by {} instead of {before}", mark[0])),
                Ok(_) => failures.push(format!("{number}: closed")),
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    failures.push(format!("{number}: no answer"));
                }
                Err(error) => failures.push(format!("{number}: {error}")),
            }
        }
        let first = &failures[..failures.len().min(5)];
        ensure!(
            failures.is_empty(),
            "{} of {} connections: {first:?}",
            failures.len(),
            self.connections.len()
        );
        Ok(())
    }
}
