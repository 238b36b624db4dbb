//! The position of our programs among those of others at a device with TCX.
//!
//! Ours go **first, at ingress and at egress**. A program that returns `TCX_PASS` (0) ends the chain (`tcx_run`), so
//! a program before ours can keep every packet from it. And programs after ours at egress see packets as they are on
//! the wire, as they would behind netfilter's POSTROUTING.
//!
//! Another program may go before ours at any time, without a notification. So each look at a device reads the order back, and
//! moves ours to the front again, once: two agents that both insist would otherwise take turns for ever. If the other
//! program returns to the front, it stays there, and a problem names it.

use std::{
    collections::BTreeMap,
    fmt,
    time::{Duration, Instant},
};

use aya::programs::{SchedClassifier, TcAttachType};
use serde::{Deserialize, Serialize};

use crate::dataplane::{Error, node::netlink::Direction};

/// A program of others that runs before ours.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Ahead {
    /// `ingress` or `egress`.
    pub direction: String,
    /// The program's id.
    pub id: u32,
    /// Its name, as far as the kernel keeps it.
    pub name: String,
}

impl fmt::Display for Ahead {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { direction: _, id, name } = self;
        if name.is_empty() { write!(f, "program {id}") } else { write!(f, "program `{name}` ({id})") }
    }
}

/// The programs that run before the one with this id at a device, in order.
pub(super) fn ahead_of(device: &str, direction: Direction, ours: u32) -> Result<Vec<Ahead>, Error> {
    let side = match direction {
        Direction::Ingress => TcAttachType::Ingress,
        Direction::Egress => TcAttachType::Egress,
    };
    let (_, chain) = SchedClassifier::query_tcx(device, side).map_err(|source| Error::Program {
        action: "query the chain of",
        program: direction.name(),
        source,
    })?;
    let before = chain.iter().take_while(|program| program.id() != ours);
    let described = before.map(|program| Ahead {
        direction: direction.name().to_owned(),
        id: program.id(),
        name: program.name_as_str().unwrap_or_default().to_owned(),
    });
    Ok(described.collect())
}

/// Explains programs before ours: a sentence for each side of the device that has some.
pub fn meaning(ahead: &[Ahead]) -> Vec<String> {
    let sides = ahead.chunk_by(|one, next| one.direction == next.direction);
    let sentence = |side: &[Ahead]| {
        let names: Vec<String> = side.iter().map(ToString::to_string).collect();
        format!(
            "{} {} before ours at {}: one that returns TCX_PASS ends the chain, and Sidestep does not see the \
             packet; make it return TCX_NEXT, or attach it behind ours",
            names.join(", "),
            if side.len() == 1 { "stands" } else { "stand" },
            side[0].direction
        )
    };
    sides.map(sentence).collect()
}

/// How long ours does not move to the front again after it did.
const PEACE: Duration = Duration::from_mins(10);

/// A step for the order on one side of a device.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Step {
    /// Nothing.
    Keep,
    /// Ours is to go first again.
    GoFirst,
    /// Leave the other program before ours.
    Yield,
}

/// Devices where ours recently moved to the front, or another program insists on it.
#[derive(Default, Debug)]
pub(super) struct Contests(BTreeMap<(u32, Direction), Instant>);

impl Contests {
    /// The step for one side of a device; `first` says whether ours runs first.
    pub(super) fn step(&mut self, device: u32, direction: Direction, first: bool, now: Instant) -> Step {
        let contested = self.0.get(&(device, direction)).copied();
        let lately = contested.is_some_and(|then| now.saturating_duration_since(then) < PEACE);
        if first {
            if !lately {
                self.0.remove(&(device, direction));
            }
            return Step::Keep;
        }
        // A program that moved ahead again stays there.
        self.0.insert((device, direction), now);
        if lately { Step::Yield } else { Step::GoFirst }
    }

    /// Forgets devices that are no longer attached.
    pub(super) fn retain(&mut self, is_hooked: impl Fn(u32) -> bool) {
        self.0.retain(|(device, _), _| is_hooked(*device));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ours_moves_to_the_front_once_and_then_yields() {
        let (mut contests, start) = (Contests::default(), Instant::now());
        let mut step =
            |seconds, first| contests.step(2, Direction::Egress, first, start + Duration::from_secs(seconds));
        assert_eq!(step(0, true), Step::Keep);
        assert_eq!(step(30, false), Step::GoFirst);
        assert_eq!(step(60, false), Step::Yield);
        // For as long as it is there.
        assert!((3..100).all(|look| step(look * 30, false) == Step::Yield));
        assert_eq!(step(3000, true), Step::Keep, "it went");
        assert_eq!(step(3030, false), Step::Yield, "and came back soon");
    }

    #[test]
    fn taking_turns_at_the_front_is_rare() {
        let (mut contests, start) = (Contests::default(), Instant::now());
        let mut went = 0;
        for look in 0..240 {
            let now = start + Duration::from_secs(look * 30);
            if contests.step(2, Direction::Ingress, look % 2 == 0, now) == Step::GoFirst {
                went += 1;
            }
        }
        assert_eq!(went, 1, "in two hours");
    }

    #[test]
    fn sides_and_devices_are_apart() {
        let (mut contests, now) = (Contests::default(), Instant::now());
        for (device, direction) in [(2, Direction::Egress), (2, Direction::Ingress), (3, Direction::Egress)] {
            assert_eq!(contests.step(device, direction, false, now), Step::GoFirst);
            assert_eq!(contests.step(device, direction, false, now), Step::Yield);
        }
        contests.retain(|device| device == 3);
        assert_eq!(contests.step(2, Direction::Egress, false, now), Step::GoFirst, "another device by now");
        assert_eq!(contests.step(3, Direction::Egress, false, now), Step::Yield);
    }
}
