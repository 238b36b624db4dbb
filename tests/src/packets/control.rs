//! ICMP (RFC 792) and ICMPv6 (RFC 4443) messages, mainly errors.

use std::net::IpAddr;

use super::{
    datagram::length,
    residue::{ones, pseudo_header},
};

/// A message.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Control {
    /// The sender.
    pub source: IpAddr,
    /// The receiver, of the same family.
    pub destination: IpAddr,
    /// The type.
    pub kind: u8,
    /// The code.
    pub code: u8,
    /// The four bytes after the checksum: the MTU, or zeros.
    pub rest: u32,
    /// The beginning of the packet that it quotes.
    pub quoted: Vec<u8>,
}

impl Control {
    /// The packet.
    pub fn packet(&self) -> Vec<u8> {
        let mut message = vec![self.kind, self.code, 0, 0];
        message.extend(self.rest.to_be_bytes());
        message.extend(&self.quoted);
        let mut packet = match (self.source, self.destination) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                let sum = !ones(&[&message]);
                message[2..4].copy_from_slice(&sum.to_be_bytes());
                let mut header = vec![0x45, 0xc0];
                header.extend(length(20 + message.len()));
                header.extend([0, 9, 0, 0, 62, 1, 0, 0]);
                header.extend(source.octets());
                header.extend(destination.octets());
                let sum = !ones(&[&header]);
                header[10..12].copy_from_slice(&sum.to_be_bytes());
                header
            }
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                let pseudo = pseudo_header(self.source, self.destination, 58, message.len());
                let sum = !ones(&[&pseudo, &message]);
                message[2..4].copy_from_slice(&sum.to_be_bytes());
                let mut header = vec![0x60, 0, 0, 0];
                header.extend(length(message.len()));
                header.extend([58, 62]);
                header.extend(source.octets());
                header.extend(destination.octets());
                header
            }
            _ => panic!("source and destination have different families: {self:?}"),
        };
        packet.extend(message);
        packet
    }
}
