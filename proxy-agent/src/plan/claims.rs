//! Which of several Services that claim a frontend owns it? (FE-6)
//!
//! Exactly one does, by a rule that every node applies alike: the oldest Service, then the first by
//! namespace and name, then its first port. The others wait, and the next one takes over at once when the
//! owner goes.
//!
//! Nearly always nobody waits: so who does is kept apart from the owners, of whom there are as many as frontends.

use std::collections::{BTreeSet, HashMap, hash_map::Entry};

use proxy_common::FrontendKey;

use crate::{memory::shrink, model::ObjectName};

/// The claimant; the least one owns the frontend.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct Claimant {
    /// When the Service was created.
    pub(super) created: Created,
    /// The Service.
    pub(super) service: ObjectName,
    /// Position in its `spec.ports`.
    pub(super) port: u16,
}

/// Seconds since 1970, in as few bytes as they take; the latest where none are known.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct Created(u32);

impl Created {
    /// From seconds since 1970.
    pub(super) fn at(seconds: i64) -> Self {
        Self(u32::try_from(seconds.max(0)).unwrap_or(u32::MAX))
    }
}

/// All claimed frontends.
#[derive(Default, Debug)]
pub(super) struct Claims {
    owners: HashMap<FrontendKey, Claimant>,
    /// The other claimants, where there are any.
    waiting: HashMap<FrontendKey, BTreeSet<Claimant>>,
}

impl Claims {
    /// Gives back the room of what is gone.
    pub(super) fn shrink(&mut self) {
        shrink(&mut self.owners);
        shrink(&mut self.waiting);
    }

    /// The owner of a frontend.
    pub(super) fn owner(&self, key: &FrontendKey) -> Option<&Claimant> {
        self.owners.get(key)
    }

    /// Replaces what a Service asked for (`before`) by what it asks for (`after`). Gives the *other*
    /// Services that this concerns: those that wait for a frontend whose owner changed, or own it now.
    pub(super) fn replace(
        &mut self,
        service: &ObjectName,
        before: &[FrontendKey],
        after: &[(FrontendKey, Claimant)],
    ) -> BTreeSet<ObjectName> {
        let mut keys: Vec<FrontendKey> = before.to_vec();
        keys.extend(after.iter().map(|(key, _)| *key));
        keys.sort_unstable();
        keys.dedup();
        let owners: Vec<Option<Claimant>> = keys.iter().map(|key| self.owner(key).cloned()).collect();

        for key in before {
            self.withdraw(service, key);
        }
        for (key, claimant) in after {
            self.claim(*key, claimant.clone());
        }

        let mut concerned = BTreeSet::new();
        for (key, before) in keys.iter().zip(owners) {
            if self.owner(key) != before.as_ref() {
                concerned.extend(self.claimants(key).map(|claimant| claimant.service.clone()));
            }
        }
        concerned.remove(service);
        concerned
    }

    fn claim(&mut self, key: FrontendKey, mut claimant: Claimant) {
        match self.owners.entry(key) {
            Entry::Vacant(entry) => {
                entry.insert(claimant);
            }
            Entry::Occupied(mut entry) => {
                let owner = entry.get_mut();
                if claimant < *owner {
                    std::mem::swap(owner, &mut claimant);
                }
                if claimant != *owner {
                    self.waiting.entry(key).or_default().insert(claimant);
                }
            }
        }
    }

    /// Takes back every claim of a Service on a frontend.
    fn withdraw(&mut self, service: &ObjectName, key: &FrontendKey) {
        let Entry::Occupied(mut owner) = self.owners.entry(*key) else { return };
        let owns = owner.get().service == *service;
        let mut next = None;
        if let Entry::Occupied(mut entry) = self.waiting.entry(*key) {
            let waiting = entry.get_mut();
            waiting.retain(|claimant| claimant.service != *service);
            if owns {
                next = waiting.pop_first();
            }
            if waiting.is_empty() {
                entry.remove();
            }
        }
        if owns {
            match next {
                Some(next) => drop(owner.insert(next)),
                None => drop(owner.remove()),
            }
        }
    }

    /// Everyone who claims a frontend.
    fn claimants(&self, key: &FrontendKey) -> impl Iterator<Item = &Claimant> {
        self.owners.get(key).into_iter().chain(self.waiting.get(key).into_iter().flatten())
    }
}

#[cfg(test)]
mod tests {
    use proxy_common::{Address, Port};

    use super::*;

    const KEY: FrontendKey = FrontendKey::new(Address::from_v4([10, 0, 0, 1]), Port::new(80), 6);

    fn name(name: &str) -> ObjectName {
        ObjectName::new("default", name)
    }

    fn claimant(service: &str, created: i64, port: u16) -> Claimant {
        Claimant { created: Created::at(created), service: name(service), port }
    }

    /// A cluster has a hundred thousand owners.
    #[test]
    fn a_claimant_is_two_words() {
        assert_eq!(size_of::<Claimant>(), 16);
        assert!(Created::at(-1) < Created::at(1) && Created::at(1 << 31) < Created::at(i64::MAX));
    }

    /// FE-6: the oldest, then by name, then by port.
    #[test]
    fn the_oldest_owns_then_the_first_by_name_then_the_first_port() {
        let mut claims = Claims::default();
        let mut expect = |who: Claimant, owner: &Claimant| {
            let service = ObjectName::clone(&who.service);
            claims.replace(&service, &[], &[(KEY, who)]);
            assert_eq!(claims.owner(&KEY), Some(owner));
        };
        let (late, b, a, early) =
            (claimant("a", 9, 0), claimant("b", 5, 1), claimant("b", 5, 0), claimant("z", 1, 7));
        expect(late.clone(), &late);
        expect(b.clone(), &b);
        expect(a.clone(), &a);
        expect(late, &a);
        expect(early.clone(), &early);
    }

    /// FE-6: the next one takes over at once, and everyone who waits learns of the new owner.
    #[test]
    fn when_the_owner_goes_the_next_takes_over() {
        let mut claims = Claims::default();
        for service in ["b", "a", "c"] {
            claims.replace(&name(service), &[], &[(KEY, claimant(service, 0, 0))]);
        }
        assert_eq!(claims.owner(&KEY), Some(&claimant("a", 0, 0)));
        let concerned = claims.replace(&name("a"), &[KEY], &[]);
        assert_eq!(concerned, BTreeSet::from([name("b"), name("c")]));
        assert_eq!(claims.owner(&KEY), Some(&claimant("b", 0, 0)));
        assert!(claims.replace(&name("c"), &[KEY], &[]).is_empty(), "the owner did not change");
        assert!(claims.replace(&name("b"), &[KEY], &[]).is_empty(), "nobody is left");
        assert!(claims.owners.is_empty() && claims.waiting.is_empty());
    }

    #[test]
    fn a_repeated_claim_concerns_no_other_service() {
        let mut claims = Claims::default();
        for service in ["a", "b"] {
            claims.replace(&name(service), &[], &[(KEY, claimant(service, 0, 0))]);
        }
        assert!(claims.replace(&name("a"), &[KEY], &[(KEY, claimant("a", 0, 0))]).is_empty());
        let concerned = claims.replace(&name("a"), &[KEY], &[(KEY, claimant("a", 7, 0))]);
        assert_eq!(concerned, BTreeSet::from([name("b")]), "it is younger now");
    }
}
