//! kube-proxy's rules in the kernel: what there is, and what to delete of it, in two parts. Those that decide, such as
//! DNAT rules, have nothing to do once Sidestep serves all that is new. Those that accept forwarded packets of
//! established connections stay until the last of these is over.
//!
//! | file | concept |
//! |---|---|
//! | `names` | which tables and chains are kube-proxy's |
//! | `installed` | what its rules serve, frontend by frontend |
//! | `chains` | which endpoints a chain gives to a client |
//! | `statement` | what a rule says of Services |
//! | `served` | what a proxy serves, kube-proxy or Sidestep |
//! | `ranges` | ranges of addresses, compared by what is in them |
//! | `running` | whether kube-proxy runs |
//! | `legacy` | whether its rules are in tables of iptables-legacy, which nothing here reads |
//! | `foreign` | its connections: the source ports and exchanges of datagrams that are not ours |

mod chains;
mod foreign;
mod installed;
mod legacy;
mod names;
mod ranges;
mod running;
#[cfg(test)]
mod samples;
mod served;
mod statement;

use std::collections::{BTreeMap, BTreeSet};

pub use self::running::{Running, running};
use self::statement::Statement;
pub(crate) use self::{
    foreign::Foreign,
    ranges::Ranges,
    served::{Choice, Served, Serves},
};
use super::netlink::{Chain, Change, Nftables, Rule, Ruleset};
use crate::dataplane::Error;

/// The table that keeps the kernel's NAT on while connections need it ([`Change::HoldNat`]).
pub(crate) const HOLD: &str = "sidestep-takeover";
/// `NFPROTO_IPV4`, `NFPROTO_IPV6`.
const FAMILIES: [u8; 2] = [2, 10];
/// The tables of iptables in which Services are.
const NAT: &str = "nat";
const FILTER: &str = "filter";
/// `NFPROTO_INET`: both.
const INET: u8 = 1;

/// kube-proxy's rules in one table.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct KubeProxyTable {
    /// The table, such as `ip nat`.
    pub table: String,
    /// kube-proxy's mode.
    pub mode: &'static str,
    /// How many chains of kube-proxy's are in it.
    pub chains: usize,
    /// Chains of kube-proxy's that rules of somebody else jump to. They stay.
    pub used_by_others: BTreeSet<String>,
}

/// All of kube-proxy's rules.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub(crate) struct Rules {
    /// In each table.
    pub(crate) tables: Vec<KubeProxyTable>,
    /// Whether some give connections their endpoints.
    decides: bool,
    /// Deletes what decides.
    deciding: Vec<Change>,
    /// Deletes what accepts.
    accepting: Vec<Change>,
    /// The families whose NAT is held.
    held: Vec<u8>,
}

impl Rules {
    /// Reads them.
    pub(crate) fn read(nftables: &Nftables) -> Result<Self, Error> {
        let mut rules = Self::default();
        let mut of_table: BTreeMap<(u8, String), Vec<Chain>> = BTreeMap::new();
        let mut others = Vec::new();
        let chains = nftables.chains()?;
        for (family, table) in nftables.tables()? {
            if table == HOLD {
                rules.held.push(family);
            }
            if table == names::TABLE {
                let of_this = |chain: &&Chain| chain.family == family && chain.table == table;
                rules.tables.push(KubeProxyTable {
                    table: format!("{} {table}", family_name(family)),
                    mode: "nftables",
                    chains: chains.iter().filter(of_this).count(),
                    used_by_others: BTreeSet::new(),
                });
                rules.decides = true;
                rules.deciding.push(Change::DeleteTable { family, table });
            }
        }
        for chain in chains {
            if !FAMILIES.contains(&chain.family) || !names::IPTABLES.contains(&chain.table.as_str()) {
                continue;
            }
            if names::is_chain(&chain.name) {
                of_table.entry((chain.family, chain.table.clone())).or_default().push(chain);
            } else {
                others.push(chain);
            }
        }
        for ((family, table), chains) in of_table {
            let of_others = others.iter().filter(|chain| (chain.family, &chain.table) == (family, &table));
            let mut jumps = Vec::new();
            for chain in of_others {
                for jump in nftables.jumps(chain)? {
                    jumps.push((chain.clone(), jump.handle, jump.to));
                }
            }
            let kept = kept(nftables, &chains, &jumps)?;
            rules.add(&chains, &jumps, kept, format!("{} {table}", family_name(family)));
        }
        Ok(rules)
    }

