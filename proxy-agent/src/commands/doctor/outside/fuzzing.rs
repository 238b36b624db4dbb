//! What fuzzers throw at the check of rules: what `nft -j list ruleset` and `iptables-save` print.

use super::{
    iptables, nftables,
    rules::{Packet, findings},
};

/// How many chains of these rules certainly drop packets of a kind; nothing if the text is something else.
pub fn dropped(text: &str) -> Option<usize> {
    let rulesets = if text.starts_with('{') {
        nftables::read(text, false).ok()?
    } else {
        iptables::read(text, "iptables", false).into_iter().collect()
    };
    let packet = |v6| Packet { v6, device: "eth0".to_owned(), leaves_by: Some("cni0".to_owned()), to: None };
    Some([false, true].map(|v6| findings(&rulesets, &packet(v6)).len()).iter().sum())
}
