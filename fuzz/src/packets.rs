//! Packets: what a byte says of the hook, the address and port that the packet gets, the packet from its network header
//! on.
//!
//! Checksums are judged by their residues, which are computed without the arithmetic of the programs: a translation
//! neither makes a wrong checksum right nor a right one wrong.

use std::net::IpAddr;

use bytemuck::{Zeroable as _, bytes_of, pod_read_unaligned};
use proxy_common::{
    Address, Network, Port,
    packet::{
        Fragment, Numbers, Segment, Side, Transport, answer, error,
        forward::{self, Head, HeadV4, HeadV6},
        network, rewrite, transport,
    },
};
use sidestep_tests::packets::{hexadecimal, residues};

use crate::skb::{LINK, Skb, add};

const V6: u8 = 1;
const SOURCE: u8 = 2;
const COMPLETE: u8 = 4;

/// Who asks for what.
struct Case {
    v6: bool,
    side: Side,
    complete: bool,
    new: (Address, Port),
}

pub(crate) fn decode(bytes: &[u8]) {
    let Some((&[what], rest)) = bytes.split_first_chunk() else { return };
    let Some((&[high, low], rest)) = rest.split_first_chunk() else { return };
    let v6 = what & V6 != 0;
    let (address, packet): (IpAddr, &[u8]) = if v6 {
        let Some((address, packet)) = rest.split_first_chunk::<16>() else { return };
        ((*address).into(), packet)
    } else {
        let Some((address, packet)) = rest.split_first_chunk::<4>() else { return };
        ((*address).into(), packet)
    };
    let new = (Address::from(address), Port::new(u16::from_be_bytes([high, low])));
    if new.0.is_v4() == v6 {
        return;
    }
    let side = if what & SOURCE != 0 { Side::Source } else { Side::Destination };
    Case { v6, side, complete: what & COMPLETE != 0, new }.all(packet);
}

impl Case {
    fn skb(&self, packet: &[u8]) -> Skb {
        if self.complete { Skb::complete(packet) } else { Skb::new(packet) }
    }

    /// Everything that the programs do with a packet.
    fn all(&self, packet: &[u8]) {
        let skb = self.skb(packet);
        let Some(network) = network::parse(&skb, LINK, self.v6) else { return };
        assert!(network.v6 == self.v6 && network.source.is_v4() != self.v6);
        assert!(network.transport >= network.offset + 20 && (network.transport - LINK).is_multiple_of(4));
        answers(&skb, &network);
        let parsed = match network.fragment {
            Fragment::Later => Some(Transport {
                source: Port::new(1),
                destination: Port::new(2),
                segment: Segment::LATER,
                numbers: Numbers::default(),
            }),
            _ => transport::parse(&skb, network.transport, network.protocol),
        };
        if let Some(transport) = parsed {
            self.rewritten(packet, &network, &transport);
            if network.is_plain() && network.fragment == Fragment::Whole && forward::has_hops(&skb, &network)
            {
                if self.v6 {
                    self.sent_on::<HeadV6>(packet, &network, &transport);
                } else {
                    self.sent_on::<HeadV4>(packet, &network, &transport);
                }
            }
        }
        if forward::has_hops(&skb, &network) {
            let mut later = self.skb(packet);
            forward::take_hop(&mut later, &network).expect("a packet with hops");
            self.same_sums(packet, &later, "a hop later");
        }
        if let Some(quoted) = error::parse(&skb, &network) {
            self.error(packet, &network, &quoted);
        }
    }

    /// There and back.
    fn rewritten(&self, packet: &[u8], network: &Network, transport: &Transport) {
        let mut skb = self.skb(packet);
        if rewrite(&mut skb, network, transport, self.side, self.new).is_none() {
            return;
        }
        self.same_sums(packet, &skb, "rewritten");
        let there = network::parse(&skb, LINK, self.v6).expect("still a packet");
        let (old, kept) = match self.side {
            Side::Source => ((network.source, transport.source), network.destination == there.destination),
            Side::Destination => {
                ((network.destination, transport.destination), network.source == there.source)
            }
        };
        let now = if self.side == Side::Source { there.source } else { there.destination };
        assert!(now == self.new.0 && kept, "{network:?} became {there:?}");
        let transport = match there.fragment {
            Fragment::Later => *transport,
            _ => transport::parse(&skb, there.transport, there.protocol).expect("still a transport"),
        };
        rewrite(&mut skb, &there, &transport, self.side, old).expect("what went there comes back");
        self.same_sums(packet, &skb, "there and back");
        let (back, before) = (without_sums(&skb, network), without_sums(&self.skb(packet), network));
        assert!(back == before, "{}\nwas{}", hexadecimal(&back), hexadecimal(&before));
    }

    /// Past the stack.
    fn sent_on<H: Head>(&self, packet: &[u8], network: &Network, transport: &Transport) {
        let mut skb = self.skb(packet);
        let Some(head) = skb.bytes.get(..size_of::<H>()) else { return };
        let mut head: H = pod_read_unaligned(head);
        let (hops, other) = (head.hops(), (network.source, Port::new(77)));
        let frame = [[0xeeee; 3]; 2];
        if forward::send_on(&mut skb, &mut head, (network, transport), self.new, other, frame).is_none() {
            return;
        }
        self.same_sums(packet, &skb, "sent on");
        let there = network::parse(&skb, LINK, self.v6).expect("still a packet");
        assert!((there.source, there.destination) == (self.new.0, other.0), "{there:?}");
        assert!(pod_read_unaligned::<H>(&skb.bytes[..size_of::<H>()]).hops() == hops - 1);
    }

