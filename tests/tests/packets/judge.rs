//! Decides from a packet's bytes alone which outcomes are allowed at ingress.

use std::net::{IpAddr, SocketAddr};

use sidestep_tests::packets::residues;

use crate::{
    node::{Kind, Node, is_cluster_ip},
    test_run::{DROP, Outcome, PASS, REDIRECT},
};

/// Bytes of an Ethernet header.
pub(crate) const ETHERNET: usize = 14;

/// A packet's addresses and their offsets.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Seen {
    pub(crate) source: SocketAddr,
    pub(crate) destination: SocketAddr,
    pub(crate) protocol: u8,
    /// The offset of the destination address in the frame.
    address: usize,
    /// The offset of the transport header.
    pub(crate) transport: usize,
    /// A later fragment, which has no ports.
    pub(crate) later: bool,
    /// A whole datagram, without options or extension headers.
    pub(crate) plain: bool,
}

/// Reads a frame. Nothing for a frame that our programs do not parse.
pub(crate) fn see(frame: &[u8]) -> Option<Seen> {
    let packet = frame.get(ETHERNET..)?;
    let (source, destination, protocol, address, transport, later, plain);
    match (&frame[12..14], packet.first()? >> 4) {
        ([8, 0], 4) => {
            let header = packet.get(..20)?;
            let word =
                |at: usize| IpAddr::from(<[u8; 4]>::try_from(&header[at..at + 4]).expect("four bytes"));
            let length = usize::from(header[0] & 15) * 4;
            if length < 20 {
                return None;
            }
            (source, destination, protocol) = (word(12), word(16), header[9]);
            (address, transport) = (ETHERNET + 16, ETHERNET + length);
            later = (header[6] & 0x1f, header[7]) != (0, 0);
            plain = length == 20 && !later && header[6] & 0x20 == 0;
        }
        ([0x86, 0xdd], 6) => {
            let header = packet.get(..40)?;
            let word =
                |at: usize| IpAddr::from(<[u8; 16]>::try_from(&header[at..at + 16]).expect("sixteen bytes"));
            let (mut next, mut at, mut is_later, mut seen) = (header[6], 40, false, 0);
            while matches!(next, 0 | 43 | 44 | 51 | 60) && !is_later {
                let extension = packet.get(at..at + 8)?;
                is_later = next == 44 && (extension[2] != 0 || extension[3] & 0xf8 != 0);
                at += match next {
                    44 => 8,
                    51 => 8 + usize::from(extension[1]) * 4,
                    _ => 8 + usize::from(extension[1]) * 8,
                };
                next = extension[0];
                seen += 1;
                if seen > 6 {
                    return None;
                }
            }
            (source, destination, protocol) = (word(8), word(24), next);
            (address, transport, later, plain) = (ETHERNET + 24, ETHERNET + at, is_later, seen == 0);
        }
        _ => return None,
    }
    let ports = if later { [0; 4] } else { frame.get(transport..transport + 4)?.try_into().ok()? };
    let [a, b, c, d] = ports;
    Some(Seen {
        source: SocketAddr::new(source, u16::from_be_bytes([a, b])),
        destination: SocketAddr::new(destination, u16::from_be_bytes([c, d])),
        protocol,
        address,
        transport,
        later,
        plain,
    })
}

/// Checks the outcome of a frame at ingress; an error says what is wrong.
pub(crate) fn judge(node: &Node, frame: &[u8], outcome: &Outcome) -> Result<(), String> {
    let Some(seen) = see(frame) else {
        return if outcome.action == PASS && outcome.frame == frame {
            Ok(())
        } else {
            Err("our programs do not parse the frame, but it was not left alone".to_owned())
        };
    };
    let is_control = matches!(seen.protocol, 1 | 58);
    match outcome.action {
        PASS if outcome.frame == frame => {
            let served = node.service(seen.destination).filter(|_| !seen.later && is_served(seen.protocol));
            // PO-23: in TCP only a SYN begins a connection.
            let known =
                seen.protocol != 6 || frame.get(seen.transport + 13).is_none_or(|bits| bits & 0x17 != 2);
            match served {
                Some((kind, _)) if !known => Err(format!("it is for {kind:?}, but was left alone")),
                _ => Ok(()),
            }
        }
        PASS if is_control => changed_only(frame, &outcome.frame, |_| true),
        PASS => translated(node, frame, &outcome.frame, seen),
        DROP if node.is_ours(seen.destination.ip()) || is_control => Ok(()),
        DROP => Err("it is for no Service, but was dropped".to_owned()),
        // PO-29: the program holds it, and it arrives again.
        REDIRECT if seen.later && outcome.frame == frame => Ok(()),
        REDIRECT => answered(node, frame, &outcome.frame, seen),
        other => Err(format!("unknown action {other}")),
    }
}

