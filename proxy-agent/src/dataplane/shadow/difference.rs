//! A difference between what kube-proxy serves and what Sidestep serves.

use std::{collections::BTreeMap, fmt};

use serde::Serialize;

/// A difference.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Difference {
    /// The Service port, such as `default/web:http`; where its name is not known, its frontend.
    pub service: String,
    /// The frontends at which it is so.
    pub frontends: Vec<String>,
    /// What differs.
    pub what: &'static str,
    /// What kube-proxy has.
    pub kube_proxy: String,
    /// What Sidestep has.
    pub sidestep: String,
    /// Whether clients would notice.
    pub matters: bool,
    /// Why, or why not.
    pub because: &'static str,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { service, frontends, what, kube_proxy, sidestep, matters: _, because } = self;
        let at = frontends.join(", ");
        write!(f, "{service} ({at}): {what}: kube-proxy {kube_proxy}; Sidestep {sidestep}: {because}")
    }
}

/// One for all frontends of a Service that differ alike; those that matter first.
pub(super) fn together(all: Vec<Difference>) -> Vec<Difference> {
    let mut alike: BTreeMap<_, Difference> = BTreeMap::new();
    for one in all {
        let Difference { service, frontends: _, what, kube_proxy, sidestep, matters, because: _ } = &one;
        let key = (!matters, service.clone(), *what, kube_proxy.clone(), sidestep.clone());
        match alike.get_mut(&key) {
            Some(known) => known.frontends.extend(one.frontends),
            None => drop(alike.insert(key, one)),
        }
    }
    alike.into_values().collect()
}