    /// Adds what to delete of kube-proxy's chains in one table of iptables. `jumps` are the others'.
    fn add(
        &mut self,
        chains: &[Chain],
        jumps: &[(Chain, u64, String)],
        kept: BTreeSet<String>,
        table: String,
    ) {
        let goes = |name: &str| names::is_chain(name) && !kept.contains(name);
        for (chain, handle, to) in jumps.iter().filter(|(_, _, to)| goes(to)) {
            self.part(&chain.table, to).push(Change::DeleteRule(chain.clone(), *handle));
        }
        // All rules first: chains jump to each other.
        for chain in chains.iter().filter(|chain| goes(&chain.name)) {
            self.decides |= names::decides(&chain.table, &chain.name);
            self.part(&chain.table, &chain.name).push(Change::DeleteRules(chain.clone()));
        }
        for chain in chains.iter().filter(|chain| goes(&chain.name)) {
            self.part(&chain.table, &chain.name).push(Change::DeleteChain(chain.clone()));
        }
        self.tables.push(KubeProxyTable {
            table,
            mode: "iptables",
            chains: chains.len(),
            used_by_others: kept,
        });
    }

    fn part(&mut self, table: &str, chain: &str) -> &mut Vec<Change> {
        if names::accepts(table, chain) { &mut self.accepting } else { &mut self.deciding }
    }

    /// Whether rules decide where connections go.
    pub(crate) const fn decides(&self) -> bool {
        self.decides
    }

    /// Whether there is anything to delete, of kube-proxy's or of ours.
    pub(crate) fn is_empty(&self) -> bool {
        self.deciding.is_empty() && self.accepting.is_empty() && self.held.is_empty()
    }

    /// Deletes what decides, and holds the kernel's NAT for its families, in one step.
    pub(crate) fn delete_deciding(&self, nftables: &Nftables) -> Result<(), Error> {
        let is_decided =
            |family: &u8| self.deciding.iter().any(|change| [*family, INET].contains(&change.family()));
        let missing = FAMILIES.into_iter().filter(|family| is_decided(family) && !self.held.contains(family));
        let hold = missing.map(|family| Change::HoldNat { family, table: HOLD });
        nftables.commit(&hold.chain(self.deciding.iter().cloned()).collect::<Vec<_>>())
    }

    /// Deletes what accepts, and lets the kernel's NAT go.
    pub(crate) fn delete_rest(&self, nftables: &Nftables) -> Result<(), Error> {
        nftables.commit(&[&self.accepting[..], &self.let_go()].concat())
    }

    /// Lets the kernel's NAT go; whether it was held.
    pub(crate) fn release(&self, nftables: &Nftables) -> Result<bool, Error> {
        nftables.commit(&self.let_go())?;
        Ok(!self.held.is_empty())
    }

    fn let_go(&self) -> Vec<Change> {
        let table = |family: &u8| Change::DeleteTable { family: *family, table: HOLD.to_owned() };
        self.held.iter().map(table).collect()
    }
}

/// Reads what kube-proxy's rules serve.
pub(crate) fn serves(nftables: &Nftables) -> Result<Serves, Error> {
    let (mut all, chains) = (Serves::default(), nftables.chains()?);
    let keep = |v4| move |rule: &Rule| Statement::read(rule, v4);
    let rules = |family, table: &str, is_wanted: fn(&str) -> bool, all: &mut Ruleset<Statement>| {
        let of_table = chains.iter().filter(|chain| (chain.family, chain.table.as_str()) == (family, table));
        let mut wanted = of_table.filter(|chain| is_wanted(&chain.name));
        wanted.try_for_each(|chain| nftables.add_rules(chain, all, &keep(family == FAMILIES[0])))
    };
    for (family, name) in nftables.tables()? {
        if !FAMILIES.contains(&family) {
            continue;
        }
        let v4 = family == FAMILIES[0];
        if name == names::TABLE {
            let mut ruleset = nftables.sets(family, &name, &keep(v4))?;
            rules(family, &name, |_| true, &mut ruleset)?;
            let table = format!("{} {name}", family_name(family));
            all = all.and(installed::of_nftables(&ruleset, &table, v4));
        }
        if name == NAT {
            let (mut nat, mut filter) = (Ruleset::default(), Ruleset::default());
            rules(family, NAT, names::is_chain, &mut nat)?;
            rules(family, FILTER, |name| names::REFUSING.contains(&name), &mut filter)?;
            all = all.and(installed::of_iptables(&nat, &filter, v4));
        }
    }
    Ok(all)
}

