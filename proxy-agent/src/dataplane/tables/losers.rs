//! When Service ports that lose frontends change: what a frontend leads to must not become, for a moment, what its Service
//! is without it.
//!
//! All frontends of a Service port lead to one record, so a change of the record shows through each of them. A port that
//! loses some changes after all others, when whoever takes them has them; one that takes frontends of another such
//! port changes before that. What nobody takes is deleted first. Only two that exchange frontends in one change
//! cannot both be the last: what the first of them loses shows its change until the other one has it.

use std::collections::HashMap;

use proxy_common::{FrontendKey, FrontendKind};

use super::{install::Leaving, writer::Writer};
use crate::plan::ServicePlan;

/// Frontends of a Service port.
type Frontends = [(FrontendKey, FrontendKind)];

impl Writer {
    /// Steps 1 to 4 for a Service port, or a note to do them after all that lose nothing.
    pub(super) fn install_in_turn(&mut self, plan: &ServicePlan, leaving: &mut Leaving) {
        if self.lost(plan).is_empty() {
            self.losers.remove(&plan.id);
            self.install(plan, leaving);
        } else {
            self.losers.insert(plan.id.clone(), plan.clone());
        }
    }

    /// Steps 1 to 4 for all that have waited.
    pub(super) fn install_losers(&mut self, leaving: &mut Leaving) {
        let plans: Vec<ServicePlan> = std::mem::take(&mut self.losers).into_values().collect();
        let lost: Vec<_> = plans.iter().map(|plan| self.lost(plan)).collect();
        let changes: Vec<_> =
            plans.iter().zip(&lost).map(|(plan, lost)| (&*plan.frontends, &**lost)).collect();
        for (place, is_last) in order(&changes) {
            self.give_up(&plans[place], &lost[place], is_last);
            self.install(&plans[place], leaving);
        }
    }

    /// The installed frontends of a Service port that are not in its plan.
    fn lost(&self, plan: &ServicePlan) -> Vec<(FrontendKey, FrontendKind)> {
        let Some(found) = self.installed.get(&plan.id) else { return Vec::new() };
        let is_kept = |key: &FrontendKey| plan.frontends.iter().any(|(kept, _)| kept == key);
        found.frontends.into_iter().filter(|(key, _)| !is_kept(key)).collect()
    }

    /// Deletes the frontends that a Service port loses, unless another one has them by now; where one is still to take
    /// some (`is_last` is false), only those that would let in whoever the new source ranges let in. Waits until no
    /// program can be between such a frontend and the Service's record.
    fn give_up(&mut self, plan: &ServicePlan, lost: &Frontends, is_last: bool) {
        let Some(found) = self.installed.get(&plan.id) else { return };
        let others_come_in = self.ranges.change(plan, found.index);
        let restricted = |kind: &FrontendKind| others_come_in && *kind == FrontendKind::LoadBalancer;
        for (key, _) in lost.iter().filter(|(_, kind)| is_last || restricted(kind)) {
            self.delete_frontend(key, Some(found.index));
        }
        if lost.iter().any(|(_, kind)| restricted(kind)) {
            let freed = self.grace.pass();
            self.reuse(freed);
        }
    }
}

/// In which order to make `changes`, each of which says what a Service port has then and what it loses; and of each whether
/// all that take its frontends come before it.
fn order(changes: &[(&Frontends, &Frontends)]) -> Vec<(usize, bool)> {
    let all_lost = changes
        .iter()
        .enumerate()
        .flat_map(|(place, (_, lost))| lost.iter().map(move |lost| (lost.0, place)));
    let losers: HashMap<FrontendKey, usize> = all_lost.collect();
    // By taker those that it takes from, and by loser how many take from it.
    let (mut givers, mut takers) = (vec![Vec::new(); changes.len()], vec![0; changes.len()]);
    for (taker, (frontends, _)) in changes.iter().enumerate() {
        for loser in frontends.iter().filter_map(|(key, _)| losers.get(key)).filter(|loser| **loser != taker)
        {
            givers[taker].push(*loser);
            takers[*loser] += 1;
        }
    }
    let mut order = Vec::with_capacity(changes.len());
    let mut done = vec![false; changes.len()];
    let mut ready: Vec<usize> = (0..changes.len()).rev().filter(|place| takers[*place] == 0).collect();
    let mut next = 0..changes.len();
    // Those of a circle begin with the first.
    while let Some(place) = ready.pop().or_else(|| next.find(|place| !done[*place])) {
        if std::mem::replace(&mut done[place], true) {
            continue;
        }
        order.push((place, takers[place] == 0));
        for giver in &givers[place] {
            takers[*giver] -= 1;
            if takers[*giver] == 0 {
                ready.push(*giver);
            }
        }
    }
    order
}

#[cfg(test)]
mod tests {
    use proxy_common::{Address, Port, Protocol};

    use super::*;

    fn key(port: u16) -> (FrontendKey, FrontendKind) {
        let address = Address::from_v4([192, 0, 2, 1]);
        (FrontendKey::new(address, Port::new(port), Protocol::Tcp as u8), FrontendKind::ExternalIp)
    }

    /// Of Service ports each of which has a frontend and loses another one, by their ports.
    fn order_of(changes: &[(u16, u16)]) -> Vec<(usize, bool)> {
        let changes: Vec<_> = changes.iter().map(|(has, lost)| ([key(*has)], [key(*lost)])).collect();
        let changes: Vec<_> = changes.iter().map(|(has, lost)| (&has[..], &lost[..])).collect();
        order(&changes)
    }

    #[test]
    fn who_takes_a_frontend_comes_before_who_loses_it() {
        assert_eq!(order_of(&[]), []);
        assert_eq!(order_of(&[(1, 2), (3, 4)]), [(0, true), (1, true)]);
        assert_eq!(order_of(&[(1, 2), (2, 3), (3, 4)]), [(2, true), (1, true), (0, true)]);
    }

    #[test]
    fn of_those_that_exchange_frontends_one_comes_first() {
        assert_eq!(order_of(&[(1, 2), (2, 1)]), [(0, false), (1, true)]);
        assert_eq!(
            order_of(&[(1, 2), (2, 3), (3, 1), (9, 8)]),
            [(3, true), (0, false), (2, true), (1, true)]
        );
    }
}
