//! A million packets: valid, mutated and random ones. No program may corrupt a checksum, a translated packet goes to an
//! endpoint of its Service, and a packet for no Service is unchanged.
//!
//! `SIDESTEP_SEED` repeats a run; without it each run has another seed, which is printed.

use std::{
    net::{IpAddr, SocketAddr},
    time::{Instant, SystemTime},
};

use sidestep_tests::{
    lab,
    packets::{ACK, Control, Datagram, FIN, RST, SYN, Transport, ethernet, hexadecimal, write_pcap},
    random::Random,
};

use crate::{
    judge::{ETHERNET, changed_only, judge, see},
    node::{KINDS, Node},
    test_run::{DROP, PASS, Runner},
};

/// How many packets.
const PACKETS: u32 = 1_000_000;
/// How many valid packets are made; all others are mutations of these.
const SAMPLES: usize = 4096;

/// An address of a family, and a port.
fn anyone(random: &mut Random, v6: bool) -> SocketAddr {
    let [a, b] = [random.below(8_u8), random.below(200_u8)];
    let ip: IpAddr = if v6 {
        [if random.once_in(4) { 0x2001 } else { 0xfd00 }, 0xc1, 0, 0, 0, 0, u16::from(a), u16::from(b)].into()
    } else {
        [if random.once_in(4) { 192 } else { 198 }, 18, a, b].into()
    };
    SocketAddr::new(ip, 1024 + random.below(64_u16))
}

/// The address and port of a frontend, with exceptions.
fn destination(random: &mut Random, node: IpAddr) -> SocketAddr {
    let frontend = random.one_of(&random.clone().one_of(&KINDS).frontends(node));
    match random.below(10_u8) {
        0 => SocketAddr::new(frontend.ip(), random.below(u16::MAX)),
        1 => anyone(random, node.is_ipv6()),
        _ => frontend,
    }
}

fn datagram(random: &mut Random, node: IpAddr) -> Datagram {
    let length = random.index(40);
    let payload = random.bytes(length);
    let (source, destination) = (anyone(random, node.is_ipv6()), destination(random, node));
    let control = random.one_of(&[SYN, SYN, ACK, ACK, ACK | 8, FIN | ACK, RST, RST | ACK, SYN | ACK]);
    let transport = match random.below(16_u8) {
        0..8 => Transport::Tcp {
            sequence: random.bits(),
            acknowledgement: random.bits(),
            control,
            options: vec![1; random.index(11) * 4],
        },
        8 => Transport::Udp { checksum: false },
        9 => Transport::Sctp,
        _ => Transport::Udp { checksum: true },
    };
    let mut datagram = Datagram::new(source, destination, transport, payload);
    if random.once_in(4) {
        datagram.options = vec![1; random.index(11) * 4];
        for kind in [0, 60, 43, 51, 60] {
            if random.once_in(4) {
                let length = 6 + random.index(3) * 8;
                datagram.extensions.push((kind, random.bytes(length)));
            }
        }
    }
    if random.once_in(8) {
        datagram.identification = Some(random.below(16_u32));
    }
    datagram
}

/// A valid packet of any kind.
fn valid(random: &mut Random, node: &Node) -> Vec<u8> {
    let address = random.one_of(&node.addresses);
    let datagram = datagram(random, address);
    match random.below(8_u8) {
        0 if datagram.segment().len() > 32 => {
            let cuts = (datagram.segment().len() - 1) / 8;
            let cut = 8 * (1 + random.index(cuts));
            random.one_of(&datagram.fragments(cut))
        }
        1 => {
            // It quotes a reply to a client, with the frontend as its source.
            let reply = datagram.from(datagram.destination).to(datagram.source);
            let mut quoted = reply.packet();
            let length = reply.network_length() + 4 + random.index(40);
            quoted.truncate(length);
            let kind = if address.is_ipv6() { random.below(6_u8) } else { random.below(14_u8) };
            let (source, rest) = (anyone(random, address.is_ipv6()).ip(), random.bits());
            Control { source, destination: reply.source.ip(), kind, code: random.below(5_u8), rest, quoted }
                .packet()
        }
        _ => datagram.packet(),
    }
}

/// Mutates a frame in a few places, or leaves it unchanged.
fn mutate(random: &mut Random, frame: &mut Vec<u8>) {
    match random.below(8_u8) {
        0 => {
            let length = ETHERNET + random.index(90);
            *frame = [&frame[..ETHERNET], &random.bytes(length - ETHERNET)[..]].concat();
        }
        1 => frame.truncate(ETHERNET + random.index(frame.len() - ETHERNET)),
        2..5 => {
            for _ in 0..=random.index(3) {
                // Mostly in the headers.
                let reach = frame.len().min(80) - 12;
                let place = 12 + random.index(reach);
                frame[place] = match random.below(4_u8) {
                    0 => 0,
                    1 => 0xff,
                    2 => frame[place] ^ (1 << random.below(8_u8)),
                    _ => random.bits().to_le_bytes()[0],
                };
            }
        }
        _ => {}
    }
}

