//! The checks, in the order of the table that `cargo xtask vm` prints.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpStream, UdpSocket};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};

use crate::{agent, programs, ranges, scenarios};

const LIMIT: Duration = Duration::from_secs(5);
/// The Service `echo`, as in the manifests.
const VIP: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 10);
/// The Service `empty`, which has no endpoints.
const EMPTY: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 11);

/// Runs all checks; true if all pass.
pub(crate) fn run() -> Result<bool> {
    let mut agent = agent::start()?;
    let synced = agent::wait_until_synced(&mut agent);
    let mut all = vec![
        say("load", &agent::loaded().map(|()| String::new())),
        say("attach", &agent::attached().map(|count| format!("{count} links"))),
        say("sync", &synced.map(|()| String::new())),
        say("devices", &agent::devices()),
        say("doctor", &agent::doctor().map(|()| String::new())),
        say("ClusterIP, TCP", &tcp()),
        say("ClusterIP, UDP", &udp()),
        say("ClusterIP, refusal", &refusal()),
        say("source ranges, one namespace", &ranges::check()),
    ];
    for (program, count) in programs::verified()? {
        println!("VM VERIFIED {program}\t{count}");
    }
    agent.kill().context("cannot kill the agent")?;
    agent.wait().context("cannot wait for the agent")?;
    all.push(say("cleanup of the node", &agent::cleanup()));
    for scenario in scenarios::read()? {
        all.push(scenario.run()?);
    }
    Ok(all.iter().all(|ok| *ok))
}

fn say(name: &str, result: &Result<String>) -> bool {
    match result {
        Ok(detail) => println!("VM CHECK {name}\tok\t{detail}"),
        Err(error) => println!("VM CHECK {name}\tFAIL\t{error:#}"),
    }
    result.is_ok()
}

/// A TCP connection to the ClusterIP is answered, and its peer is the ClusterIP.
fn tcp() -> Result<String> {
    let vip = SocketAddr::from((VIP, 80));
    let mut stream = TcpStream::connect_timeout(&vip, LIMIT).with_context(|| format!("connect to {vip}"))?;
    stream.set_read_timeout(Some(LIMIT))?;
    let peer = stream.peer_addr().context("getpeername")?;
    ensure!(peer == vip, "the peer is {peer}, not the Service");
    stream.write_all(b"ping").context("write")?;
    let mut answer = [0; 4];
    stream.read_exact(&mut answer).context("read")?;
    ensure!(&answer == b"ping", "the answer is {answer:?}, not \"ping\"");
    Ok(String::new())
}

/// A datagram to the ClusterIP is answered, and the answer comes from the ClusterIP.
fn udp() -> Result<String> {
    let vip = SocketAddr::from((VIP, 53));
    let socket = UdpSocket::bind("0.0.0.0:0").context("bind")?;
    socket.set_read_timeout(Some(LIMIT))?;
    socket.send_to(b"ping", vip).context("sendto")?;
    let mut answer = [0; 16];
    let (length, source) = socket.recv_from(&mut answer).context("recvfrom")?;
    ensure!(source == vip, "the answer came from {source}, not from the Service");
    ensure!(&answer[..length] == b"ping", "the answer is {:?}, not \"ping\"", &answer[..length]);
    Ok(String::new())
}

/// A connection to a Service without endpoints is refused at once.
fn refusal() -> Result<String> {
    match TcpStream::connect_timeout(&SocketAddr::from((EMPTY, 80)), LIMIT) {
        Ok(_) => bail!("connected to a Service without endpoints"),
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => Ok(String::new()),
        Err(error) => bail!("the error is not ECONNREFUSED: {error}"),
    }
}
