//! The shadow comparison: what Sidestep serves, frontend by frontend, beside what kube-proxy serves by its rules. Pure, but
//! for reading both.
//!
//! A difference **matters** if clients of kube-proxy's would get something else, or nothing, once its rules are gone.
//!
//! | file | concept |
//! |---|---|
//! | `ours` | what Sidestep's tables serve |
//! | `difference` | a difference, and those that several frontends have |

mod difference;
mod ours;

use std::collections::{BTreeSet, HashSet};

use proxy_common::{FrontendKey, Protocol};
use serde::Serialize;

pub use self::difference::Difference;
pub(super) use self::ours::serves;
use super::node::kube_proxy::{Choice, Served, Serves};

/// What the comparison found.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Comparison {
    /// How many frontends kube-proxy serves.
    pub frontends: usize,
    /// Of how many Service ports.
    pub services: usize,
    /// The differences, those that matter first.
    pub differences: Vec<Difference>,
    /// Rules of kube-proxy's that were not understood, by name. Where they decide, there are differences, too.
    pub not_understood: Vec<String>,
}

impl Comparison {
    /// The differences that matter.
    pub fn that_matter(&self) -> impl Iterator<Item = &Difference> {
        self.differences.iter().filter(|difference| difference.matters)
    }

    /// The same, but what did not matter in an earlier look does not yet.
    pub(super) fn after(mut self, earlier: &Self) -> Self {
        let mattered: HashSet<_> = earlier.that_matter().map(|one| (&one.service, one.what)).collect();
        for difference in self.differences.iter_mut().filter(|difference| difference.matters) {
            if !mattered.contains(&(&difference.service, difference.what)) {
                difference.matters = false;
                difference.because = "a change is in flight: it was not so a moment before";
            }
        }
        self
    }
}

/// Compares. `follows` says whether kube-proxy still runs and follows changes.
pub(super) fn compare(of_kube_proxy: &Serves, ours: &Serves, follows: bool) -> Comparison {
    let mut differences = Vec::new();
    for (key, theirs) in &of_kube_proxy.frontends {
        match ours.frontends.get(key) {
            None => differences.push(missing(key, theirs)),
            Some(_) if key.protocol == Protocol::Sctp as u8 => differences.push(sctp(key, theirs)),
            Some(ours) => differences.extend(of_frontend(key, theirs, ours, follows)),
        }
    }
    for (key, served) in &ours.frontends {
        if !of_kube_proxy.frontends.contains_key(key) {
            differences.push(extra(key, served));
        }
    }
    let unserved =
        of_kube_proxy.node_addresses.iter().filter(|address| !ours.node_addresses.contains(address));
    differences.extend(unserved.map(|address| Difference {
        service: "all".to_owned(),
        frontends: vec![address.to_string()],
        what: "address of NodePorts",
        kube_proxy: "served".to_owned(),
        sidestep: "not served".to_owned(),
        matters: true,
        because: "NodePorts would end at this address: see nodePortAddresses",
    }));
    let services: BTreeSet<_> =
        of_kube_proxy.frontends.iter().map(|(key, served)| name(key, served)).collect();
    Comparison {
        frontends: of_kube_proxy.frontends.len(),
        services: services.len(),
        differences: difference::together(differences),
        not_understood: of_kube_proxy.not_understood.iter().cloned().collect(),
    }
}

/// The Service; where its name is not known, the frontend.
fn name(key: &FrontendKey, served: &Served) -> String {
    served.service.clone().unwrap_or_else(|| key.to_string())
}

fn missing(key: &FrontendKey, theirs: &Served) -> Difference {
    let refused = theirs.choices().iter().all(|choice| choice.endpoints.is_empty());
    Difference {
        service: name(key, theirs),
        frontends: vec![key.to_string()],
        what: "frontend",
        kube_proxy: if refused { "refused".to_owned() } else { endpoints(&theirs.inside) },
        sidestep: "not there".to_owned(),
        matters: !refused,
        because: if refused {
            "no client is served either way"
        } else {
            "its clients would be served no more: see the problems in `sidestep status`"
        },
    }
}

fn extra(key: &FrontendKey, ours: &Served) -> Difference {
    Difference {
        service: name(key, ours),
        frontends: vec![key.to_string()],
        what: "frontend",
        kube_proxy: "not there".to_owned(),
        sidestep: endpoints(&ours.inside),
        matters: false,
        because: "kube-proxy does not serve it, or not yet: nobody loses anything",
    }
}

fn sctp(key: &FrontendKey, theirs: &Served) -> Difference {
    Difference {
        service: name(key, theirs),
        frontends: vec![key.to_string()],
        what: "frontend",
        kube_proxy: endpoints(&theirs.inside),
        sidestep: "not served".to_owned(),
        matters: true,
        because: "Sidestep serves no SCTP",
    }
}

