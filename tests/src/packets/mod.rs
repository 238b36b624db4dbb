//! Packets as bytes: made field by field, and judged from scratch.
//!
//! | file | concept |
//! |---|---|
//! | `datagram` | TCP, UDP and SCTP packets of any shape: options, extension headers, fragments |
//! | `control` | ICMP and ICMPv6 errors |
//! | `residue` | what the checksums of any packet leave over: nothing, if they are right |
//! | `written` | packets for people: hexadecimal, and a file that Wireshark reads |
//!
//! Nothing here uses Sidestep's own arithmetic, so that a mistake there cannot hide behind itself here. Packets begin with
//! their network header.

mod control;
mod datagram;
mod residue;
mod written;

pub use self::{
    control::Control,
    datagram::{ACK, Datagram, FIN, HARDWARE_ADDRESS, RST, SYN, Transport, ethernet},
    residue::{Residues, residues},
    written::{hexadecimal, write_pcap},
};
