//! Transport packets with every shape of network header.

use std::net::{IpAddr, SocketAddr};

use super::residue::{ones, pseudo_header};

/// TCP's control bits.
pub const FIN: u8 = 1;
/// SYN: begins a connection; also in its answer.
pub const SYN: u8 = 2;
/// RST: ends a connection at once.
pub const RST: u8 = 4;
/// ACK: in every segment but the first.
pub const ACK: u8 = 16;

/// A transport header.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Transport {
    /// RFC 9293.
    Tcp {
        /// The sequence number.
        sequence: u32,
        /// The acknowledgement number.
        acknowledgement: u32,
        /// The control bits.
        control: u8,
        /// Options: a multiple of four bytes.
        options: Vec<u8>,
    },
    /// RFC 768.
    Udp {
        /// Whether it has a checksum.
        checksum: bool,
    },
    /// RFC 9260; the checksum, which is a CRC, is left at 0.
    Sctp,
}

/// A datagram or segment.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Datagram {
    /// The source.
    pub source: SocketAddr,
    /// The destination, of the same family.
    pub destination: SocketAddr,
    /// The transport header.
    pub transport: Transport,
    /// The payload.
    pub payload: Vec<u8>,
    /// IPv4 options: a multiple of four bytes, at most forty.
    pub options: Vec<u8>,
    /// IPv6 extension headers in order: the kind, and the bytes after the first two: 6, 14, 22…
    pub extensions: Vec<(u8, Vec<u8>)>,
    /// The identification: of IPv4, or of an IPv6 atomic fragment (RFC 6946).
    pub identification: Option<u32>,
}

impl Datagram {
    /// A datagram without options and extension headers.
    pub const fn new(
        source: SocketAddr,
        destination: SocketAddr,
        transport: Transport,
        payload: Vec<u8>,
    ) -> Self {
        Self {
            source,
            destination,
            transport,
            payload,
            options: Vec::new(),
            extensions: Vec::new(),
            identification: None,
        }
    }

    /// A UDP datagram.
    pub const fn udp(source: SocketAddr, destination: SocketAddr, payload: Vec<u8>) -> Self {
        Self::new(source, destination, Transport::Udp { checksum: true }, payload)
    }

    /// A TCP segment.
    pub const fn tcp(source: SocketAddr, destination: SocketAddr, control: u8, payload: Vec<u8>) -> Self {
        let (sequence, acknowledgement) = (0x0102_0304, if control & ACK == 0 { 0 } else { 0xf5f6_f7f8 });
        let transport = Transport::Tcp { sequence, acknowledgement, control, options: Vec::new() };
        Self::new(source, destination, transport, payload)
    }

    /// The same with another source.
    #[must_use]
    pub fn from(&self, source: SocketAddr) -> Self {
        Self { source, ..self.clone() }
    }

    /// The same with another destination.
    #[must_use]
    pub fn to(&self, destination: SocketAddr) -> Self {
        Self { destination, ..self.clone() }
    }

    /// IANA protocol number of the transport.
    pub const fn protocol(&self) -> u8 {
        match self.transport {
            Transport::Tcp { .. } => 6,
            Transport::Udp { .. } => 17,
            Transport::Sctp => 132,
        }
    }

    /// Bytes before the transport header in a whole packet.
    pub fn network_length(&self) -> usize {
        self.packet().len() - self.segment().len()
    }

    /// The whole packet.
    pub fn packet(&self) -> Vec<u8> {
        self.cut(&self.segment(), 0, false, self.identification)
    }

    /// The packet in two fragments, the first with `at` bytes, a multiple of eight.
    pub fn fragments(&self, at: usize) -> [Vec<u8>; 2] {
        let segment = self.segment();
        let (first, later) = segment.split_at(at);
        let identification = Some(self.identification.unwrap_or(7));
        [self.cut(first, 0, true, identification), self.cut(later, at, false, identification)]
    }

    /// The packet in fragments of this many bytes each, a multiple of eight, in order.
    pub fn pieces(&self, size: usize) -> Vec<Vec<u8>> {
        let segment = self.segment();
        let identification = Some(self.identification.unwrap_or(7));
        let parts = (0..).step_by(size).zip(segment.chunks(size));
        parts.map(|(at, part)| self.cut(part, at, at + part.len() < segment.len(), identification)).collect()
    }

