//! Whether a connection has timed out. Pure: the time is an argument, in seconds since boot.

use std::time::Duration;

use proxy_common::{Protocol, Record, connection::Seen};

use crate::timeouts::Timeouts;

/// How long an ended connection stays confirmed. The programs release it earlier if they saw it end.
const ENDED: Duration = Duration::from_mins(2);

/// The verdict on a confirmed connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Verdict {
    Release,
    /// Not within this many seconds.
    Keep(u64),
}

/// The verdict on a confirmed connection at `now`.
pub(super) fn verdict(timeouts: &Timeouts, now: u32, record: &Record) -> Verdict {
    let Seen { client, endpoint, .. } = record.ends.seen;
    let is_tcp = record.ends.protocol == Protocol::Tcp as u8;
    let longest = if is_tcp { timeouts.tcp_established } else { timeouts.udp_stream };
    let limit = if record.ends.seen.ended() {
        ENDED.min(longest)
    } else if is_tcp && (client | endpoint) & Seen::FIN != 0 {
        timeouts.tcp_close_wait
    } else {
        longest
    };
    let limit = u64::try_from(limit.as_millis().div_ceil(1000)).unwrap_or(u64::MAX);
    // A packet may have come since the clock was read.
    let idle = u64::from(now.saturating_sub(record.origin.seconds));
    if idle > limit { Verdict::Release } else { Verdict::Keep(limit - idle + 1) }
}

/// The shortest time that any confirmed connection stays.
pub(super) fn least(timeouts: &Timeouts) -> Duration {
    let Timeouts { tcp_established, tcp_close_wait, udp_stream, udp: _ } = *timeouts;
    tcp_established.min(tcp_close_wait).min(udp_stream).min(ENDED)
}

#[cfg(test)]
mod tests {
    use super::{super::tests::record, *};

    const NOW: u32 = 1_000_000;

    /// CF-14: a connection goes when it is idle for longer than the timeout of its protocol and state.
    #[test]
    fn a_connection_goes_when_it_is_idle_for_long_enough() {
        let timeouts = Timeouts {
            tcp_established: Duration::from_secs(1000),
            tcp_close_wait: Duration::from_secs(100),
            udp: Duration::from_secs(1),
            udp_stream: Duration::from_secs(50),
        };
        let (tcp, udp, fin) = (Protocol::Tcp, Protocol::Udp, Seen::FIN);
        for (what, protocol, client, endpoint, reset, limit) in [
            ("TCP", tcp, 0, 0, 0, 1000),
            ("half closed by the client", tcp, fin, 0, 0, 100),
            ("half closed by the server", tcp, 0, fin, 0, 100),
            ("closed", tcp, fin, fin, 0, 120),
            ("reset", tcp, 0, 0, 1, 120),
            ("UDP", udp, 0, 0, 0, 50),
        ] {
            let idle = |seconds: u32| {
                let mut record = record(1, protocol);
                record.ends.seen = Seen { client, endpoint, reset, route: 0 };
                record.origin.seconds = NOW - seconds;
                verdict(&timeouts, NOW, &record)
            };
            assert_eq!(idle(limit + 1), Verdict::Release, "{what}");
            assert_eq!(idle(limit), Verdict::Keep(1), "{what}");
            assert_eq!(idle(0), Verdict::Keep(u64::from(limit) + 1), "{what}");
        }
        let mut just_now = record(1, tcp);
        just_now.origin.seconds = NOW + 5;
        assert_eq!(verdict(&timeouts, NOW, &just_now), Verdict::Keep(1001));
        assert_eq!(least(&timeouts).as_secs(), 50);
    }
}
