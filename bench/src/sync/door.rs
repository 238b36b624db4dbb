//! A pod that identifies itself: it sends one byte on every connection and closes it.

use std::{
    io::Write as _,
    net::{Ipv4Addr, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
};

use anyhow::Result;
use sidestep_tests::place::Place;

/// Where every pod of the benchmark listens.
pub(super) const PORT: u16 = 8080;

/// The pod's server; ends on drop.
pub(super) struct Door {
    place: Place,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Door {
    /// Answers every connection to the place with this byte.
    pub(super) fn open(place: &Place, name: u8) -> Result<Self> {
        let listener = place.run(|| TcpListener::bind((Ipv4Addr::UNSPECIFIED, PORT)))?;
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            for stream in listener.incoming() {
                if stopped.load(Ordering::Relaxed) {
                    return;
                }
                if let Ok(mut stream) = stream {
                    let _ = stream.write_all(&[name]);
                }
            }
        });
        Ok(Self { place: place.clone(), stop, thread: Some(thread) })
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        // One more connection, so that the server looks.
        let _ = self.place.run(|| TcpStream::connect((Ipv4Addr::LOCALHOST, PORT)));
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
