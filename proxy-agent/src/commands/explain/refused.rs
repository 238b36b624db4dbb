//! Whom the address refused before, as LAST_REFUSALS has it: this client, and others.

use std::{collections::BTreeSet, path::Path, time::Duration};

use jiff::Timestamp;
use proxy_common::FrontendKey;
use serde::Serialize;

use crate::{
    agent::Report,
    commands::{
        clock::{Clock, before, told},
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
        match times {
            1 => format!("{reason}, this client, once: {}", told(*last)),
            _ => {
                format!("{reason}, this client, {times} times: first {}, last {}", told(*since), told(*last))
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

pub(super) fn recorded(
    pin_dir: &Path,
    key: &FrontendKey,
    client: &Client,
    report: Option<&Report>,
) -> Result<Recorded, Error> {
    let (clock, pods) = (Clock::now(), Pods::of(report));
    let marks = client.marks(&pods);
    let recent = before(Timestamp::now(), RECENT);
    let mut namespaces = Namespaces::default();
    let mut found = Recorded { of_client: Vec::new(), others: BTreeSet::new() };
    for (pair, refusal) in Tables::last_refusals(pin_dir)?.iter().filter(|(pair, _)| pair.frontend == *key) {
        let (since, last) = (clock.at(refusal.first), clock.at(refusal.last));
        if marks.contains(&pair.client) {
            found.of_client.push(Refused { reason: pair.name(), times: refusal.count, since, last });
        } else if last >= recent {
            found.others.insert(match pair.client.namespace() {
                Some(cookie) => namespaces.told(cookie, report),
                None => pods.told_address(pair.client.into()),
            });
        }
    }
    found.of_client.sort_unstable_by_key(|refused| std::cmp::Reverse(refused.last));
    Ok(found)
}
