//! Whether the time of a flow's elements is over. Pure: time comes in, in seconds since boot.
//!
//! A flow is one or two pairs of elements (`proxy_common::flow`). The elements of a pair go together, when both have been
//! idle for long enough. The pair that masquerades goes later than the one that leads to it: without the first a packet
//! of the client would leave the node with the client's address.

use std::time::Duration;

use proxy_common::{FlowKey, Life, Protocol};

use super::Timeouts;

/// By how much the pair that masquerades outlives the other one.
const MARGIN: u64 = 60;
/// How long a flow stays confirmed that has ended. Programs see to that; this is for what they could not see.
const ENDED: Duration = Duration::from_mins(2);

/// What an element's pair does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Pair {
    /// Leads from the frontend to the endpoint, and answers back.
    Destination,
    /// Masquerades.
    Source,
}

/// What is to become of a pair.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Verdict {
    Remove,
    /// Not before so many seconds have passed.
    Keep(u64),
}

impl Pair {
    /// The pair of an element: of packets from the client, what is done at ingress is done to destinations.
    pub(super) fn of(key: &FlowKey, life: Life) -> Self {
        if key.is_ingress() == life.has(Life::FORWARD) { Self::Destination } else { Self::Source }
    }
}

/// The verdict on a pair, of which one element may be missing.
pub(super) fn verdict(
    timeouts: &Timeouts,
    now: u32,
    key: &FlowKey,
    life: Life,
    peer: Option<Life>,
) -> Verdict {
    let peer = peer.unwrap_or_default();
    let limit = if life.ended(peer) {
        ENDED.min(longest(timeouts, key))
    } else if key.protocol != Protocol::Tcp as u8 {
        timeouts.udp_stream
    } else if (life.bits | peer.bits) & Life::FIN != 0 {
        timeouts.tcp_close_wait
    } else {
        timeouts.tcp_established
    };
    judge(limit, now, key, life, life.seconds.max(peer.seconds))
}

/// The verdict on an element of whose peer nothing is known: at least so long the pair stays. (But for one that the other
/// side has reset, which the programs had no room to move: it is found later.)
pub(super) fn at_least(timeouts: &Timeouts, now: u32, key: &FlowKey, life: Life) -> Verdict {
    let limit = if key.protocol == Protocol::Tcp as u8 {
        timeouts.tcp_established.min(timeouts.tcp_close_wait)
    } else {
        timeouts.udp_stream
    };
    let limit = if life.bits & (Life::FIN | Life::RST) == 0 { limit } else { limit.min(ENDED) };
    judge(limit, now, key, life, life.seconds)
}

/// The shortest time that any flow stays.
pub(super) fn least(timeouts: &Timeouts) -> Duration {
    let Timeouts { tcp_established, tcp_close_wait, udp_stream, udp: _ } = *timeouts;
    tcp_established.min(tcp_close_wait).min(udp_stream).min(ENDED)
}

fn longest(timeouts: &Timeouts, key: &FlowKey) -> Duration {
    if key.protocol == Protocol::Tcp as u8 { timeouts.tcp_established } else { timeouts.udp_stream }
}

fn judge(limit: Duration, now: u32, key: &FlowKey, life: Life, used: u32) -> Verdict {
    let margin = if Pair::of(key, life) == Pair::Source { MARGIN } else { 0 };
    let limit = limit.as_millis().div_ceil(1000);
    let limit = u64::try_from(limit).unwrap_or(u64::MAX).saturating_add(margin);
    // A packet may have come since the clock was read.
    let idle = u64::from(now.saturating_sub(used));
    if idle > limit { Verdict::Remove } else { Verdict::Keep(limit - idle + 1) }
}

#[cfg(test)]
mod tests {
    use proxy_common::{Address, PacketHook, Port};

    use super::*;

    const TCP: u8 = Protocol::Tcp as u8;
    const UDP: u8 = Protocol::Udp as u8;
    const NOW: u32 = 1_000_000;

    fn key(hook: PacketHook, protocol: u8) -> FlowKey {
        let end = (Address::from(std::net::IpAddr::from([192, 0, 2, 1])), Port::new(1));
        FlowKey::new(hook, protocol, end, end)
    }

    /// Idle for so many seconds.
    fn idle(seconds: u32, bits: u32) -> Life {
        Life { seconds: NOW - seconds, bits }
    }