    /// The transport header and the payload, with the right checksum.
    pub fn segment(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        bytes.extend(self.source.port().to_be_bytes());
        bytes.extend(self.destination.port().to_be_bytes());
        let checksum = match &self.transport {
            Transport::Tcp { sequence, acknowledgement, control, options } => {
                bytes.extend(sequence.to_be_bytes());
                bytes.extend(acknowledgement.to_be_bytes());
                let words = u8::try_from(5 + options.len() / 4).expect("forty bytes of options at most");
                bytes.extend([words << 4, *control, 0xfa, 0xf0, 0, 0, 0, 0]);
                bytes.extend(options);
                Some(16)
            }
            Transport::Udp { checksum } => {
                bytes.extend(length(8 + self.payload.len()));
                bytes.extend([0, 0]);
                checksum.then_some(6)
            }
            Transport::Sctp => {
                bytes.extend([1, 2, 3, 4, 0, 0, 0, 0]);
                None
            }
        };
        bytes.extend(&self.payload);
        if let Some(offset) = checksum {
            let pseudo = pseudo_header(self.source.ip(), self.destination.ip(), self.protocol(), bytes.len());
            let mut sum = !ones(&[&pseudo, &bytes]);
            if sum == 0 && self.protocol() == 17 {
                sum = 0xffff;
            }
            bytes[offset..offset + 2].copy_from_slice(&sum.to_be_bytes());
        }
        bytes
    }

    /// Whether the checksum happens to equal the sum of the pseudo-header (1 in 65,536). Programs take such a packet
    /// for one whose checksum is still to be computed, as they have no other sign of that.
    pub fn looks_partial(&self) -> bool {
        let segment = self.segment();
        let pseudo = pseudo_header(self.source.ip(), self.destination.ip(), self.protocol(), segment.len());
        let offset = if self.protocol() == 6 { 16 } else { 6 };
        segment[offset..offset + 2] == ones(&[&pseudo]).to_be_bytes()
    }

    /// A packet with this part of the transport's bytes, which begins at `offset`.
    fn cut(&self, part: &[u8], offset: usize, more: bool, identification: Option<u32>) -> Vec<u8> {
        let fragment = u16::try_from(offset).expect("a short datagram");
        let mut packet = match (self.source.ip(), self.destination.ip()) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                let total = 20 + self.options.len() + part.len();
                let words = u8::try_from(5 + self.options.len() / 4).expect("forty bytes of options at most");
                let mut header = vec![0x40 | words, 0x2e];
                header.extend(length(total));
                header.extend(u16::try_from(identification.unwrap_or(0)).unwrap_or(0xfeed).to_be_bytes());
                let whole = if offset == 0 && !more { 0x4000 } else { 0 };
                header.extend((whole | (u16::from(more) << 13) | (fragment / 8)).to_be_bytes());
                header.extend([63, self.protocol(), 0, 0]);
                header.extend(source.octets());
                header.extend(destination.octets());
                header.extend(&self.options);
                let sum = !ones(&[&header]);
                header[10..12].copy_from_slice(&sum.to_be_bytes());
                header
            }
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                let mut extensions: Vec<(u8, Vec<u8>)> = self.extensions.clone();
                if let Some(identification) = identification {
                    let mut body = (fragment | u16::from(more)).to_be_bytes().to_vec();
                    body.extend(identification.to_be_bytes());
                    // Destination options may follow the fragment header; all other headers precede it.
                    let place =
                        extensions.iter().position(|(kind, _)| *kind == 60).unwrap_or(extensions.len());
                    extensions.insert(place, (44, body));
                }
                let mut chain = Vec::new();
                let after = extensions.iter().skip(1).map(|(kind, _)| *kind).chain([self.protocol()]);
                for ((kind, body), next) in extensions.iter().zip(after) {
                    chain.push(next);
                    chain.push(match kind {
                        44 => 0,
                        51 => u8::try_from((body.len() + 2) / 4).expect("short") - 2,
                        _ => u8::try_from((body.len() + 2) / 8).expect("short") - 1,
                    });
                    chain.extend(body);
                }
                let first = extensions.first().map_or(self.protocol(), |(kind, _)| *kind);
                let mut header = vec![0x62, 0xe1, 0x23, 0x45];
                header.extend(length(chain.len() + part.len()));
                header.extend([first, 63]);
                header.extend(source.octets());
                header.extend(destination.octets());
                header.extend(chain);
                header
            }
            _ => panic!("source and destination have different families: {self:?}"),
        };
        packet.extend(part);
        packet
    }
}

/// The hardware address that [`ethernet`] sends frames to.
pub const HARDWARE_ADDRESS: [u8; 6] = [2, 0, 0, 0, 0, 1];

/// A frame that carries a packet.
pub fn ethernet(packet: &[u8]) -> Vec<u8> {
    let kind = if packet.first().is_some_and(|first| first >> 4 == 6) { [0x86, 0xdd] } else { [8, 0] };
    [&HARDWARE_ADDRESS, &[2, 0, 0, 0, 0, 2], &kind[..], packet].concat()
}

/// A length in the format of headers.
pub(super) fn length(bytes: usize) -> [u8; 2] {
    u16::try_from(bytes).expect("a short packet").to_be_bytes()
}
