//! Counts of what happened, and of broken promises.

use std::{
    fmt,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use super::Settings;

/// How many failures of each promise are kept as text; all are counted.
const KEPT: u64 = 10;
/// An exchange that takes longer counts as slow.
const SLOW: Duration = Duration::from_secs(1);

/// Something that is counted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(usize)]
pub(super) enum Event {
    Kill,
    KillAtStart,
    Stop,
    Resize,
    Upgrade,
    Downgrade,
    Freeze,
    Away,
    Lie,
    Forgotten,
    Flood,
    Crowd,
    Growth,
    Shrinkage,
    Change,
    Beat,
    Tcp,
    Udp,
    LongLived,
    Asked,
    Repeated,
}

const EVENTS: [(Event, &str); 21] = [
    (Event::Kill, "agents killed and started"),
    (Event::KillAtStart, "agents killed, and again while they started"),
    (Event::Stop, "agents stopped and started"),
    (Event::Resize, "agents started with other --max-… sizes"),
    (Event::Upgrade, "upgrades"),
    (Event::Downgrade, "downgrades"),
    (Event::Freeze, "agents that stood still for seconds"),
    (Event::Away, "times without an API server"),
    (Event::Lie, "times with a faulty API server"),
    (Event::Forgotten, "histories forgotten by the API server"),
    (Event::Flood, "floods of changes"),
    (Event::Crowd, "crowds of Services that came and went"),
    (Event::Growth, "times that tables grew"),
    (Event::Shrinkage, "times that they shrank again"),
    (Event::Change, "changes of objects"),
    (Event::Beat, "changes that a client on the node was waiting for"),
    (Event::Tcp, "new TCP connections"),
    (Event::Udp, "new UDP exchanges"),
    (Event::LongLived, "long-lived connections"),
    (Event::Asked, "exchanges on them"),
    (Event::Repeated, "datagrams sent again"),
];

/// What must not happen.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(usize)]
pub(super) enum Promise {
    /// A long-lived connection ended, stalled or moved.
    Broken,
    /// A new one to a Service with an endpoint was not answered in time.
    Failed,
    /// What is not an endpoint of the Service answered.
    Misrouted,
    /// An agent does not follow, or ended in an unexpected way.
    Deaf,
}

const PROMISES: [(Promise, &str); 4] = [
    (Promise::Broken, "broken: long-lived connections that ended, stalled or moved"),
    (Promise::Failed, "failed: new connections without an answer"),
    (Promise::Misrouted, "misrouted: answers from what is no endpoint of the Service"),
    (Promise::Deaf, "deaf: agents that did not follow within a minute"),
];

/// The counts.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    events: [AtomicU64; EVENTS.len()],
    broken: [AtomicU64; PROMISES.len()],
    kept: Mutex<Vec<String>>,
    /// The longest exchanges, in microseconds: through Services, and directly.
    longest: [AtomicU64; 2],
    slow: [AtomicU64; 2],
    /// The longest start of an agent until it had installed everything, in microseconds.
    start: AtomicU64,
}

impl Ledger {
    pub(super) fn count(&self, event: Event, times: u64) {
        self.events[event as usize].fetch_add(times, Ordering::Relaxed);
    }

    fn counted(&self, event: Event) -> u64 {
        self.events[event as usize].load(Ordering::Relaxed)
    }

    /// How many long-lived connections have begun.
    pub(super) fn long_lived(&self) -> u64 {
        self.counted(Event::LongLived)
    }