const fn is_served(protocol: u8) -> bool {
    matches!(protocol, 6 | 17)
}

/// Checks that a packet to a frontend became one to an endpoint of its Service.
fn translated(node: &Node, before: &[u8], after: &[u8], seen: Seen) -> Result<(), String> {
    let Some(new) = see(after) else { return Err("it became an invalid packet".to_owned()) };
    if seen.later {
        // The first fragment had the ports; only the address can be checked.
        if !node.is_ours(seen.destination.ip()) {
            return Err(format!("a fragment for {} was changed", seen.destination));
        }
    } else {
        let Some((kind, load_balancer)) = node.service(seen.destination) else {
            return Err(format!(
                "no Service is at {}, but it was sent to {}",
                seen.destination, new.destination
            ));
        };
        if !kind.targets(seen.destination.is_ipv6()).contains(&new.destination) {
            return Err(format!("{kind:?} at {} led to {}", seen.destination, new.destination));
        }
        if load_balancer && !kind.admits(seen.source.ip()) {
            return Err(format!("{} may not use {}", seen.source, seen.destination));
        }
    }
    // The client's port may already have a flow to the endpoint through another frontend.
    let remapped = !seen.later && new.source.port() != seen.source.port();
    if remapped && !node.source_ports.contains(&new.source.port()) {
        return Err(format!("{} got the port {}", seen.source, new.source.port()));
    }
    let length = if seen.destination.is_ipv6() { 16 } else { 4 };
    changed_only(before, after, |place| {
        let checksum = match seen.protocol {
            6 => seen.transport + 16,
            _ => seen.transport + 6,
        };
        (seen.address..seen.address + length).contains(&place)
            || (!seen.later && (seen.transport + 2..seen.transport + 4).contains(&place))
            || (remapped && (seen.transport..seen.transport + 2).contains(&place))
            || (!seen.later && (checksum..checksum + 2).contains(&place))
            || (length == 4 && (ETHERNET + 10..ETHERNET + 12).contains(&place))
    })
}

/// Checks that only bytes for which `may` holds changed, and that checksums are as right or wrong as before.
pub(crate) fn changed_only(before: &[u8], after: &[u8], may: impl Fn(usize) -> bool) -> Result<(), String> {
    if before.len() != after.len() {
        return Err(format!("{} bytes became {}", before.len(), after.len()));
    }
    if let Some(place) = (0..before.len()).find(|place| before[*place] != after[*place] && !may(*place)) {
        return Err(format!("byte {place} must not change"));
    }
    let sums = [before, after].map(|frame| residues(&frame[ETHERNET..]));
    if sums[0] != sums[1] {
        return Err(format!("the checksums' residues were {:?} and are {:?}", sums[0], sums[1]));
    }
    Ok(())
}

/// Checks that a refused packet became an answer to its sender.
fn answered(node: &Node, before: &[u8], after: &[u8], seen: Seen) -> Result<(), String> {
    let refused = match node.service(seen.destination) {
        Some((kind, load_balancer)) => {
            kind == Kind::None && (!load_balancer || kind.admits(seen.source.ip()))
        }
        None => is_cluster_ip(seen.destination.ip()),
    };
    if !refused || !seen.plain {
        return Err(format!("{seen:?} must not be refused with an answer"));
    }
    if after[..6] != before[6..12] || after[6..12] != before[..6] {
        return Err("the answer does not leave by the device on which the packet arrived".to_owned());
    }
    let Some(answer) = see(after) else { return Err("the answer is not a valid packet".to_owned()) };
    if (answer.source.ip(), answer.destination.ip()) != (seen.destination.ip(), seen.source.ip()) {
        return Err(format!("{seen:?} was answered by {answer:?}"));
    }
    if seen.protocol == 6 && (answer.source, answer.destination) != (seen.destination, seen.source) {
        return Err(format!("{seen:?} was answered by {answer:?}"));
    }
    // The quoted packet's checksums are as right or wrong as before.
    let (came, sums) = (residues(&before[ETHERNET..]), residues(&after[ETHERNET..]));
    let is_right = [sums.header, sums.transport].into_iter().flatten().all(|residue| residue == 0)
        && sums.quoted_header.is_none_or(|quoted| Some(quoted) == came.header);
    if is_right { Ok(()) } else { Err(format!("the answer's checksums have the residues {sums:?}")) }
}
