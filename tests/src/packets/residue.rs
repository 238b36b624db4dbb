//! The residues of a packet's checksums. A right checksum has the residue zero. That of a wrong checksum, or of one
//! whose data is incomplete, stays the same if the packet is translated properly.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The residues, in 0..0xffff; nothing where there is no such checksum.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Residues {
    /// Of the IPv4 header.
    pub header: Option<u16>,
    /// Of the transport or ICMP message.
    pub transport: Option<u16>,
    /// Of the IPv4 header that an ICMP error quotes.
    pub quoted_header: Option<u16>,
    /// Of the transport that an ICMP error quotes.
    pub quoted_transport: Option<u16>,
}

/// Those of a packet, which begins with its network header; bytes that are not a packet have none.
pub fn residues(packet: &[u8]) -> Residues {
    let Some(Layers { header, protocol, addresses, transport, fragment }) = layers(packet) else {
        return Residues::default();
    };
    if fragment == Some(Part::Later) {
        return Residues { header, ..Residues::default() };
    }
    let mut found = Residues { header, ..Residues::default() };
    let pseudo = pseudo_header(addresses[0], addresses[1], protocol, transport.len());
    match protocol {
        1 if transport.len() >= 4 => found.transport = Some(modulo(&[transport])),
        58 if transport.len() >= 4 => found.transport = Some(modulo(&[&pseudo, transport])),
        _ => found.transport = of_transport(protocol, &pseudo, transport),
    }
    if matches!(protocol, 1 | 58)
        && transport.len() > 8
        && let Some(quoted) = layers(&transport[8..])
        && quoted.fragment != Some(Part::Later)
    {
        let [source, destination] = quoted.addresses;
        let pseudo = pseudo_header(source, destination, quoted.protocol, quoted.transport.len());
        found.quoted_header = quoted.header;
        found.quoted_transport = of_transport(quoted.protocol, &pseudo, quoted.transport);
    }
    found
}

fn of_transport(protocol: u8, pseudo: &[u8], transport: &[u8]) -> Option<u16> {
    let offset = match protocol {
        6 => 16,
        17 => 6,
        _ => return None,
    };
    let checksum = transport.get(offset..offset + 2)?;
    if protocol == 17 && checksum == [0, 0] {
        return None;
    }
    Some(modulo(&[pseudo, transport]))
}

#[derive(PartialEq, Eq)]
enum Part {
    First,
    Later,
}

struct Layers<'a> {
    header: Option<u16>,
    protocol: u8,
    addresses: [IpAddr; 2],
    transport: &'a [u8],
    fragment: Option<Part>,
}

fn layers(packet: &[u8]) -> Option<Layers<'_>> {
    match packet.first()? >> 4 {
        4 => {
            let length = usize::from(packet[0] & 15) * 4;
            let header = packet.get(..length.max(20))?;
            let [a, b] = [header[6] & 0x3f, header[7]];
            let address = |at: usize| -> IpAddr {
                Ipv4Addr::new(header[at], header[at + 1], header[at + 2], header[at + 3]).into()
            };
            Some(Layers {
                header: Some(modulo(&[header])),
                protocol: header[9],
                addresses: [address(12), address(16)],
                transport: &packet[header.len()..],
                fragment: match ((a & 0x1f, b) != (0, 0), a & 0x20 != 0) {
                    (true, _) => Some(Part::Later),
                    (false, true) => Some(Part::First),
                    _ => None,
                },
            })
        }
        6 => {
            let header = packet.get(..40)?;
            let address = |at: usize| -> IpAddr {
                Ipv6Addr::from(<[u8; 16]>::try_from(&header[at..at + 16]).expect("sixteen bytes")).into()
            };
            let (mut protocol, mut rest, mut fragment) = (header[6], &packet[40..], None);
            while matches!(protocol, 0 | 43 | 44 | 51 | 60) {
                let extension = rest.get(..8)?;
                let length = match protocol {
                    44 => 8,
                    51 => 8 + usize::from(extension[1]) * 4,
                    _ => 8 + usize::from(extension[1]) * 8,
                };
                if protocol == 44 {
                    fragment = match (extension[2] != 0 || extension[3] & 0xf8 != 0, extension[3] & 1 != 0) {
                        (true, _) => Some(Part::Later),
                        (false, true) => Some(Part::First),
                        _ => None,
                    };
                }
                protocol = extension[0];
                rest = rest.get(length..)?;
                if fragment == Some(Part::Later) {
                    break;
                }
            }
            Some(Layers {
                header: None,
                protocol,
                addresses: [address(8), address(24)],
                transport: rest,
                fragment,
            })
        }
        _ => None,
    }
}

/// The pseudo-header, which a transport's checksum also covers.
pub(super) fn pseudo_header(source: IpAddr, destination: IpAddr, protocol: u8, length: usize) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(40);
    for address in [source, destination] {
        match address {
            IpAddr::V4(address) => bytes.extend(address.octets()),
            IpAddr::V6(address) => bytes.extend(address.octets()),
        }
    }
    bytes.extend(u32::try_from(length).expect("a short packet").to_be_bytes());
    bytes.extend([0, 0, 0, protocol]);
    bytes
}

/// The ones' complement sum of these parts; all but the last have an even length.
pub(super) fn ones(parts: &[&[u8]]) -> u16 {
    let mut sum = 0_u64;
    for part in parts {
        let (pairs, odd) = part.as_chunks::<2>();
        sum += pairs.iter().map(|pair| u64::from(u16::from_be_bytes(*pair))).sum::<u64>();
        sum += odd.first().map_or(0, |byte| u64::from(*byte) << 8);
    }
    while sum > 0xffff {
        sum = (sum >> 16) + (sum & 0xffff);
    }
    u16::try_from(sum).expect("sixteen bits")
}

/// The sum modulo 0xffff, in which both zeros of ones' complement are 0.
fn modulo(parts: &[&[u8]]) -> u16 {
    ones(parts) % 0xffff
}