/// The differences at a frontend that both serve.
fn of_frontend(key: &FrontendKey, theirs: &Served, ours: &Served, follows: bool) -> Vec<Difference> {
    let service = ours.service.as_ref().or(theirs.service.as_ref()).cloned();
    let difference = |what, kube_proxy: String, sidestep: String, matters, because| Difference {
        service: service.clone().unwrap_or_else(|| key.to_string()),
        frontends: vec![key.to_string()],
        what,
        kube_proxy,
        sidestep,
        matters,
        because,
    };
    let mut found = Vec::new();
    let sides = [
        ("endpoints for this node", "affinity for this node"),
        ("endpoints for others", "affinity for others"),
    ];
    for ((what, affinity), [theirs, ours]) in
        sides.into_iter().zip([[&theirs.inside, &ours.inside], [&theirs.outside, &ours.outside]])
    {
        if theirs.endpoints != ours.endpoints {
            let (matters, because) = of_endpoints(theirs, ours, follows);
            found.push(difference(what, endpoints(theirs), endpoints(ours), matters, because));
        }
        // Without endpoints there is no rule that would say it.
        if theirs.seconds != ours.seconds && !theirs.endpoints.is_empty() && !ours.endpoints.is_empty() {
            let because = "clients would change endpoints, or keep them for another time";
            found.push(difference(affinity, seconds(theirs), seconds(ours), true, because));
        }
    }
    if theirs.clients != ours.clients {
        let told =
            |served: &Served| served.clients.as_ref().map_or("everyone".to_owned(), ToString::to_string);
        // kube-proxy lets in what comes from the LoadBalancer IP itself where the node is let in.
        let own = theirs.clients.is_some()
            && ours.clients.as_ref().map(|ranges| ranges.with(key.address)) == theirs.clients;
        let because = if own {
            "kube-proxy adds the LoadBalancer IP itself; Sidestep knows the node by its other addresses"
        } else {
            "other clients would be let in"
        };
        found.push(difference("source ranges", told(theirs), told(ours), !own, because));
    }
    found
}

/// Whether it matters that the endpoints differ.
fn of_endpoints(theirs: &Choice, ours: &Choice, follows: bool) -> (bool, &'static str) {
    if ours.endpoints.is_empty() {
        return (true, "its clients would be refused");
    }
    if theirs.endpoints.is_empty() {
        return (false, "clients that kube-proxy refuses are served");
    }
    if !follows {
        return (false, "kube-proxy is gone, and its rules follow no changes");
    }
    (true, "clients would get other endpoints; it is no change in flight, as both had time to follow")
}

fn endpoints(choice: &Choice) -> String {
    if choice.endpoints.is_empty() {
        return "refused".to_owned();
    }
    let all: Vec<String> = choice.endpoints.iter().map(ToString::to_string).collect();
    all.join(", ")
}

