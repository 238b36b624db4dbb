//! The clients that are connected: how many, and for how long. Clients may be slow, silent or hostile, and none of them
//! keeps out the others: when there is no room, one of the host with the most connections makes room, the one that has
//! been there longest without being answered.

use std::{
    collections::{HashMap, VecDeque},
    net::IpAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::task::AbortHandle;

use super::lock;

/// How long a client may take.
#[derive(Clone, Copy, Debug)]
pub(super) struct Times {
    /// For a question, and for taking the last answer.
    pub(super) question: Duration,
    /// With all questions on one connection.
    pub(super) connection: Duration,
}

impl Default for Times {
    fn default() -> Self {
        Self { question: Duration::from_secs(10), connection: Duration::from_mins(1) }
    }
}

/// Whether a client is being answered.
#[derive(Clone, Default, Debug)]
pub(super) struct Busy(Arc<AtomicUsize>);

impl Busy {
    /// It is, until the value is dropped.
    pub(super) fn begin(&self) -> Answering {
        self.0.fetch_add(1, Ordering::Relaxed);
        Answering(self.clone())
    }

    fn is_answering(&self) -> bool {
        self.0.load(Ordering::Relaxed) > 0
    }
}

/// An answer at hand.
#[derive(Debug)]
pub(super) struct Answering(Busy);

impl Drop for Answering {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The clients of one listener, or of many that share their room.
#[derive(Debug)]
pub(super) struct Guests {
    room: usize,
    times: Times,
    /// In the order of their coming.
    present: Mutex<VecDeque<Guest>>,
}

#[derive(Debug)]
struct Guest {
    host: Host,
    busy: Busy,
    task: AbortHandle,
}

/// Addresses that one host has: of IPv6, a whole network.
type Host = [u8; 8];

fn host(address: IpAddr) -> Host {
    let mut host = [0; 8];
    match address.to_canonical() {
        IpAddr::V4(v4) => host[4..].copy_from_slice(&v4.octets()),
        IpAddr::V6(v6) => host.copy_from_slice(&v6.octets()[..8]),
    }
    host
}

impl Guests {
    /// At most `room` at the same time.
    pub(super) fn new(room: usize, times: Times) -> Arc<Self> {
        Arc::new(Self { room, times, present: Mutex::default() })
    }

    pub(super) fn times(&self) -> Times {
        self.times
    }

    /// One more; another one may have to go.
    pub(super) fn admit(&self, address: IpAddr, task: AbortHandle, busy: Busy) {
        let mut present = lock(&self.present);
        present.retain(|guest| !guest.task.is_finished());
        if present.len() >= self.room
            && let Some(place) = who_goes(present.iter().map(|guest| (guest.host, guest.busy.is_answering())))
            && let Some(guest) = present.remove(place)
        {
            guest.task.abort();
        }
        present.push_back(Guest { host: host(address), busy, task });
    }
}

/// The place of the one that makes room, of all in the order of their coming: each with its host, and whether it is being
/// answered.
fn who_goes(present: impl Iterator<Item = (Host, bool)> + Clone) -> Option<usize> {
    let mut counts: HashMap<Host, usize> = HashMap::new();
    for (host, _) in present.clone() {
        *counts.entry(host).or_default() += 1;
    }
    let most = counts.values().max().copied()?;
    let of_the_most = present.enumerate().filter(|(_, (host, _))| counts[host] == most);
    // `min_by_key` takes the first of those that are equal.
    of_the_most.min_by_key(|(_, (_, answering))| *answering).map(|(place, _)| place)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_host_with_the_most_connections_makes_room() {
        let [one, other] = [[1; 8], [2; 8]];
        for (present, place) in [
            (vec![], None),
            (vec![(one, false)], Some(0)),
            (vec![(one, false), (other, false)], Some(0)),
            (vec![(one, false), (other, false), (other, false)], Some(1)),
            // Those that wait go first.
            (vec![(one, false), (other, true), (other, false)], Some(2)),
            (vec![(one, false), (other, true), (other, true)], Some(1)),
        ] {
            assert_eq!(who_goes(present.iter().copied()), place, "{present:?}");
        }
    }

    #[test]
    fn a_network_of_ipv6_is_one_host() {
        let of = |address: &str| host(address.parse().expect("an address"));
        assert_eq!(of("2001:db8::1"), of("2001:db8::ffff:1"));
        assert_ne!(of("2001:db8::1"), of("2001:db8:0:1::1"));
        assert_eq!(of("10.0.0.1"), of("::ffff:10.0.0.1"));
        assert_ne!(of("10.0.0.1"), of("10.0.0.2"));
    }
}