/// Panics with a description of a failed case.
fn fail(seed: u64, number: u32, frames: [&[u8]; 2], why: &str) -> ! {
    let file = std::env::temp_dir().join(format!("sidestep-packets-{seed}-{number}.pcap"));
    let kept =
        write_pcap(&file, &frames).map_or_else(|error| error.to_string(), |()| file.display().to_string());
    panic!(
        "SIDESTEP_SEED={seed}, packet {number}: {why}\n{}\nbecame{}\nkept in {kept}",
        hexadecimal(frames[0]),
        hexadecimal(frames[1])
    );
}

#[test]
fn a_million_packets_are_translated_or_left_alone_and_never_corrupted() {
    let lab = lab!();
    lab.node().run(|| {
        let seed = std::env::var("SIDESTEP_SEED").map_or_else(
            |_| SystemTime::UNIX_EPOCH.elapsed().expect("a clock").as_secs(),
            |text| text.parse().expect("a number"),
        );
        println!("SIDESTEP_SEED={seed}");
        let mut random = Random::new(seed);
        // Room for all confirmed flows, so that none is refused; the others evict each other.
        let node = Node::new(&lab, 1 << 17);
        let mut ingress = Runner::new(&node.programs, "ingress", node.uplink);
        let mut egress = Runner::new(&node.programs, "egress", node.uplink);
        let samples: Vec<Vec<u8>> = (0..SAMPLES).map(|_| ethernet(&valid(&mut random, &node))).collect();
        let began = Instant::now();
        let (mut counts, mut translated, mut masqueraded) = ([0_u32; 9], 0_u32, 0_u32);
        let (mut answered, mut lost) = (0_u32, 0_u32);
        for number in 0..PACKETS {
            let mut frame = random.one_of(&samples);
            mutate(&mut random, &mut frame);
            let outcome = ingress.run(&frame);
            if let Err(why) = judge(&node, &frame, &outcome) {
                fail(seed, number, [&frame, &outcome.frame], &why);
            }
            counts[usize::try_from(outcome.action + 1).expect("an action")] += 1;
            if outcome.action != PASS {
                continue;
            }
            let changed = outcome.frame != frame;
            translated += u32::from(changed);
            // Some packets go on to egress, which changes only sources.
            if !changed && !random.once_in(8) {
                continue;
            }
            let left = egress.run(&outcome.frame);
            let why = match (see(&outcome.frame), see(&left.frame)) {
                _ if left.action == DROP && changed => continue,
                _ if left.action != PASS => Err(format!("egress returned {}", left.action)),
                (Some(before), Some(after)) if left.frame != outcome.frame && !matches!(before.protocol, 1 | 58) => {
                    masqueraded += 1;
                    let node_address = node.addresses[usize::from(before.source.is_ipv6())];
                    let is_source = after.source.ip() == node_address
                        && (before.later || node.source_ports.contains(&after.source.port()));
                    if is_source && after.destination == before.destination {
                        changed_only(&outcome.frame, &left.frame, |_| true)
                    } else {
                        Err(format!("{before:?} left as {after:?}"))
                    }
                }
                _ => changed_only(&outcome.frame, &left.frame, |_| true),
            };
            if let Err(why) = why {
                fail(seed, number, [&outcome.frame, &left.frame], &format!("at egress, {why}"));
            }
            // The endpoint answers.
            let Some(seen) = see(&left.frame).filter(|seen| changed && seen.plain && matches!(seen.protocol, 6 | 17)) else {
                continue;
            };
            let Some(asked) = see(&frame) else { continue };
            let control = if seen.protocol == 6 { frame[seen.transport + 13] } else { 0 };
            let transport = match seen.protocol {
                6 => Transport::Tcp { sequence: 1, acknowledgement: 2, control: SYN | ACK, options: Vec::new() },
                _ => Transport::Udp { checksum: true },
            };
            // Of TCP, only a SYN gets an answer: a flow that has ended accepts no SYN-ACK.
            if control & 0x17 != SYN && seen.protocol == 6 || !random.once_in(2) {
                continue;
            }
            let answer = Datagram::new(seen.destination, seen.source, transport, vec![5; 11]);
            let back = ingress.run(&ethernet(&answer.packet()));
            let back = egress.run(&back.frame);
            let expected = ethernet(&answer.from(asked.destination).to(asked.source).packet());
            answered += 1;
            if back.frame == expected {
                continue;
            }
            // Many flows in a small table evict each other: an answer may then be lost, but never reach another client.
            lost += 1;
            let ends = see(&back.frame).map(|seen| (seen.source, seen.destination));
            let may = [
                (seen.destination, seen.source),
                (seen.destination, asked.source),
                (asked.destination, seen.source),
                (seen.destination, SocketAddr::new(asked.source.ip(), seen.source.port())),
            ];
            if !ends.is_some_and(|ends| may.contains(&ends)) {
                fail(seed, number, [&back.frame, &expected], &format!("the answer to {asked:?} through {seen:?}"));
            }
        }
        println!(
            "{PACKETS} packets in {:?}: {} went on ({translated} translated, {masqueraded} masqueraded), {} were \
             dropped, {} answered by the node, {answered} by endpoints ({lost} answers lost)",
            began.elapsed(),
            counts[0],
            counts[3],
            counts[8]
        );
        // Otherwise the test proves nothing.
        assert!(translated > PACKETS / 10 && masqueraded > PACKETS / 100 && answered > PACKETS / 100);
        assert!(lost <= answered / 1000, "{lost} of {answered} answers were lost");
    });
}