/// The chains of kube-proxy's that somebody else needs: rules in chains of their own jump there, as those of CNI plugins
/// do to mark packets, or a base chain jumps where kube-proxy itself does not.
fn kept(
    nftables: &Nftables,
    chains: &[Chain],
    jumps: &[(Chain, u64, String)],
) -> Result<BTreeSet<String>, Error> {
    let mut kept = BTreeSet::new();
    let is_others = |(from, _, to): &&(Chain, u64, String)| !from.is_base || !names::is_entered(to);
    let by_others = jumps.iter().filter(is_others).map(|(_, _, to)| to.clone());
    let mut open: Vec<String> = by_others.collect();
    while let Some(name) = open.pop() {
        let Some(chain) = chains.iter().find(|chain| chain.name == name) else { continue };
        if !kept.insert(name) {
            continue;
        }
        open.extend(nftables.jumps(chain)?.into_iter().map(|jump| jump.to));
        if chain.name == names::MARKS {
            open.push(names::MASQUERADES.to_owned());
        }
    }
    Ok(kept)
}

/// As `nft` writes it.
fn family_name(family: u8) -> &'static str {
    match family {
        INET => "inet",
        2 => "ip",
        10 => "ip6",
        _ => "other",
    }
}

/// The modes of kube-proxy that have left something in the kernel, running or not. Asks for a few names: rules of ten
/// thousand Services cost nothing here.
pub(crate) fn modes() -> Vec<&'static str> {
    let Ok(nftables) = Nftables::new() else { return has_ipvs().then_some("ipvs").into_iter().collect() };
    let table = nftables.tables().unwrap_or_default().iter().any(|(_, name)| name == names::TABLE);
    let chain = FAMILIES.iter().any(|family| nftables.has_chain(*family, "nat", names::SERVICES));
    let found = [(table, "nftables"), (chain, "iptables"), (has_ipvs(), "ipvs")];
    found.into_iter().filter(|(is_there, _)| *is_there).map(|(_, mode)| mode).collect()
}

/// Why kube-proxy's rules here cannot be taken over, and what to do instead; nothing if they can.
pub fn not_supported() -> Option<String> {
    if has_ipvs() {
        return Some(
            "kube-proxy's mode is ipvs (there is a device kube-ipvs0), and its connections end with its rules: drain \
             the node, stop kube-proxy, then `ipvsadm --clear; ip link delete kube-ipvs0`, or reboot"
                .to_owned(),
        );
    }
    let tables = legacy::tables();
    (!tables.is_empty()).then(|| {
        format!(
            "kube-proxy's rules are in {} of iptables-legacy, whose rules Sidestep neither compares nor removes, and \
             its connections end with them: drain the node, stop kube-proxy and reboot, or remove the chains KUBE-* \
             with iptables-legacy",
            tables.join(" and ")
        )
    })
}

/// Whether kube-proxy serves in a way that is not read here.
pub(crate) fn serves_otherwise() -> bool {
    has_ipvs() || !legacy::tables().is_empty()
}

/// Whether kube-proxy's mode is `ipvs`, whose connections are IPVS's own and end with its rules.
fn has_ipvs() -> bool {
    nix::net::if_::if_nametoindex("kube-ipvs0").is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chain(name: &str, is_base: bool) -> Chain {
        Chain { family: 2, table: "nat".to_owned(), name: name.to_owned(), is_base }
    }

    #[test]
    fn rules_go_before_chains_and_what_accepts_goes_last() {
        let [services, forward] = ["KUBE-SERVICES", "KUBE-FORWARD"].map(|name| chain(name, false));
        let base = chain("PREROUTING", true);
        let jump = |handle, to: &str| (base.clone(), handle, to.to_owned());
        let jumps =
            [jump(1, "KUBE-SERVICES"), jump(2, "KUBE-FORWARD"), jump(3, "CNI-DN"), jump(4, "KUBE-FIREWALL")];
        let mut rules = Rules::default();
        rules.add(&[services.clone(), forward.clone()], &jumps, BTreeSet::new(), "ip nat".to_owned());
        let whole = |chain: &Chain, handle| {
            [
                Change::DeleteRule(base.clone(), handle),
                Change::DeleteRules(chain.clone()),
                Change::DeleteChain(chain.clone()),
            ]
        };
        assert_eq!(rules.deciding, whole(&services, 1));
        assert_eq!(rules.accepting, whole(&forward, 2));
        assert!(rules.decides());
    }

    #[test]
    fn chains_that_others_use_stay_with_the_jumps_to_them() {
        let marks = chain(names::MARKS, false);
        let jumps = [(chain("OUTPUT", true), 1, names::MARKS.to_owned())];
        let mut rules = Rules::default();
        rules.add(&[marks], &jumps, BTreeSet::from([names::MARKS.to_owned()]), "ip nat".to_owned());
        assert!(rules.is_empty() && rules.tables[0].used_by_others.contains(names::MARKS));
        assert!(!rules.decides());
    }
}
