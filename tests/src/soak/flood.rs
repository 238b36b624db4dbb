//! Bursts of SYNs and datagrams from spoofed clients.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    time::{Duration, Instant},
};

use anyhow::Result;

use super::ledger::{Event, Ledger};
use crate::{frames::FrameSender, two_nodes::TwoNodes, two_nodes::node_ports};

/// Frames of a burst, and the interval of bursts: a rate at which their conntrack entries, which last two minutes at
/// most, stay well below conntrack's limit (262,144).
const BURST: u32 = 200;
const PERIOD: Duration = Duration::from_millis(400);

/// The flood.
pub(super) struct Flood {
    sender: FrameSender,
    number: u32,
    next: Instant,
}

impl Flood {
    /// A flood from `outside`'s device.
    pub(super) fn new(nodes: &TwoNodes) -> Result<Self> {
        Ok(Self { sender: FrameSender::new(nodes)?, number: 0, next: Instant::now() })
    }

    /// Sends a burst if one is due.
    pub(super) fn step(&mut self, ledger: &Ledger) -> Result<()> {
        if Instant::now() < self.next {
            return Ok(());
        }
        self.next = Instant::now() + PERIOD;
        for _ in 0..BURST {
            self.number = self.number.wrapping_add(1);
            let way = node_ports()[usize::from(self.number.is_multiple_of(2))];
            let source = SocketAddr::new(made_up(way.tcp.is_ipv4(), self.number), 1024 + self.port());
            if self.number % 8 < 6 {
                self.sender.syn(source, way.tcp, self.number)?;
            } else {
                self.sender.datagram(source, way.udp, b"a flood")?;
            }
        }
        ledger.count(Event::Flooded, BURST.into());
        Ok(())
    }

    fn port(&self) -> u16 {
        u16::try_from(self.number % 60_000).unwrap_or_default()
    }
}

/// An address that no host has. An odd step visits every address of 100.64.0.0/10 once, in no particular order.
fn made_up(v4: bool, number: u32) -> IpAddr {
    let bits = number.wrapping_mul(2_654_435) & 0x003f_ffff;
    if v4 {
        Ipv4Addr::from_bits(0x6440_0000 | bits).into()
    } else {
        let prefix = Ipv6Addr::new(0x2001, 0xdb8, 0x6440, 0, 0, 0, 0, 0).to_bits();
        Ipv6Addr::from_bits(prefix | u128::from(bits)).into()
    }
}
