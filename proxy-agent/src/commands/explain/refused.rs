//! Whom the address refused before, as LAST_REFUSALS has it: this client, and others.

use std::{cmp::Reverse, collections::BTreeSet, path::Path, time::Duration};

use jiff::Timestamp;
use proxy_common::{Address, FrontendKey, LastRefusal, NodeEvent, RefusedPair};
use serde::Serialize;

use crate::{
    agent::Report,
    commands::{
        clock::{Clock, before, told},
        inventory,
        names::{Client, Namespaces, Pods},
    },
    dataplane::{Error, Tables},
};

/// Of the others, those of this time are told.
const RECENT: Duration = Duration::from_hours(1);

/// How often this client was refused for one reason.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Refused {
    reason: &'static str,
    times: u64,
    since: Timestamp,
    last: Timestamp,
}

impl Refused {
    pub(super) fn in_words(&self) -> String {
        let Self { reason, times, since, last } = self;
        let hint = if *reason == NodeEvent::ResetByEndpoint.name() {
            "; the endpoint does that itself: look whether something listens at its port"
        } else {
            ""
        };
        match times {
            1 => format!("{reason}, this client, once: {}{hint}", told(*last)),
            _ => {
                format!(
                    "{reason}, this client, {times} times: first {}, last {}{hint}",
                    told(*since),
                    told(*last)
                )
            }
        }
    }
}

/// What is recorded of an address.
pub(super) struct Recorded {
    pub(super) of_client: Vec<Refused>,
    /// Who else was refused there in the last hour.
    pub(super) others: BTreeSet<String>,
}

/// Everything that is recorded.
pub(super) struct Record<'a> {
    refusals: Vec<(RefusedPair, LastRefusal)>,
    /// What is known of the client in it.
    marks: BTreeSet<Address>,
    namespaces: Namespaces,
    tables: &'a Tables,
    report: Option<&'a Report>,
}

impl<'a> Record<'a> {
    pub(super) fn read(
        pin_dir: &Path,
        tables: &'a Tables,
        client: &Client,
        report: Option<&'a Report>,
    ) -> Result<Self, Error> {
        let refusals = Tables::last_refusals(pin_dir)?;
        let marks = client.marks(&Pods::of(report), tables);
        Ok(Self { refusals, marks, namespaces: Namespaces::default(), tables, report })
    }

    /// What of it is of this address.
    pub(super) fn of(&mut self, key: &FrontendKey) -> Recorded {
        let (clock, pods) = (Clock::now(), Pods::of(self.report));
        let recent = before(Timestamp::now(), RECENT);
        let mut found = Recorded { of_client: Vec::new(), others: BTreeSet::new() };
        for (pair, refusal) in
            self.refusals.iter().filter(|(pair, _)| is_at(self.tables, &pair.frontend, key))
        {
            let (since, last) = (clock.at(refusal.first), clock.at(refusal.last));
            if self.marks.contains(&pair.client) {
                found.of_client.push(Refused { reason: pair.name(), times: refusal.count, since, last });
            } else if last >= recent {
                found.others.insert(match pair.client.namespace() {
                    Some(cookie) => self.namespaces.told(cookie, self.report),
                    None => pods.told_address(pair.client.into()),
                });
            }
        }
        found.of_client.sort_unstable_by_key(|refused| Reverse(refused.last));
        found
    }
}

/// Whether both are one frontend: a NodePort is at each address of the node.
fn is_at(tables: &Tables, refused: &FrontendKey, key: &FrontendKey) -> bool {
    let is_nodes = |frontend: &FrontendKey| inventory::is_nodes(tables, &frontend.address);
    let is_same = |of: fn(&FrontendKey) -> (u16, u8, bool)| of(refused) == of(key);
    refused == key
        || (is_same(|key| (key.port.get(), key.protocol, key.address.is_v4()))
            && is_nodes(refused)
            && is_nodes(key))
}
