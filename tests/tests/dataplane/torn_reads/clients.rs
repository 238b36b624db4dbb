//! Clients that connect without pause and check to which Service their endpoint belongs: half of them over TCP, as real
//! clients do, half with UDP sockets that only connect, which is many times faster and hits more of the writer's steps.

use std::{
    io::{self, Read},
    net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use sidestep_tests::{Place, random::Random, traffic::connect};
use socket2::SockRef;

use super::endpoints::{FLEETING, STEADY, Vip};

/// How many clients connect at a time.
pub(crate) const THREADS: u64 = 4;
/// How many faults are kept as text.
const KEPT: usize = 20;

/// The clients' results.
#[derive(Clone, Debug, Default)]
pub(crate) struct Outcome {
    /// Connections to a right endpoint.
    pub(crate) connections: u64,
    /// Connections to another Service's endpoint, or to a Service that the client may not use.
    pub(crate) misled: u64,
    /// Connections that failed although the Service was installed.
    pub(crate) failed: u64,
    /// Connections refused because no source range contains the client, as expected.
    pub(crate) refused: u64,
    /// Connections that failed because the Service was not installed at that moment, as allowed.
    pub(crate) absent: u64,
    /// Sockets that the agent closed before the check, because their endpoint was gone.
    pub(crate) closed: u64,
    /// The first few faults.
    pub(crate) words: Vec<String>,
}

/// The clients.
#[derive(Debug)]
pub(crate) struct Clients {
    stop: Arc<AtomicBool>,
    outcome: Arc<Mutex<Outcome>>,
    threads: Vec<JoinHandle<()>>,
}

impl Clients {
    /// Starts the clients in a pod.
    pub(crate) fn start(pod: &Place) -> Self {
        let (stop, outcome) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::<Outcome>::default()));
        let threads = (0..THREADS)
            .map(|seed| {
                let (stop, outcome, pod) = (Arc::clone(&stop), Arc::clone(&outcome), pod.clone());
                thread::spawn(move || {
                    pod.enter().expect("the thread enters its place");
                    let mut random = Random::new(seed + 1);
                    let mut own = Outcome::default();
                    while !stop.load(Ordering::Relaxed) {
                        let vip = draw(&mut random);
                        let visit = if seed % 2 == 0 { visit } else { look };
                        own.note(vip, visit(vip));
                    }
                    outcome.lock().expect("no panic while locked").add(own);
                })
            })
            .collect();
        Self { stop, outcome, threads }
    }

    /// Stops the clients and returns their results.
    pub(crate) fn stop(self) -> Outcome {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads {
            thread.join().expect("a client that does not panic");
        }
        self.outcome.lock().expect("no panic while locked").clone()
    }
}

impl Outcome {
    fn add(&mut self, other: Self) {
        self.connections += other.connections;
        self.misled += other.misled;
        self.failed += other.failed;
        self.refused += other.refused;
        self.absent += other.absent;
        self.closed += other.closed;
        self.words.extend(other.words);
    }

    fn note(&mut self, vip: Vip, result: io::Result<Ipv4Addr>) {
        let words = match result {
            // The endpoint was removed between connect and the check, and the agent closed the socket (ST-5).
            Ok(seen) if seen.is_unspecified() => {
                self.connections += 1;
                self.closed += 1;
                return;
            }
            Ok(seen) => {
                self.connections += 1;
                let [10, 250 | 251, owner, _] = seen.octets() else { unreachable!("{vip:?} led to {seen}") };
                if vip.owners().contains(&owner) && vip != Vip::Closed {
                    return;
                }
                self.misled += 1;
                format!("{vip:?} led to {seen}")
            }
            Err(_) if matches!(vip, Vip::Fleeting(_)) => {
                self.absent += 1;
                return;
            }
            Err(error) if vip == Vip::Closed && error.kind() == io::ErrorKind::ConnectionRefused => {
                self.refused += 1;
                return;
            }
            Err(error) => {
                self.failed += 1;
                format!("{vip:?}: {error}")
            }
        };
        if self.words.len() < KEPT {
            self.words.push(words);
        }
    }
}

fn draw(random: &mut Random) -> Vip {
    match random.below(16_u8) {
        0 => Vip::Moving,
        1 => Vip::Closed,
        2..4 => Vip::Fleeting(random.below(FLEETING)),
        // Half of the connections go to a few Services, so that clients read these while the writer changes them.
        4..8 => Vip::Steady(random.below(4)),
        _ => Vip::Steady(random.below(STEADY)),
    }
}

/// Connects, and returns the server's local address of the connection.
fn visit(vip: Vip) -> io::Result<Ipv4Addr> {
    let address = SocketAddr::from((vip.address(), 80));
    let mut stream = connect(address)?;
    let peer = stream.peer_addr()?;
    if peer != address {
        return Err(io::Error::other(format!("getpeername returns {peer}")));
    }
    let mut octets = [0; 4];
    stream.read_exact(&mut octets)?;
    // Avoids TIME-WAIT, or ports run out.
    SockRef::from(&stream).set_linger(Some(Duration::ZERO))?;
    Ok(octets.into())
}

/// Connects a UDP socket, and returns its local address.
fn look(vip: Vip) -> io::Result<Ipv4Addr> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    socket.connect((vip.address(), 80))?;
    match socket.local_addr()?.ip() {
        IpAddr::V4(own) => Ok(own),
        IpAddr::V6(own) => Err(io::Error::other(format!("the local address is {own}"))),
    }
}
