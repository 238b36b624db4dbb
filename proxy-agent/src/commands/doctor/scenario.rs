//! The contract between the self-test and its client: the Services' addresses, and the servers behind them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use serde::{Deserialize, Serialize};

/// Addresses for documentation (RFC 5737, RFC 3849), which no host has.
pub(super) const VIP4: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 10));
pub(super) const VIP6: IpAddr = IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x10));
/// The Services' port.
pub(super) const PORT: u16 = 80;
/// The port of the Service without endpoints.
pub(super) const EMPTY_PORT: u16 = 81;
/// A port of the ClusterIP that no Service has.
pub(super) const UNKNOWN_PORT: u16 = 82;

/// The servers' ports on loopback.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(super) struct Servers {
    pub(super) tcp4: u16,
    pub(super) udp4: u16,
    pub(super) tcp6: u16,
    pub(super) udp6: u16,
}
