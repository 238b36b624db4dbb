//! From one change at the API server to a connection that lands on the new endpoint.

use std::{
    io::{Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use serde_json::json;
use sidestep_tests::{
    Lab,
    agent::NODE_NAME,
    api_server::{ApiServer, Kind},
    place::Place,
};

use super::{
    cluster::{self, Cluster},
    door::Door,
};
use crate::progress::Progress;

/// How many Services there are besides the cluster's.
pub(super) const SERVICES: u32 = 1;
const NAME: &str = "followed";
const ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 111, 0, 1);
/// Between two connections of the client.
const PACE: Duration = Duration::from_micros(50);
/// A change that no client has seen for this long is lost.
const LOST: Duration = Duration::from_secs(10);
/// Other slices that change in a second of churn.
const CHURN: u32 = 20;

/// The pattern of changes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Pattern {
    Isolated,
    BackToBack,
    Churn,
}

impl Pattern {
    pub(super) const ALL: [Self; 3] = [Self::Isolated, Self::BackToBack, Self::Churn];

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Isolated => "isolated",
            Self::BackToBack => "back to back",
            Self::Churn => "under churn",
        }
    }
}

/// A Service whose endpoints are one pod or the other, with as many addresses as it has endpoints.
pub(super) struct Follower {
    node: Place,
    endpoints: u32,
    _doors: [Door; 2],
}

impl Follower {
    pub(super) fn new(lab: &Lab, endpoints: u32) -> Result<Self> {
        let mut doors = Vec::new();
        for side in 0..2_u8 {
            let pod = pod(lab, &format!("side{side}"), &addresses(side, endpoints))?;
            doors.push(Door::open(&pod, b'0' + side)?);
        }
        let doors = <[Door; 2]>::try_from(doors).ok().context("two pods")?;
        Ok(Self { node: lab.node().clone(), endpoints, _doors: doors })
    }

    /// Puts the Service there, with the first pod.
    pub(super) fn install(&self, server: &ApiServer) {
        server.put(cluster::service(NAME, ADDRESS));
        self.put(server, 0);
    }

    fn put(&self, server: &ApiServer, side: u8) {
        server.put(cluster::slice(NAME, &addresses(side, self.endpoints)));
    }

    /// Microseconds of so many changes, and so many connections.
    pub(super) fn run(
        &self,
        server: &ApiServer,
        pattern: Pattern,
        changes: usize,
        progress: &mut Progress,
    ) -> Result<Vec<f64>> {
        let churn = (pattern == Pattern::Churn).then(|| Churn::start(server, self.endpoints));
        let samples = self.node.run(|| -> Result<Vec<f64>> {
            self.put(server, 0);
            wait_for(0)?;
            let mut samples = Vec::with_capacity(changes);
            for number in 1..=changes {
                if pattern != Pattern::BackToBack {
                    std::thread::sleep(Duration::from_millis(20));
                }
                let side = u8::from(number % 2 == 1);
                let slice = cluster::slice(NAME, &addresses(side, self.endpoints));
                let told = Instant::now();
                server.put(slice);
                let landed = wait_for(side)?;
                samples.push((landed - told).as_secs_f64() * 1e6);
                progress.tick(number, changes);
            }
            self.put(server, 0);
            wait_for(0)?;
            Ok(samples)
        });
        drop(churn);
        samples
    }

    /// So many changes, one by one, each seen before the next; for counting what they cost.
    pub(super) fn change_only(&self, server: &ApiServer, changes: usize, lab: &Lab) -> Result<()> {
        lab.node().run(|| {
            for number in 1..=changes {
                let side = u8::from(number % 2 == 1);
                self.put(server, side);
                wait_for(side)?;
            }
            Ok(())
        })
    }
}