fn seconds(choice: &Choice) -> String {
    match choice.seconds {
        0 => "none".to_owned(),
        seconds => format!("{seconds} s"),
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, SocketAddr};

    use proxy_common::Port;

    use super::*;
    use crate::dataplane::node::kube_proxy::Ranges;

    fn at(text: &str, protocol: Protocol) -> FrontendKey {
        let at: SocketAddr = text.parse().expect("an address");
        FrontendKey::new(at.ip().into(), Port::new(at.port()), protocol as u8)
    }

    fn choice(endpoints: &[&str], seconds: u64) -> Choice {
        let endpoints = endpoints.iter().map(|endpoint| endpoint.parse().expect("an address"));
        Choice { endpoints: endpoints.collect(), seconds }
    }

    fn served(inside: Choice, outside: Choice) -> Served {
        Served { service: Some("default/web:http".to_owned()), inside, outside, clients: None }
    }

    fn serves(all: &[(FrontendKey, &Served)]) -> Serves {
        Serves {
            frontends: all.iter().map(|(key, served)| (*key, (*served).clone())).collect(),
            ..Serves::default()
        }
    }

    /// What, kube-proxy's, Sidestep's, and whether it matters.
    fn found(theirs: &Served, ours: &Served, follows: bool) -> Vec<(&'static str, String, String, bool)> {
        let key = at("203.0.113.80:80", Protocol::Tcp);
        let compared = compare(&serves(&[(key, theirs)]), &serves(&[(key, ours)]), follows);
        let told = |one: Difference| (one.what, one.kube_proxy, one.sidestep, one.matters);
        compared.differences.into_iter().map(told).collect()
    }

    #[test]
    fn what_is_the_same_is_no_difference() {
        let web = served(choice(&["10.244.1.5:8080"], 10_800), choice(&[], 0));
        assert_eq!(found(&web, &web, true), []);
    }

    #[test]
    fn other_endpoints_matter_unless_kube_proxy_follows_no_changes() {
        let (one, two, none) =
            (choice(&["10.244.1.5:80"], 0), choice(&["10.244.1.5:80", "10.244.2.5:80"], 0), choice(&[], 0));
        for (theirs, ours, follows, matters) in [
            (&one, &two, true, true),
            (&one, &two, false, false),
            (&two, &none, true, true),
            (&two, &none, false, true),
            (&none, &two, true, false),
        ] {
            // A Local set: it is the one for clients outside that differs.
            let (theirs, ours) = (served(two.clone(), theirs.clone()), served(two.clone(), ours.clone()));
            let found = found(&theirs, &ours, follows);
            let [("endpoints for others", _, _, found)] = found[..] else { panic!("{found:?}") };
            assert_eq!(found, matters, "{theirs:?} {ours:?} {follows}");
        }
    }

    #[test]
    fn affinity_and_its_seconds_matter() {
        let web = |seconds| {
            let choice = choice(&["10.244.1.5:8080"], seconds);
            served(choice.clone(), choice)
        };
        let told = |kube_proxy: &str, sidestep: &str| {
            ["affinity for others", "affinity for this node"]
                .map(|what| (what, kube_proxy.to_owned(), sidestep.to_owned(), true))
        };
        assert_eq!(found(&web(10_800), &web(0), true), told("10800 s", "none"));
        assert_eq!(found(&web(60), &web(61), false), told("60 s", "61 s"));
    }

    #[test]
    fn source_ranges_matter_but_for_the_address_that_kube_proxy_adds() {
        let all = choice(&["10.244.1.5:8080"], 0);
        let address = |text: &str| text.parse::<IpAddr>().expect("an address").into();
        let ranges = Ranges::new([Ranges::prefix(address("198.51.100.0"), 96 + 24)]);
        let web = |clients| Served { clients, ..served(all.clone(), all.clone()) };
        let of = |theirs: Option<&Ranges>, ours: Option<&Ranges>| {
            let found = found(&web(theirs.cloned()), &web(ours.cloned()), false);
            found.into_iter().map(|(what, .., matters)| (what, matters)).collect::<Vec<_>>()
        };
        assert_eq!(of(Some(&ranges), None), [("source ranges", true)]);
        assert_eq!(of(None, Some(&ranges)), [("source ranges", true)]);
        assert_eq!(of(Some(&ranges), Some(&ranges.with(address("10.0.0.1")))), [("source ranges", true)]);
        assert_eq!(
            of(Some(&ranges.with(address("203.0.113.80"))), Some(&ranges)),
            [("source ranges", false)]
        );
    }

    #[test]
    fn frontends_of_one_side_and_sctp_are_named_once_for_each_service() {
        let (all, none) = (choice(&["10.244.1.5:8080"], 0), choice(&[], 0));
        let (web, empty) = (served(all.clone(), all), served(none.clone(), none));
        let [tcp, other, sctp] = [
            ("10.96.0.1:80", Protocol::Tcp),
            ("10.96.0.2:80", Protocol::Tcp),
            ("10.96.0.1:80", Protocol::Sctp),
        ]
        .map(|(text, protocol)| at(text, protocol));
        let compared = |theirs: &[(FrontendKey, &Served)], ours: &[(FrontendKey, &Served)]| {
            let compared = compare(&serves(theirs), &serves(ours), true);
            let told = |one: Difference| (one.frontends.len(), one.sidestep, one.matters);
            compared.differences.into_iter().map(told).collect::<Vec<_>>()
        };
        assert_eq!(compared(&[(tcp, &web), (other, &web)], &[]), [(2, "not there".to_owned(), true)]);
        assert_eq!(compared(&[(tcp, &empty)], &[]), [(1, "not there".to_owned(), false)]);
        assert_eq!(compared(&[], &[(tcp, &web)]), [(1, "10.244.1.5:8080".to_owned(), false)]);
        assert_eq!(compared(&[(sctp, &web)], &[(sctp, &web)]), [(1, "not served".to_owned(), true)]);
    }

    #[test]
    fn a_change_in_flight_does_not_matter() {
        let key = at("10.96.0.1:80", Protocol::Tcp);
        let [one, other] = ["10.244.1.5:80", "10.244.1.6:80"].map(|endpoint| {
            let choice = choice(&[endpoint], 0);
            served(choice.clone(), choice)
        });
        let look = |ours| compare(&serves(&[(key, &one)]), &serves(&[(key, ours)]), true);
        let matter = |found: &Comparison| found.that_matter().count();
        let (same, differs) = (look(&one), look(&other));
        assert_eq!([&same, &differs].map(matter), [0, 2]);
        let first = differs.clone().after(&same);
        assert_eq!((matter(&first), first.differences.len()), (0, 2));
        assert_eq!(matter(&differs.clone().after(&differs)), 2, "it stays");
        assert_eq!(matter(&differs.clone().after(&first)), 0, "not in all looks");
    }

    #[test]
    fn an_address_that_serves_no_node_ports_any_more_matters() {
        let node: IpAddr = "192.0.2.10".parse().expect("an address");
        let theirs = Serves { node_addresses: [node.into()].into(), ..Serves::default() };
        assert_eq!(compare(&theirs, &Serves::default(), false).that_matter().count(), 1);
        assert_eq!(compare(&theirs, &theirs, false), Comparison::default());
    }
}
