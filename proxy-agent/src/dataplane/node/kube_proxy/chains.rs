//! Which endpoints a chain of kube-proxy's gives to a client: follows it from rule to rule, as a packet would. Pure.

use std::collections::{BTreeSet, HashMap};

use proxy_common::Address;

use super::{
    super::netlink::{Ruleset, Verdict},
    names,
    ranges::Ranges,
    served::Choice,
    statement::{Action, Source, Statement, address_of},
};

/// How far kube-proxy's chains lead: from the firewall's by those of external traffic and of the Service to the
/// endpoint's, and one more.
const DEPTH: usize = 6;

/// Who sends.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) enum Client {
    /// Pods and processes of this node.
    Inside,
    /// All others.
    Outside,
}

/// The chains of a table.
pub(super) struct Chains<'a> {
    ruleset: &'a Ruleset<Statement>,
    table: &'a str,
    v4: bool,
    /// What is known of those that several may lead to: not of the endpoints', which are most.
    known: HashMap<(String, Client), Choice>,
    /// Rules that were not understood.
    pub(super) not_understood: BTreeSet<String>,
}

impl<'a> Chains<'a> {
    /// Those of a table of IPv4 or IPv6, which is called so.
    pub(super) fn new(ruleset: &'a Ruleset<Statement>, table: &'a str, v4: bool) -> Self {
        Self { ruleset, table, v4, known: HashMap::new(), not_understood: BTreeSet::new() }
    }

    /// The rules of a chain.
    pub(super) fn statements(&mut self, chain: &str) -> &'a [Statement] {
        let all = self.ruleset.rules.get(chain).map_or(&[][..], Vec::as_slice);
        for Statement { handle, unknown, .. } in all {
            if let Some(unknown) = unknown {
                self.not_understood
                    .insert(format!("table {}, chain {chain}, rule {handle}: {unknown}", self.table));
            }
        }
        all
    }

    /// What a client gets whose packets come to a chain.
    pub(super) fn choice(&mut self, chain: &str, client: Client) -> Choice {
        self.follow(chain, client, DEPTH)
    }

    fn follow(&mut self, chain: &str, client: Client, depth: usize) -> Choice {
        if depth == 0 || names::marks(chain) {
            return Choice::default();
        }
        let key = (chain.to_owned(), client);
        if let Some(known) = self.known.get(&key) {
            return known.clone();
        }
        // Should it lead back to itself, which the kernel does not allow.
        self.known.insert(key.clone(), Choice::default());
        let (mut choice, mut is_endpoints) = (Choice::default(), false);
        for statement in self.statements(chain) {
            let remembers = self.remembers(statement);
            let is_everyones = match (&statement.source, client) {
                // Of those that it remembers.
                _ if remembers.is_some() => false,
                (None, _)
                | (Some(Source::In(..) | Source::InSet(_) | Source::Node), Client::Inside)
                | (Some(Source::NotIn(..) | Source::NotInSet(_)), Client::Outside) => true,
                _ => continue,
            };
            choice.seconds = choice.seconds.max(remembers.unwrap_or(0));
            let chains = match &statement.action {
                Action::To(chain) => vec![chain.as_str()],
                Action::Map(map) => self.targets(map),
                Action::Gets(endpoint) => {
                    choice.endpoints.insert(*endpoint);
                    is_endpoints = true;
                    break;
                }
                Action::Refused if is_everyones => break,
                Action::Nothing | Action::Refused => continue,
            };
            let mut led = false;
            for chain in chains {
                let Choice { endpoints, seconds } = self.follow(chain, client, depth - 1);
                led |= !endpoints.is_empty();
                choice.endpoints.extend(endpoints);
                choice.seconds = choice.seconds.max(seconds);
            }
            // What follows is not for packets that this one sends on; but one of several at random leaves some.
            if led && is_everyones && statement.source.is_some() {
                break;
            }
        }
        if is_endpoints {
            self.known.remove(&key);
        } else {
            self.known.insert(key, choice.clone());
        }
        choice
    }

    /// For how many seconds a rule remembers clients, if it asks for them.
    fn remembers(&self, statement: &Statement) -> Option<u64> {
        let of_set = |set: &String| self.ruleset.sets.get(set).and_then(|set| set.seconds);
        statement.seconds.or_else(|| match &statement.source {
            Some(Source::InSet(set)) => of_set(set),
            _ => None,
        })
    }

    /// The chains that a map leads to.
    fn targets(&self, map: &str) -> Vec<&'a str> {
        let elements = self.ruleset.sets.get(map).map_or(&[][..], |map| map.elements.as_slice());
        let to = elements.iter().filter_map(|element| match &element.verdict {
            Some(Verdict::To(chain)) => Some(chain.as_str()),
            _ => None,
        });
        to.collect()
    }

    /// The addresses in a set.
    pub(super) fn addresses(&self, set: &str) -> Vec<(Address, Address)> {
        let Some(set) = self.ruleset.sets.get(set) else { return Vec::new() };
        let address = |key: &[u8]| address_of(key.get(..if self.v4 { 4 } else { 16 })?);
        let mut ends: Vec<(Address, bool)> = set
            .elements
            .iter()
            .filter_map(|element| Some((address(&element.key)?, element.is_end)))
            .collect();
        if !set.is_interval {
            return ends.into_iter().map(|(address, _)| (address, address)).collect();
        }
        // Where one range ends and another begins, the end is first.
        ends.sort_unstable_by_key(|(address, is_end)| (*address, !is_end));
        let number = |address: Address| u128::from_be_bytes(address.bytes);
        let (mut all, mut begin) = (Vec::new(), None);
        for (address, is_end) in ends {
            if !is_end {
                begin = Some(address);
            } else if let Some(first) = begin.take() {
                let last = Address { bytes: number(address).saturating_sub(1).to_be_bytes() };
                all.push((first, last));
            }
        }
        // The one with the last address of all has no end.
        all.extend(begin.map(|first| (first, Address { bytes: [0xff; 16] })));
        all
    }

    /// The clients that a chain of source ranges lets in, and the chain that they come to: in mode nftables there is
    /// none.
    pub(super) fn restricted(&mut self, chain: &str) -> (Option<Ranges>, Option<String>) {
        let (mut ranges, mut restricts, mut to) = (Vec::new(), false, None);
        for statement in self.statements(chain) {
            match (&statement.source, &statement.action) {
                (_, Action::To(chain)) if names::marks(chain) => {}
                (source, Action::To(chain)) => {
                    to.get_or_insert_with(|| chain.clone());
                    if let Some(Source::In(first, last)) = source {
                        restricts = true;
                        ranges.push((*first, *last));
                    }
                }
                (Some(Source::NotIn(first, last)), Action::Refused) => {
                    restricts = true;
                    ranges.push((*first, *last));
                }
                (Some(Source::NotInSet(set)), Action::Refused) => {
                    restricts = true;
                    ranges.extend(self.addresses(set));
                }
                (None, Action::Refused) => restricts = true,
                _ => {}
            }
        }
        (restricts.then(|| Ranges::new(ranges)), to)
    }
}