    fn error(&self, packet: &[u8], outer: &Network, quoted: &error::Quoted) {
        let mut skb = self.skb(packet);
        if error::rewrite(&mut skb, outer, quoted, self.side, self.new).is_none() {
            return;
        }
        self.same_sums(packet, &skb, "an error");
        let there = network::parse(&skb, LINK, self.v6).expect("still a packet");
        let quotes = error::parse(&skb, &there).expect("still an error");
        let [(was, quoted_was), (is, quoted_is)] =
            [(outer, quoted), (&there, &quotes)].map(|(outer, quoted)| match self.side {
                Side::Destination => (outer.destination, (quoted.network.source, quoted.transport.source)),
                Side::Source => (outer.source, (quoted.network.destination, quoted.transport.destination)),
            });
        assert!(is == self.new.0 && quoted_is == self.new, "{quotes:?}");
        if was == quoted_was.0 {
            error::rewrite(&mut skb, &there, &quotes, self.side, quoted_was).expect("comes back");
            self.same_sums(packet, &skb, "an error there and back");
            let back = network::parse(&skb, LINK, self.v6).expect("still a packet");
            let quotes = error::parse(&skb, &back).expect("still an error");
            assert!(
                quotes.tuple() == quoted.tuple() && back.source == outer.source,
                "{quotes:?} was {quoted:?}"
            );
        }
    }

    /// The checksums are as right or wrong as they were, and so is the sum of the device.
    fn same_sums(&self, packet: &[u8], skb: &Skb, what: &str) {
        assert_eq!(skb.packet().len(), packet.len(), "{what}");
        let (before, after) = (residues(packet), residues(skb.packet()));
        let say = || format!("{what}: {}\nwas{}", hexadecimal(skb.packet()), hexadecimal(packet));
        assert_eq!(before, after, "{}", say());
        // Nothing verifies the sum of a datagram without a checksum.
        let is_summed = !self.complete || before.transport.is_some() || !self.has_ports(packet);
        assert!(!is_summed || skb.is_consistent(), "{:?} {}", skb.summed, say());
    }

    fn has_ports(&self, packet: &[u8]) -> bool {
        let skb = Skb::new(packet);
        network::parse(&skb, LINK, self.v6).is_some_and(|network| {
            network.fragment != Fragment::Later
                && transport::parse(&skb, network.transport, network.protocol).is_some()
        })
    }
}

/// The packet without its checksums, of which each has two spellings of zero.
fn without_sums(skb: &Skb, network: &Network) -> Vec<u8> {
    let mut packet = skb.packet().to_vec();
    let transport =
        (network.fragment != Fragment::Later).then(|| transport::checksum_offset(network.protocol)).flatten();
    let header = (!network.v6).then_some(network.checksum_offset());
    for offset in header.into_iter().chain(transport.map(|offset| network.transport + offset)) {
        let at = (offset - LINK) as usize;
        if let Some(checksum) = packet.get_mut(at..at + 2) {
            checksum.fill(0);
        }
    }
    packet
}

/// Answers are packets from whom was asked, with right checksums; where the refused packet's is still to be computed, so
/// is the answer's.
fn answers(skb: &Skb, network: &Network) {
    let mut found: Vec<(Vec<u8>, usize)> = Vec::new();
    if network.v6 {
        if network.protocol == 6 {
            found.extend(answer::reset_v6(skb, network).map(|answer| (bytes_of(&answer).to_vec(), 16)));
        }
        let mut unreachable = answer::UnreachableV6::zeroed();
        if network.protocol == 17 && answer::unreachable_v6(skb, network, &mut unreachable) {
            found.push((bytes_of(&unreachable).to_vec(), 6));
        }
    } else {
        if network.protocol == 6 {
            found.extend(answer::reset_v4(skb, network).map(|answer| (bytes_of(&answer).to_vec(), 16)));
        }
        if network.protocol == 17 {
            found.extend(answer::unreachable_v4(skb, network).map(|answer| (bytes_of(&answer).to_vec(), 6)));
        }
    }
    for (answer, checksum) in found {
        let read = Skb::new(&answer);
        let there = network::parse(&read, LINK, network.v6).expect("an answer is a packet");
        assert!((there.source, there.destination) == (network.destination, network.source), "{there:?}");
        assert!(residues(&answer).header.is_none_or(|residue| residue == 0), "{}", hexadecimal(&answer));
        if residues(&answer).transport == Some(0) {
            continue;
        }
        // As the device does: the sum from the transport header on.
        let mut computed = answer.clone();
        let at = (there.transport - LINK) as usize;
        let sum = !add(&answer[at..]);
        computed[at + checksum..at + checksum + 2].copy_from_slice(&sum.to_ne_bytes());
        assert_eq!(residues(&computed).transport, Some(0), "{}", hexadecimal(&answer));
    }
}
