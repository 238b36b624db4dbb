//! Who is in a network namespace, by its cookie: events of sockets have no other name for their client.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use crate::{
    agent::{PodHere, Report},
    dataplane::{PodNamespaces, namespaces_by_host_name, netns_cookie, netns_cookie_of},
};

/// How often to look for a namespace that is not known.
const PERIOD: Duration = Duration::from_secs(2);

/// The network namespaces of this node whose clients have names.
#[derive(Debug, Default)]
pub(in crate::commands) struct Namespaces {
    by_cookie: HashMap<u64, String>,
    looked: Option<Instant>,
}

/// A network namespace whose clients are not known.
pub(in crate::commands) fn unknown(cookie: u64) -> String {
    format!("the network namespace with cookie {cookie}")
}

impl Namespaces {
    /// Who is there, if it is known; looks once more if it is not, though not each time.
    pub(in crate::commands) fn name(&mut self, cookie: u64, report: Option<&Report>) -> Option<&str> {
        if !self.by_cookie.contains_key(&cookie) && self.looked.is_none_or(|when| when.elapsed() > PERIOD) {
            self.look(report);
        }
        self.by_cookie.get(&cookie).map(String::as_str)
    }

    /// The same, or that it is not known.
    pub(in crate::commands) fn told(&mut self, cookie: u64, report: Option<&Report>) -> String {
        self.name(cookie, report).map_or_else(|| unknown(cookie), str::to_owned)
    }

    fn look(&mut self, report: Option<&Report>) {
        // Namespaces by host names first: what the agent knows of Pods is better.
        let host_names = namespaces_by_host_name().into_iter();
        let mut found: Vec<_> =
            host_names.filter_map(|(name, path)| Some((netns_cookie_of(&path).ok()?, name))).collect();
        let mut of_pods = PodNamespaces::look(|_| true);
        let pods = report.into_iter().flat_map(|report| &report.pods).filter(|pod| !pod.on_host);
        for PodHere { name, uid, addresses, .. } in pods {
            let cookie = of_pods.of(uid, addresses).and_then(|path| netns_cookie_of(&path).ok());
            found.extend(cookie.map(|cookie| (cookie, name.to_string())));
        }
        found.extend(netns_cookie().ok().map(|own| (own, "node".to_owned())));
        // Cookies are never used again: who is gone keeps its name.
        self.by_cookie.extend(found);
        self.looked = Some(Instant::now());
    }
}