    /// Notes how long an exchange took, through a Service or directly.
    pub(super) fn took(&self, time: Duration, directly: bool) {
        let which = usize::from(directly);
        self.longest[which].fetch_max(micros(time), Ordering::Relaxed);
        if time > SLOW {
            self.slow[which].fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Notes how long an agent took to install everything.
    pub(super) fn started(&self, time: Duration) {
        self.start.fetch_max(micros(time), Ordering::Relaxed);
    }

    /// Notes that a promise was broken.
    pub(super) fn broke(&self, promise: Promise, how: impl FnOnce() -> String) {
        if self.broken[promise as usize].fetch_add(1, Ordering::Relaxed) < KEPT {
            let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
            kept.push(format!("{promise:?}: {}", how()));
        }
    }

    fn violations(&self, promise: Promise) -> u64 {
        self.broken[promise as usize].load(Ordering::Relaxed)
    }

    /// A line of progress.
    pub(super) fn line(&self, elapsed: Duration) -> String {
        let starts: u64 =
            [Event::Kill, Event::KillAtStart, Event::Stop, Event::Resize, Event::Upgrade, Event::Downgrade]
                .into_iter()
                .map(|event| self.counted(event))
                .sum();
        format!(
            "{:>4} s: {} restarts, {} changes, {} new connections, {} exchanges on long-lived ones, longest {:.2} s \
             (directly {:.2} s); broken {}, failed {}, misrouted {}, deaf {}",
            elapsed.as_secs(),
            starts,
            self.counted(Event::Change),
            self.counted(Event::Tcp) + self.counted(Event::Udp),
            self.counted(Event::Asked),
            self.longest(0).as_secs_f32(),
            self.longest(1).as_secs_f32(),
            self.violations(Promise::Broken),
            self.violations(Promise::Failed),
            self.violations(Promise::Misrouted),
            self.violations(Promise::Deaf),
        )
    }

    fn longest(&self, which: usize) -> Duration {
        Duration::from_micros(self.longest[which].load(Ordering::Relaxed))
    }

    /// The result.
    pub(super) fn verdict(&self, took: Duration, settings: &Settings) -> Verdict {
        Verdict {
            took,
            seed: settings.seed,
            versions: settings.binaries.len().max(1),
            most: settings.crowd,
            events: EVENTS.map(|(event, name)| (name, self.counted(event))).into(),
            promises: PROMISES.map(|(promise, name)| (name, self.violations(promise))).into(),
            longest: [self.longest(0), self.longest(1)],
            slow: [0, 1].map(|which| self.slow[which].load(Ordering::Relaxed)),
            start: Duration::from_micros(self.start.load(Ordering::Relaxed)),
            first: self.kept.lock().unwrap_or_else(PoisonError::into_inner).clone(),
            is_complete: [Event::Tcp, Event::Udp, Event::Asked, Event::Beat]
                .iter()
                .all(|event| self.counted(*event) > 0)
                && self.long_lived() >= settings.long_lived as u64,
        }
    }
}

fn micros(time: Duration) -> u64 {
    time.as_micros().try_into().unwrap_or(u64::MAX)
}

/// The result.
#[derive(Clone, Debug)]
pub struct Verdict {
    took: Duration,
    seed: u64,
    versions: usize,
    most: u32,
    events: Vec<(&'static str, u64)>,
    promises: Vec<(&'static str, u64)>,
    longest: [Duration; 2],
    slow: [u64; 2],
    start: Duration,
    first: Vec<String>,
    is_complete: bool,
}

impl Verdict {
    /// Whether there was traffic of each kind, and no promise was broken.
    pub fn is_flawless(&self) -> bool {
        self.violations() == 0 && self.is_complete
    }

    /// How many promises were broken.
    pub fn violations(&self) -> u64 {
        self.promises.iter().map(|(_, count)| count).sum()
    }

    /// How often agents were killed, stopped, replaced or stood still.
    pub fn disturbed_agents(&self) -> u64 {
        self.events[..=Event::Freeze as usize].iter().map(|(_, count)| count).sum()
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { took, seed, versions, most, .. } = self;
        writeln!(
            f,
            "{:.0} s, seed {seed}, {versions} version(s) of the agent, at most {most} Services more",
            took.as_secs_f32()
        )?;
        for (name, count) in &self.events {
            writeln!(f, "  {count:>10}  {name}")?;
        }
        let [through, directly] = self.longest.map(|time| time.as_secs_f32());
        let [slow, slow_directly] = self.slow;
        writeln!(
            f,
            "  {through:>8.2} s  longest exchange, {slow} over a second (directly {directly:.2} s, {slow_directly})"
        )?;
        writeln!(
            f,
            "  {:>8.2} s  longest start of an agent until everything was installed",
            self.start.as_secs_f32()
        )?;
        writeln!(f, "must be 0:")?;
        for (name, count) in &self.promises {
            writeln!(f, "  {count:>10}  {name}")?;
        }
        if !self.is_complete {
            writeln!(f, "and a kind of traffic that must be there was not")?;
        }
        self.first.iter().try_for_each(|violation| writeln!(f, "    {violation}"))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{super::Settings, Event, Ledger, Promise};

    fn settings() -> Settings {
        Settings {
            duration: Duration::ZERO,
            seed: 1,
            long_lived: 2,
            crowd: 0,
            pause: Duration::ZERO,
            binaries: Vec::new(),
        }
    }

    #[test]
    fn one_broken_promise_is_a_flaw_and_so_is_traffic_that_was_not_there() {
        let ledger = Ledger::default();
        assert!(!ledger.verdict(Duration::ZERO, &settings()).is_flawless(), "nothing happened");
        for event in [Event::Tcp, Event::Udp, Event::Asked, Event::Beat, Event::LongLived, Event::LongLived] {
            ledger.count(event, 1);
        }
        assert!(ledger.verdict(Duration::ZERO, &settings()).is_flawless());
        ledger.broke(Promise::Misrouted, || "somebody else".to_owned());
        let verdict = ledger.verdict(Duration::ZERO, &settings());
        assert!(!verdict.is_flawless() && verdict.to_string().contains("somebody else"), "{verdict}");
    }
}
