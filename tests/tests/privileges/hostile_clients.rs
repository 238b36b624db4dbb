//! The agent's listeners and hostile clients: thousands of silent connections, slow questions, endless headers. The probes
//! of the kubelet and of load balancers are answered all the time, and the agent's memory and descriptors stay bounded.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    time::{Duration, Instant},
};

use sidestep_tests::{Agent, cluster, eventually, topology::NODE_V4};

/// Health, with the node's metrics beside it.
const PORTS: [u16; 2] = [10256, 10249];
/// How many connections each attacker opens, and keeps as long as it may.
const SILENT: usize = 1000;
/// What a probe of the kubelet may take by default.
const PROBE: Duration = Duration::from_secs(1);

#[test]
fn probes_are_answered_whatever_other_clients_do() {
    let cluster = cluster!(0);
    let arguments = ["--metrics-bind-address", "0.0.0.0:10249"];
    let agent = Agent::reading(&cluster.lab).arguments(arguments).started(&cluster.lab).expect("an agent");
    let outside = cluster.lab.other_node();
    // As the kubelet does it, from the node itself.
    let probe = || {
        let began = Instant::now();
        let answered = cluster.lab.node().run(|| PORTS.into_iter().all(answers));
        assert!(answered, "no answer while {} descriptors are open", descriptors(&agent));
        began.elapsed()
    };
    eventually("it listens", || outside.run(|| PORTS.into_iter().all(answers)));
    let (memory, open) = (anonymous(&agent), descriptors(&agent));

    let (over, connections) = (AtomicBool::new(false), AtomicUsize::new(0));
    let (over, connections) = (&over, &connections);
    std::thread::scope(|scope| {
        for port in PORTS {
            scope.spawn(move || outside.run(|| keep_silent(port, over, connections)));
            scope.spawn(move || outside.run(|| ask_slowly(port, over)));
            scope.spawn(move || outside.run(|| talk_without_end(port, over)));
        }
        // However this ends, the others end, too.
        let _over = Over(over);
        let mut longest = Duration::ZERO;
        let mut most = (memory, open);
        let began = Instant::now();
        while began.elapsed() < Duration::from_secs(5) || connections.load(Ordering::Relaxed) < 2 * SILENT {
            longest = longest.max(probe());
            most = (most.0.max(anonymous(&agent)), most.1.max(descriptors(&agent)));
            if began.elapsed() > Duration::from_secs(30) {
                break;
            }
        }
        let opened = connections.load(Ordering::Relaxed);
        eprintln!("{opened} connections; a probe took {longest:?} at most; KiB and descriptors: {most:?}");
        assert!(opened >= 2 * SILENT, "only {opened} connections were made");
        assert!(longest < PROBE, "a probe took {longest:?}");
        // At most 64 clients of each listener, with what they have said so far.
        assert!(most.1 < open + 150, "{open} descriptors before, {} then", most.1);
        assert!(most.0 < memory + (8 << 10), "{memory} KiB before, {} then", most.0);
    });
}

/// Tells the attackers to stop.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Whether `/livez` or `/healthz` there has an answer in time.
fn answers(port: u16) -> bool {
    let path = if port == PORTS[0] { "/livez" } else { "/healthz" };
    let ask = || {
        let mut stream = TcpStream::connect_timeout(&at(port), PROBE).ok()?;
        stream.set_read_timeout(Some(PROBE)).ok()?;
        write!(stream, "GET {path} HTTP/1.1\r\nHost: node\r\nConnection: close\r\n\r\n").ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        answer.starts_with("HTTP/1.1 200 ").then_some(())
    };
    ask().is_some()
}

fn at(port: u16) -> SocketAddr {
    SocketAddr::from((NODE_V4, port))
}

/// Connects and says nothing, again and again.
fn keep_silent(port: u16, over: &AtomicBool, connections: &AtomicUsize) {
    let mut silent = Vec::new();
    while !over.load(Ordering::Relaxed) {
        if silent.len() < SILENT
            && let Ok(stream) = TcpStream::connect_timeout(&at(port), PROBE)
        {
            silent.push(stream);
            connections.fetch_add(1, Ordering::Relaxed);
        } else {
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

/// A byte at a time, on as many connections as there are places.
fn ask_slowly(port: u16, over: &AtomicBool) {
    let question = b"GET /metrics HTTP/1.1\r\nHost: node\r\nX: ";
    let mut slow: Vec<(TcpStream, usize)> = Vec::new();
    while !over.load(Ordering::Relaxed) {
        if slow.len() < 64
            && let Ok(stream) = TcpStream::connect_timeout(&at(port), PROBE)
        {
            slow.push((stream, 0));
        }
        slow.retain_mut(|(stream, sent)| {
            *sent += 1;
            stream.write_all(&question[*sent % question.len()..][..1]).is_ok()
        });
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Headers that never end.
fn talk_without_end(port: u16, over: &AtomicBool) {
    while !over.load(Ordering::Relaxed) {
        let Ok(mut stream) = TcpStream::connect_timeout(&at(port), PROBE) else { continue };
        let _ = stream.set_write_timeout(Some(PROBE));
        let _ = stream.write_all(b"GET / HTTP/1.1\r\nX: ");
        while !over.load(Ordering::Relaxed) && stream.write_all(&[b'x'; 4096]).is_ok() {}
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Memory of the agent's own, in KiB.
fn anonymous(agent: &Agent) -> usize {
    let pid = agent.pid().expect("it runs");
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("procfs");
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).expect("a field");
    line.trim().split(' ').next().and_then(|number| number.parse().ok()).expect("a number")
}

fn descriptors(agent: &Agent) -> usize {
    let pid = agent.pid().expect("it runs");
    fs::read_dir(format!("/proc/{pid}/fd")).expect("procfs").count()
}
