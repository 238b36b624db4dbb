//! Captures the packets at a lab's devices, in files that `tcpdump -r` and Wireshark read.
//!
//! The files disappear with the lab, unless a test panics: then they are moved to a permanent directory, whose name is
//! printed. Only the beginning of each packet is kept, and no file grows beyond [`LIMIT`].

use std::{
    fs::{self, File},
    io::{BufWriter, ErrorKind, Read},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, SystemTime},
};

use anyhow::{Context, Result};
use pcap_file::{
    DataLink,
    pcap::{PcapHeader, PcapPacket, PcapWriter},
};
use socket2::Socket;

use crate::{place::Place, sockets};

/// Captured bytes of a packet: all headers, including those of a packet quoted by an ICMP error in a VXLAN.
const KEPT: usize = 256;
/// The largest size of a file, in bytes.
const LIMIT: usize = 8 << 20;
/// The longest packet, which a device will segment.
const LONGEST: usize = 1 << 18;
/// How often a thread checks whether to stop.
const TICK: Duration = Duration::from_millis(10);
/// The directory of failed tests' files.
const FAILED: &str = "sidestep-packets";

/// A running capture.
#[derive(Debug)]
pub struct Captures {
    directory: PathBuf,
    over: Arc<AtomicBool>,
    threads: Vec<JoinHandle<Result<()>>>,
}

impl Captures {
    /// Writes `<directory>/<name>.pcap` for each `(name, place, device)`.
    pub fn start(directory: PathBuf, devices: &[(&str, &Place, &str)]) -> Result<Self> {
        fs::create_dir(&directory).with_context(|| directory.display().to_string())?;
        let mut captures = Self { directory, over: Arc::default(), threads: Vec::new() };
        for (name, place, device) in devices {
            let socket = place.namespace().run(|| sockets::packets(device, libc::ETH_P_ALL))?;
            let socket = socket.with_context(|| format!("packets of {device} in {}", place.name()))?;
            socket.set_read_timeout(Some(TICK))?;
            let path = captures.directory.join(name).with_extension("pcap");
            let over = Arc::clone(&captures.over);
            let thread = thread::Builder::new().name("packets".to_owned());
            captures.threads.push(thread.spawn(move || write(&socket, &path, &over))?);
        }
        Ok(captures)
    }
}

impl Drop for Captures {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            if let Ok(Err(error)) = thread.join() {
                eprintln!("packets: {error:#}");
            }
        }
        if thread::panicking() {
            match keep(&self.directory) {
                Ok(kept) => eprintln!("--- packets: {}", kept.display()),
                Err(error) => eprintln!("packets: {error:#}"),
            }
        }
    }
}

/// Moves the files to the permanent directory.
fn keep(directory: &Path) -> Result<PathBuf> {
    let test = thread::current().name().unwrap_or("unnamed").replace("::", "-");
    let failed = std::env::temp_dir().join(FAILED);
    fs::create_dir_all(&failed)?;
    let kept = failed.join(format!("{test}-{}", std::process::id()));
    fs::rename(directory, &kept)?;
    Ok(kept)
}

/// Writes packets until it is stopped and has read them all, or the file is full; after that the capture costs nothing.
fn write(mut socket: &Socket, path: &Path, over: &AtomicBool) -> Result<()> {
    let file = BufWriter::new(File::create(path)?);
    let header =
        PcapHeader { snaplen: KEPT.try_into()?, datalink: DataLink::ETHERNET, ..PcapHeader::default() };
    let mut file = PcapWriter::with_header(file, header)?;
    let (mut buffer, mut written) = (vec![0; LONGEST], 0);
    while written < LIMIT {
        let length = match socket.read(&mut buffer) {
            Ok(length) => length,
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            // No packet for a while, or the device is gone.
            Err(_) if over.load(Ordering::Relaxed) => break,
            Err(_) => {
                thread::sleep(TICK / 10);
                continue;
            }
        };
        let time = SystemTime::UNIX_EPOCH.elapsed()?;
        let kept = &buffer[..length.min(KEPT)];
        file.write_packet(&PcapPacket::new(time, length.try_into()?, kept))?;
        written += kept.len();
    }
    Ok(())
}
