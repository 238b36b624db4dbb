//! The API server, and what happens to it and in it.

use std::{net::IpAddr, sync::Arc, time::Duration};

use anyhow::Result;

use super::{
    Shared,
    cast::Cast,
    disturbance::{InCluster, Sequence},
    ledger::Event,
    objects,
    services::{NAMES, SOME},
};
use crate::{
    api_server::{ApiServer, FOR_EVER, Fault, Kind, Of, Slip},
    manifest::NAMESPACE,
    namespace::Namespace,
    place::Place,
    random::Random,
};

/// How many objects are written at a time, so that nobody else has to wait long.
const BATCH: u32 = 100;
/// Between such batches.
const PAUSE: Duration = Duration::from_millis(10);

/// The API server with its objects, and the pods that they name.
pub(super) struct Cluster {
    api: ApiServer,
    namespace: Arc<Namespace>,
    endpoints: [Place; 4],
    strangers: [IpAddr; 2],
}

impl Cluster {
    pub(super) fn new(api: ApiServer, cast: &Cast) -> Self {
        Self {
            api,
            namespace: cast.api_namespace(),
            endpoints: cast.endpoints.clone(),
            strangers: [0, 1].map(|node| cast.strangers[node].v4.into()),
        }
    }

    /// Disturbs it until the end; it serves then.
    pub(super) fn disturb(mut self, shared: &Shared) -> Result<Self> {
        let mut sequence = Sequence::of_cluster(shared.settings.seed);
        let mut random = Random::new(shared.settings.seed.wrapping_add(0xfa17));
        loop {
            let (rest, what) = sequence.in_cluster();
            if !shared.rest(rest) {
                return Ok(self);
            }
            match what {
                InCluster::Endpoints(set) => self.change(set, shared),
                InCluster::Away(time) => self.go_away(time, shared)?,
                InCluster::Silence(time) => self.fall_silent(time, shared)?,
                InCluster::Lies(time) => self.lie(time, &mut random, shared),
                InCluster::Forgets => self.forget(shared),
                InCluster::Flood(part) => self.flood(shared.settings.crowd * part / 100, shared),
                InCluster::Crowd(time) => self.crowd(time, shared),
            }
        }
    }

    /// Gives the judged Service these endpoints.
    fn change(&self, set: u8, shared: &Shared) {
        let pods = self.endpoints.iter().enumerate().filter(|(number, _)| set & (1 << number) != 0);
        let pods: Vec<(usize, &Place)> = pods.map(|(number, pod)| (number / 2, pod)).collect();
        shared.roster.change(set, || {
            for slice in objects::slices(NAMES[SOME], &pods) {
                self.api.put(slice);
            }
        });
        shared.ledger.count(Event::Change, 2);
    }

    fn go_away(&mut self, time: Duration, shared: &Shared) -> Result<()> {
        both(|node| shared.calm.disturb(node));
        self.api.away();
        shared.rest(time);
        self.api.back(&self.namespace)?;
        both(|node| shared.calm.settle(node));
        shared.ledger.count(Event::Away, 1);
        Ok(())
    }

    fn fall_silent(&mut self, time: Duration, shared: &Shared) -> Result<()> {
        both(|node| shared.calm.disturb(node));
        for of in [Of::Lists, Of::LaterPages, Of::Watches] {
            self.api.fault(of, Fault::Silence, FOR_EVER);
        }
        self.api.cut();
        shared.rest(time);
        self.api.mend();
        // Requests that it never answers would stay open.
        self.api.away();
        self.api.back(&self.namespace)?;
        both(|node| shared.calm.settle(node));
        shared.ledger.count(Event::Away, 1);
        Ok(())
    }

    /// Answers fail, and lines of watches are cut, garbled and repeated. None comes in another order: who sees one
    /// change relies on those before it.
    fn lie(&self, time: Duration, random: &mut Random, shared: &Shared) {
        let slips = [
            Slip::Stall,
            Slip::Cut,
            Slip::EndWithin,
            Slip::EndBefore,
            Slip::Halve,
            Slip::Garbage,
            Slip::Gone,
            Slip::Twice,
            Slip::Rename,
            Slip::DeleteUnknown,
        ];
        let faults = [Fault::Refuse, Fault::Status(500), Fault::Status(429), Fault::Cut, Fault::EndEarly];
        both(|node| shared.calm.disturb(node));
        for _ in 0..8 {
            self.api.slip(random.one_of(&slips), 1 + random.below(3_u32));
        }
        for of in [Of::Lists, Of::Watches] {
            self.api.fault(of, random.one_of(&faults), 1 + random.below(4_u32));
        }
        shared.rest(time);
        self.api.mend();
        self.api.cut();
        both(|node| shared.calm.settle(node));
        shared.ledger.count(Event::Lie, 1);
    }

    fn forget(&self, shared: &Shared) {
        self.api.compact();
        shared.ledger.count(Event::Forgotten, 1);
    }

    /// Many Services come, have their endpoint changed, and go.
    fn flood(&self, count: u32, shared: &Shared) {
        let stages: [&dyn Fn(u32); 3] =
            [&|number| self.add(number, 0), &|number| self.put_slice(number, 1), &|number| {
                self.remove(number);
            }];
        for stage in stages {
            each(count, shared, stage);
        }
        self.clear(count);
        shared.ledger.count(Event::Flood, 1);
    }

    /// Many Services come, stay, and go.
    fn crowd(&self, time: Duration, shared: &Shared) {
        let count = shared.settings.crowd;
        each(count, shared, |number| self.add(number, number as usize % 2));
        shared.rest(time);
        each(count, shared, |number| self.remove(number));
        self.clear(count);
        shared.ledger.count(Event::Crowd, 1);
        // The history has grown as well.
        self.forget(shared);
    }

    fn add(&self, number: u32, stranger: usize) {
        self.api.put(objects::service(&name(number), &[objects::crowd_ip(number)]));
        self.put_slice(number, stranger);
    }

    fn put_slice(&self, number: u32, stranger: usize) {
        self.api.put(objects::slice(&name(number), "IPv4", &[(stranger, self.strangers[stranger])]));
    }

    fn remove(&self, number: u32) {
        self.api.delete(Kind::EndpointSlice, NAMESPACE, &objects::slice_name(&name(number), "IPv4"));
        self.api.delete(Kind::Service, NAMESPACE, &name(number));
    }

    /// Removes what is left where the end came early.
    fn clear(&self, count: u32) {
        (0..count).for_each(|number| self.remove(number));
    }
}

/// The name of a Service that nobody asks.
fn name(number: u32) -> String {
    format!("crowd-{number}")
}

/// Does something for each number, some at a time.
fn each(count: u32, shared: &Shared, what: impl Fn(u32)) {
    for number in 0..count {
        if number % BATCH == 0 && !shared.rest(PAUSE) {
            return;
        }
        what(number);
        shared.ledger.count(Event::Change, 1);
    }
}

fn both(what: impl FnMut(usize)) {
    [0, 1].into_iter().for_each(what);
}
