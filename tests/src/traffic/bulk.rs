//! Bulk data in both directions over one TCP connection.

use std::{
    io::{self, Read, Write},
    net::{Ipv6Addr, Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use anyhow::{Context, Result};

use super::connect;
use crate::place::Place;

/// An echo server; stops on drop.
#[derive(Debug)]
pub struct EchoServer {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl EchoServer {
    /// Starts a server on every address of a place.
    pub fn start(place: &Place, port: u16) -> Result<Self> {
        let listener = place.run(|| TcpListener::bind((Ipv6Addr::UNSPECIFIED, port)));
        let listener =
            listener.with_context(|| format!("cannot start an echo server in {}", place.name()))?;
        listener.set_nonblocking(true)?;
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = thread::Builder::new().name("echo".to_owned()).spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                match listener.accept() {
                    // A client that disconnects early is not an error of the server.
                    Ok((stream, _)) => drop(thread::spawn(move || drop(echo(&stream)))),
                    Err(_) => thread::sleep(Duration::from_millis(2)),
                }
            }
        })?;
        Ok(Self { stop, thread: Some(thread) })
    }
}

impl Drop for EchoServer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn echo(stream: &TcpStream) -> io::Result<()> {
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(super::PATIENCE))?;
    io::copy(&mut &*stream, &mut &*stream)?;
    stream.shutdown(Shutdown::Write)
}

/// Sends this many bytes to an [`EchoServer`], and compares the echo.
pub fn echo_through(address: SocketAddr, bytes: usize) -> io::Result<()> {
    let stream = connect(address)?;
    // A pattern whose period does not divide the size of a segment.
    let sent: Vec<u8> = (0..=250).cycle().take(bytes).collect();
    let mut received = vec![0; bytes];
    thread::scope(|scope| {
        let writer = scope.spawn(|| (&stream).write_all(&sent));
        let read = (&stream).read_exact(&mut received);
        if read.is_err() {
            let _ = stream.shutdown(Shutdown::Both);
        }
        writer.join().expect("the writer does not panic").and(read)
    })?;
    stream.shutdown(Shutdown::Write)?;
    if let Some(place) = sent.iter().zip(&received).position(|(sent, received)| sent != received) {
        return Err(io::Error::other(format!("byte {place} of {bytes} differs")));
    }
    Ok(())
}