    /// CF-14: a pair goes when both its elements are idle for longer than the timeout of its protocol and state.
    #[test]
    fn a_pair_goes_when_both_elements_are_idle_for_long_enough() {
        const FORWARD: u32 = Life::FORWARD;
        const FIN: u32 = Life::FIN;
        let timeouts = Timeouts {
            tcp_established: Duration::from_secs(1000),
            tcp_close_wait: Duration::from_secs(100),
            udp: Duration::from_secs(1),
            udp_stream: Duration::from_secs(50),
        };
        let never = Life::default();
        for (what, protocol, forward, reply, limit) in [
            ("TCP", TCP, FORWARD, Some(0), 1000),
            ("half closed by the client", TCP, FORWARD | FIN, Some(0), 100),
            ("half closed by the server", TCP, FORWARD, Some(FIN), 100),
            ("closed", TCP, FORWARD | FIN, Some(FIN), 120),
            ("reset", TCP, FORWARD, Some(Life::RST), 120),
            ("TCP without a peer", TCP, FORWARD, None, 1000),
            ("UDP", UDP, FORWARD, Some(0), 50),
            ("UDP without a peer", UDP, FORWARD, None, 50),
            ("anything else", 132, FORWARD, Some(0), 50),
        ] {
            for (hook, limit) in [(PacketHook::Ingress, limit), (PacketHook::Egress, limit + 60)] {
                let key = key(hook, protocol);
                let verdict = |forward_idle, reply_idle| {
                    let reply = reply.map(|bits| idle(reply_idle, bits));
                    verdict(&timeouts, NOW, &key, idle(forward_idle, forward), reply)
                };
                let (more, less) = (limit + 1, u64::from(limit) + 1);
                assert_eq!(verdict(more, more), Verdict::Remove, "{what} at {hook:?}");
                assert_eq!(verdict(limit, more), Verdict::Keep(1), "{what} at {hook:?}: the client");
                if reply.is_some() {
                    assert_eq!(verdict(more, limit), Verdict::Keep(1), "{what} at {hook:?}: the server");
                    assert_eq!(verdict(more, 0), Verdict::Keep(less), "{what} at {hook:?}");
                }
                let first = at_least(&timeouts, NOW, &key, idle(0, forward));
                assert!(matches!(first, Verdict::Keep(seconds) if seconds <= less), "{what}: {first:?}");
            }
        }
        let (later, key) = (Life { seconds: NOW + 5, bits: FORWARD }, key(PacketHook::Ingress, TCP));
        assert_eq!(
            verdict(&timeouts, NOW, &key, later, Some(never)),
            Verdict::Keep(1001),
            "a packet just now"
        );
        assert_eq!(least(&timeouts).as_secs(), 50);
    }

    /// The pair that masquerades stays longer than the one that leads to it, whatever the timeouts are.
    #[test]
    fn the_pair_that_masquerades_outlives_the_other() {
        let short = Duration::from_millis(1);
        let timeouts =
            Timeouts { tcp_established: short, tcp_close_wait: short, udp: short, udp_stream: short };
        for timeouts in [timeouts, Timeouts::default()] {
            for (protocol, bits) in [(TCP, 0), (TCP, Life::FIN), (TCP, Life::RST), (UDP, 0)] {
                let (forward, reply) = (idle(90_000, Life::FORWARD | bits), idle(90_000, 0));
                let last = |hook| {
                    let kept = |now| verdict(&timeouts, now, &key(hook, protocol), forward, Some(reply));
                    (forward.seconds..NOW + 100_000)
                        .find(|now| kept(*now) == Verdict::Remove)
                        .expect("an end")
                };
                assert_eq!(last(PacketHook::Ingress) + 60, last(PacketHook::Egress), "{protocol} {bits}");
            }
        }
    }

    #[test]
    fn what_an_element_does_tells_its_pair() {
        for (hook, bits, pair) in [
            (PacketHook::Ingress, Life::FORWARD, Pair::Destination),
            (PacketHook::Egress, 0, Pair::Destination),
            (PacketHook::Egress, Life::FORWARD | Life::FIN, Pair::Source),
            (PacketHook::Ingress, Life::RST, Pair::Source),
        ] {
            assert_eq!(Pair::of(&key(hook, TCP), Life { seconds: 1, bits }), pair, "{hook:?} {bits}");
        }
    }
}