/// A pod of the lab's node that has these addresses too.
pub(super) fn pod(lab: &Lab, name: &str, addresses: &[Ipv4Addr]) -> Result<Place> {
    let pod = lab.pod(name)?;
    let lines = |line: &dyn Fn(&Ipv4Addr) -> String| addresses.iter().map(line).collect::<String>();
    pod.namespace().ip_batch(&lines(&|address| format!("addr add {address}/32 dev lo\n")))?;
    pod.namespace().ip_batch("link set lo up\n")?;
    let v4 = pod.v4;
    lab.node().namespace().ip_batch(&lines(&|address| format!("route add {address}/32 via {v4}\n")))?;
    Ok(pod)
}

/// Connects until this side answers; when its byte was there.
fn wait_for(side: u8) -> Result<Instant> {
    let start = Instant::now();
    let service = SocketAddr::from((ADDRESS, 80));
    loop {
        let mut byte = [0];
        TcpStream::connect(service)?.read_exact(&mut byte)?;
        if byte[0] == b'0' + side {
            return Ok(Instant::now());
        }
        ensure!(start.elapsed() < LOST, "the change to pod {side} did not arrive within {LOST:?}");
        std::thread::sleep(PACE);
    }
}

/// So many endpoints of one of the two pods.
pub(super) fn addresses(side: u8, count: u32) -> Vec<Ipv4Addr> {
    let first = Ipv4Addr::new(10, 245, side, 1).to_bits();
    (first..first + count).map(Ipv4Addr::from_bits).collect()
}

/// Other slices that change meanwhile; ends on drop.
struct Churn {
    stop: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Churn {
    fn start(server: &ApiServer, endpoints: u32) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (stopped, objects) = (Arc::clone(&stop), (**server).clone());
        let thread = std::thread::spawn(move || {
            let cluster = Cluster { services: 0, endpoints };
            let mut count = 0;
            while !stopped.load(Ordering::Relaxed) {
                objects.put(cluster.replaced(count % 1000, count / 1000 + 1));
                count += 1;
                std::thread::sleep(Duration::from_secs(1) / CHURN);
            }
        });
        Self { stop, thread: Some(thread) }
    }
}

impl Drop for Churn {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Microseconds of a request and its answer from the same server, of the size of the event, on a connection that stays.
pub(super) fn yardstick(lab: &Lab, server: &ApiServer, trips: usize) -> Result<Vec<f64>> {
    let event = cluster::slice(NAME, &addresses(0, 10)).to_string().len();
    server.put(json!({"kind": "Node", "apiVersion": "v1", "metadata": {"name": "yardstick",
        "annotations": {"padding": "x".repeat(event.saturating_sub(150))}}}));
    ensure!(NODE_NAME != "yardstick");
    let address: SocketAddrV4 = server.url().trim_start_matches("http://").parse()?;
    let samples = lab.node().run(|| -> Result<Vec<f64>> {
        let mut stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        let request = "GET /api/v1/nodes?fieldSelector=metadata.name%3Dyardstick HTTP/1.1\r\nHost: x\r\n\r\n";
        let mut samples = Vec::with_capacity(trips);
        for _ in 0..trips {
            let start = Instant::now();
            stream.write_all(request.as_bytes())?;
            read_answer(&mut stream)?;
            samples.push(start.elapsed().as_secs_f64() * 1e6);
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(samples)
    });
    server.delete(Kind::Node, "", "yardstick");
    samples
}

/// Reads one answer whole.
fn read_answer(stream: &mut TcpStream) -> Result<()> {
    let mut bytes = Vec::new();
    let mut part = vec![0; 1 << 16];
    loop {
        let count = stream.read(&mut part)?;
        ensure!(count > 0, "the server hung up");
        bytes.extend_from_slice(&part[..count]);
        let text = String::from_utf8_lossy(&bytes);
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        let length = head.lines().find_map(|line| {
            let (name, value) = line.split_once(": ")?;
            name.eq_ignore_ascii_case("content-length").then_some(value)
        });
        let length: usize = length.context("an answer without its length")?.parse()?;
        if body.len() >= length {
            return Ok(());
        }
    }
}
