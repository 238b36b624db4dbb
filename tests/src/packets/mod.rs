//! Packets as bytes, made field by field, and their checksums.
//!
//! | file | concept |
//! |---|---|
//! | `datagram` | TCP, UDP and SCTP packets of any shape: options, extension headers, fragments |
//! | `control` | ICMP and ICMPv6 errors |
//! | `residue` | the residues of a packet's checksums: zero if they are right |
//! | `written` | packets in hexadecimal, and in files that Wireshark reads |
//!
//! Nothing here uses Sidestep's own arithmetic, so that a mistake there cannot cancel itself out here. Packets begin
//! with their network header.

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
