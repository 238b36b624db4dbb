//! A LoadBalancer IP with source ranges: enforced, or withheld on a kernel without network namespace cookies.

use std::fs;
use std::io::{self, ErrorKind};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use crate::{ENDPOINT, agent};

const VIP: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 7);
/// Longest wait until the agent has installed a change, on an emulated processor.
const LIMIT: Duration = Duration::from_secs(20);

/// Installs the Service for this machine's own address, then for others only.
pub(crate) fn check() -> Result<String> {
    write(&format!("{ENDPOINT}/32"))?;
    let start = Instant::now();
    while let Err(error) = connect() {
        if agent::problems().contains("loadBalancerSourceRanges") {
            return Ok("withheld".to_owned());
        }
        if start.elapsed() > LIMIT {
            bail!("a client within the source ranges is not served: {error}");
        }
        thread::sleep(Duration::from_millis(50));
    }
    write("198.51.100.0/24")?;
    let start = Instant::now();
    loop {
        match connect() {
            Err(error) if error.kind() == ErrorKind::ConnectionRefused => return Ok("kept".to_owned()),
            Err(error) => bail!("the error is not ECONNREFUSED: {error}"),
            Ok(()) if start.elapsed() > LIMIT => {
                bail!("a client outside of the source ranges is still served after {} s", LIMIT.as_secs())
            }
            Ok(()) => thread::sleep(Duration::from_millis(50)),
        }
    }
}

fn connect() -> io::Result<()> {
    TcpStream::connect_timeout(&SocketAddr::from((VIP, 80)), Duration::from_secs(5)).map(drop)
}

fn write(range: &str) -> Result<()> {
    let manifest =
        include_str!("ranges.yaml").replace("RANGE", range).replace("ENDPOINT", &ENDPOINT.to_string());
    fs::write("/ranges.draft", manifest).context("cannot write /ranges.draft")?;
    fs::rename("/ranges.draft", "/manifests/ranges.yaml")
        .context("cannot rename /ranges.draft to /manifests/ranges.yaml")
}
