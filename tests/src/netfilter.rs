//! Netfilter rules that a scenario loads, and conntrack entries that result from them.

use std::{
    io::Write,
    process::{Command, Stdio},
};

use anyhow::{Context, Result, ensure};

use crate::place::Place;

/// Loads rules in the syntax of `nft` into a place.
pub fn nft(place: &Place, rules: &str) -> Result<()> {
    load(place, &["nft", "-f", "-"], rules)
}

/// Adds rules in the syntax of `iptables-save` to a place; `program` is
/// `iptables-restore` or `ip6tables-restore`.
pub fn restore(place: &Place, program: &str, rules: &str) -> Result<()> {
    load(place, &[program, "--noflush"], rules)
}

/// Activates connection tracking in a place, in both families, by a rule that reads a connection's state and changes
/// nothing.
pub fn track(place: &Place) -> Result<()> {
    nft(
        place,
        "table inet tracking {
    chain forward {
        type filter hook forward priority filter; policy accept;
        ct state established accept
    }
}
",
    )
}

fn load(place: &Place, program: &[&str], rules: &str) -> Result<()> {
    let mut command = Command::new(program[0]);
    command.args(&program[1..]).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = place.namespace().run(|| command.spawn())?.with_context(|| program[0].to_owned())?;
    let written = child.stdin.take().context("the pipe")?.write_all(rules.as_bytes());
    let output = child.wait_with_output()?;
    let stderr = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{}: {}\n{rules}", program[0], stderr.trim());
    written.with_context(|| program[0].to_owned())
}

/// A conntrack entry, as `conntrack -L` prints it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Tracked {
    /// `tcp`, `udp` and so on.
    pub protocol: String,
    /// TCP's state (`ESTABLISHED`); UDP has none.
    pub state: Option<String>,
    /// The ports of both directions: source and destination of the first, then of the second.
    pub ports: Vec<u16>,
    /// The whole line.
    pub line: String,
}

impl Tracked {
    /// Parses a line such as `tcp 6 431999 ESTABLISHED src=… dst=… sport=1 dport=2 src=… dst=… sport=2 dport=1
    /// [ASSURED] …`.
    fn parse(line: &str) -> Option<Self> {
        let words: Vec<&str> = line.split_whitespace().collect();
        let [protocol, _number, _seconds, fourth, ..] = words.as_slice() else { return None };
        let state = (!fourth.contains('=')).then(|| (*fourth).to_owned());
        let port = |word: &&str| word.strip_prefix("sport=").or(word.strip_prefix("dport="))?.parse().ok();
        let ports = words.iter().filter_map(port).collect();
        Some(Self { protocol: (*protocol).to_owned(), state, ports, line: line.to_owned() })
    }

    /// Whether either direction has this port at either end.
    pub fn has_port(&self, port: u16) -> bool {
        self.ports.contains(&port)
    }

    /// Whether it is a TCP connection in state ESTABLISHED.
    pub fn is_established(&self) -> bool {
        self.state.as_deref() == Some("ESTABLISHED")
    }
}

/// All conntrack entries of a place, in both families.
pub fn tracked(place: &Place) -> Result<Vec<Tracked>> {
    let mut found = Vec::new();
    for family in ["ipv4", "ipv6"] {
        let mut command = Command::new("conntrack");
        command.args(["-L", "-f", family]);
        let output = place
            .namespace()
            .run(|| command.output())?
            .context("cannot run `conntrack` (package conntrack)")?;
        let stderr = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "conntrack -L: {}", stderr.trim());
        found.extend(String::from_utf8_lossy(&output.stdout).lines().filter_map(Tracked::parse));
    }
    Ok(found)
}

/// Sets conntrack's timeouts in a place, in seconds, for every state of a TCP connection but `ESTABLISHED`.
pub fn forget_soon(place: &Place, seconds: u32) -> Result<()> {
    const STATES: [&str; 7] =
        ["syn_sent", "syn_recv", "fin_wait", "close_wait", "last_ack", "time_wait", "close"];
    place.run(|| {
        STATES.iter().try_for_each(|state| {
            let file = format!("/proc/sys/net/netfilter/nf_conntrack_tcp_timeout_{state}");
            std::fs::write(&file, seconds.to_string()).context(file)
        })
    })
}

#[cfg(test)]
mod tests {
    use super::Tracked;

    #[test]
    fn a_line_of_conntrack_is_read() {
        let line = "tcp      6 86399 ESTABLISHED src=192.0.2.100 dst=10.244.1.10 sport=40000 dport=8080 \
                    src=10.244.1.10 dst=192.0.2.100 sport=8080 dport=40000 [ASSURED] mark=0 use=1";
        let tracked = Tracked::parse(line).expect("a connection");
        assert!(tracked.is_established());
        assert_eq!(tracked.ports, [40_000, 8080, 8080, 40_000]);
        let line =
            "udp      17 29 src=::1 dst=::2 sport=1 dport=2 [UNREPLIED] src=::2 dst=::1 sport=2 dport=1";
        let tracked = Tracked::parse(line).expect("an exchange");
        assert_eq!((tracked.protocol.as_str(), &tracked.state), ("udp", &None));
        assert!(tracked.has_port(2) && !tracked.has_port(3));
    }
}
