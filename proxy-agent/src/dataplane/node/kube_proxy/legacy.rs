//! Whether kube-proxy's rules are in tables of iptables-legacy: nothing here reads what they say.

use super::names;
use crate::dataplane::node::iptables::{NatTable, nat_tables};

/// How much is read: kube-proxy's rules for a hundred thousand Services.
const MOST: usize = 1 << 30;

/// The tables with chains of kube-proxy's, such as `ip nat`.
pub(super) fn tables() -> Vec<String> {
    let ours = nat_tables(MOST).into_iter().filter(has_chains);
    ours.map(|NatTable { family, .. }| format!("{family} nat")).collect()
}

/// Whether the table has them; also where it cannot be read, as then nobody knows.
fn has_chains(table: &NatTable) -> bool {
    match &table.content {
        Ok(rules) => rules.names(names::SERVICES),
        Err(error) => {
            tracing::warn!(%error, "cannot read the table `nat` of iptables-legacy");
            true
        }
    }
}
