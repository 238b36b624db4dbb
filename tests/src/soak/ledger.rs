//! Counts of events, and of broken promises.

use std::{
    collections::HashMap,
    fmt,
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use crate::netfilter::Tracked;

/// How many violations of each promise are kept as text; all are counted.
const KEPT: u64 = 8;
/// A question is forgotten after this many later ones: by then it can no longer reach a second endpoint.
const REMEMBERED: u64 = 200_000;

/// A counted event.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(usize)]
pub(super) enum Event {
    /// A TCP connection that was established, got an answer to each question, and ended.
    Connection,
    /// A UDP exchange that was answered.
    Exchange,
    /// A connection that was refused.
    Refused,
    /// A datagram that was repeated because no answer arrived.
    Repeated,
    /// A connection whose SYN was retransmitted.
    Slow,
    /// A frame of a flood.
    Flooded,
    /// A change of the Service's endpoints.
    Change,
    /// A start of the agent, after it was stopped or killed.
    Restart,
}

const EVENTS: usize = 8;

/// A promise.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(usize)]
pub(super) enum Promise {
    /// No connection hangs, neither in the handshake nor later.
    Hang,
    /// No established connection breaks.
    Broken,
    /// Every answer comes from the frontend and answers the client's own question.
    WrongAnswer,
    /// No endpoint on another node sees the client's address.
    Unmasqueraded,
    /// No connection reaches two endpoints.
    TwoEndpoints,
    /// Conntrack keeps no entry of a finished connection.
    Remembered,
}

const PROMISES: [(Promise, &str); 6] = [
    (Promise::Hang, "connections and exchanges that hang"),
    (Promise::Broken, "established connections that broke"),
    (Promise::WrongAnswer, "answers from a wrong source"),
    (Promise::Unmasqueraded, "packets to a remote endpoint that were not masqueraded"),
    (Promise::TwoEndpoints, "connections and datagrams that reached two endpoints"),
    (Promise::Remembered, "conntrack entries of finished connections"),
];

/// The counts.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    events: [AtomicU64; EVENTS],
    broken: [AtomicU64; PROMISES.len()],
    kept: Mutex<Vec<String>>,
    asked: Mutex<HashMap<u64, &'static str>>,
    strays: AtomicU64,
}

impl Ledger {
    /// Counts an event.
    pub(super) fn count(&self, event: Event, times: u64) {
        self.events[event as usize].fetch_add(times, Ordering::Relaxed);
    }

    fn counted(&self, event: Event) -> u64 {
        self.events[event as usize].load(Ordering::Relaxed)
    }

    /// Counts a promise that was broken.
    pub(super) fn broke(&self, promise: Promise, how: impl FnOnce() -> String) {
        if self.broken[promise as usize].fetch_add(1, Ordering::Relaxed) < KEPT {
            let mut kept = self.kept.lock().expect("no panic while locked");
            kept.push(format!("{promise:?}: {}", how()));
        }
    }

    /// Records that a connection's or datagram's own number has reached an endpoint.
    pub(super) fn came(&self, question: u64, endpoint: &'static str) {
        let mut asked = self.asked.lock().expect("no panic while locked");
        let before = asked.insert(question, endpoint);
        if asked.len() as u64 > 2 * REMEMBERED {
            asked.retain(|earlier, _| earlier.abs_diff(question) < REMEMBERED);
        }
        drop(asked);
        if let Some(other) = before.filter(|other| *other != endpoint) {
            self.broke(Promise::TwoEndpoints, || format!("number {question} reached {other} and {endpoint}"));
        }
    }

    /// Records the number of unmasqueraded packets from clients to the other node's pods.
    pub(super) fn set_strays(&self, strays: u64) {
        let before = self.strays.swap(strays, Ordering::Relaxed);
        for _ in before..strays {
            self.broke(Promise::Unmasqueraded, || "a packet at the other node".to_owned());
        }
    }

    /// Records the entries that a namespace's conntrack still has.
    pub(super) fn remembered(&self, place: &str, entries: &[Tracked]) {
        for entry in entries {
            self.broke(Promise::Remembered, || format!("{place}: {}", entry.line));
        }
    }

    /// A line of progress.
    pub(super) fn line(&self, elapsed: Duration) -> String {
        let broken: u64 = self.broken.iter().map(|count| count.load(Ordering::Relaxed)).sum();
        format!(
            "{:>4} s: {} connections, {} exchanges, {} flooded, {} changes, {} restarts; slow {}, repeated {}, \
             refused {}; {broken} violations",
            elapsed.as_secs(),
            self.counted(Event::Connection),
            self.counted(Event::Exchange),
            self.counted(Event::Flooded),
            self.counted(Event::Change),
            self.counted(Event::Restart),
            self.counted(Event::Slow),
            self.counted(Event::Repeated),
            self.counted(Event::Refused),
        )
    }

    /// The result.
    pub(super) fn verdict(&self) -> Verdict {
        let events = [
            (Event::Connection, "TCP connections"),
            (Event::Exchange, "UDP exchanges"),
            (Event::Slow, "connections with a retransmitted SYN"),
            (Event::Repeated, "repeated datagrams"),
            (Event::Refused, "refused connections"),
            (Event::Flooded, "frames of floods"),
            (Event::Change, "changes of endpoints"),
            (Event::Restart, "restarts of the agent"),
        ];
        Verdict {
            events: events.map(|(event, name)| (name, self.counted(event))).into(),
            promises: PROMISES
                .map(|(promise, name)| (name, self.broken[promise as usize].load(Ordering::Relaxed)))
                .into(),
            first: self.kept.lock().expect("no panic while locked").clone(),
        }
    }
}

/// The result of a soak.
#[derive(Clone, Debug)]
pub struct Verdict {
    events: Vec<(&'static str, u64)>,
    promises: Vec<(&'static str, u64)>,
    first: Vec<String>,
}

impl Verdict {
    /// Whether there were connections and exchanges, and no promise was broken.
    pub fn is_flawless(&self) -> bool {
        self.violations() == 0 && self.events.iter().take(2).all(|(_, count)| *count > 0)
    }

    /// The number of broken promises.
    pub fn violations(&self) -> u64 {
        self.promises.iter().map(|(_, count)| count).sum()
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, count) in &self.events {
            writeln!(f, "  {count:>10}  {name}")?;
        }
        writeln!(f, "must be 0:")?;
        for (name, count) in &self.promises {
            writeln!(f, "  {count:>10}  {name}")?;
        }
        self.first.iter().try_for_each(|violation| writeln!(f, "    {violation}"))
    }
}

#[cfg(test)]
mod tests {
    use super::{Event, Ledger, Promise};

    #[test]
    fn a_number_that_comes_to_two_endpoints_is_a_violation() {
        let ledger = Ledger::default();
        ledger.count(Event::Connection, 1);
        ledger.count(Event::Exchange, 1);
        for endpoint in ["one", "one"] {
            ledger.came(7, endpoint);
        }
        assert!(ledger.verdict().is_flawless());
        ledger.came(7, "another");
        ledger.set_strays(2);
        ledger.broke(Promise::Hang, || "a client".to_owned());
        assert_eq!(ledger.verdict().violations(), 4);
    }

    #[test]
    fn a_soak_without_a_connection_proves_nothing() {
        assert!(!Ledger::default().verdict().is_flawless());
    }
}
