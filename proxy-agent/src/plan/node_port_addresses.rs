//! On which of its addresses does the node answer NodePorts? (CF-8, PO-10)

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use proxy_common::Address;

/// `nodePortAddresses`: ranges, or the words `primary`, `localhost` and `all`. By default the Node's own
/// addresses. Loopback addresses answer the node's own processes in any case (PO-11).
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct NodePortAddresses {
    entries: Vec<Entry>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Entry {
    Primary,
    Localhost,
    All,
    Range { base: Address, length: u8 },
}

impl NodePortAddresses {
    /// Reads the entries. What cannot be read comes back as its position and what is wrong with it.
    pub fn read<'a>(written: impl IntoIterator<Item = &'a str>) -> (Self, Vec<(usize, String)>) {
        let (mut entries, mut bad) = (Vec::new(), Vec::new());
        for (index, text) in written.into_iter().enumerate() {
            match entry(text.trim()) {
                Some(entry) => entries.push(entry),
                None => bad.push((
                    index,
                    format!(
                        "`{text}` is no range of addresses, nor a word that is known; \
                         write one such as 192.0.2.0/24, or primary, localhost or all"
                    ),
                )),
            }
        }
        (Self { entries }, bad)
    }

    /// Which of the Node's addresses (`of_node`) and of those of its interfaces (`local`).
    pub(super) fn choose(&self, of_node: &[Address], local: &[Address]) -> Vec<Address> {
        let known = if of_node.is_empty() { local } else { of_node };
        if self.entries.is_empty() {
            return known.to_vec();
        }
        let mut chosen = Vec::new();
        for entry in &self.entries {
            match entry {
                Entry::Localhost => {}
                Entry::Primary => chosen
                    .extend([true, false].iter().filter_map(|v4| known.iter().find(|ip| ip.is_v4() == *v4))),
                Entry::All => chosen.extend(local.iter().chain(of_node)),
                Entry::Range { .. } => {
                    chosen.extend(local.iter().chain(of_node).filter(|ip| entry.contains(ip)));
                }
            }
        }
        // PO-10: ranges of one family alone say nothing about the other, where every address answers.
        for v4 in [true, false] {
            let silent = |entry: &Entry| matches!(entry, Entry::Range { base, .. } if base.is_v4() != v4);
            if self.entries.iter().all(silent) {
                chosen.extend(local.iter().chain(of_node).filter(|ip| ip.is_v4() == v4));
            }
        }
        chosen.sort_unstable();
        chosen.dedup();
        chosen
    }

    /// Where to listen for what load balancers ask (HE-3): everywhere, unless some addresses are chosen.
    pub(super) fn listening(&self, chosen: impl Iterator<Item = IpAddr>) -> Vec<IpAddr> {
        if self.entries.is_empty() || self.entries.contains(&Entry::All) {
            return vec![Ipv4Addr::UNSPECIFIED.into(), Ipv6Addr::UNSPECIFIED.into()];
        }
        chosen.collect()
    }
}

impl Entry {
    fn contains(&self, address: &Address) -> bool {
        let Self::Range { base, length } = self else { return false };
        let bits = u32::from(*length) + if base.is_v4() { 96 } else { 0 };
        let differing = u128::from_be_bytes(base.bytes) ^ u128::from_be_bytes(address.bytes);
        base.is_v4() == address.is_v4() && (bits == 0 || differing >> (128 - bits) == 0)
    }
}

fn entry(text: &str) -> Option<Entry> {
    match text {
        "primary" => return Some(Entry::Primary),
        "localhost" => return Some(Entry::Localhost),
        "all" => return Some(Entry::All),
        _ => {}
    }
    let (ip, length) = text.split_once('/')?;
    let base = Address::from(ip.parse::<IpAddr>().ok()?);
    let length = length.parse().ok()?;
    (length <= if base.is_v4() { 32 } else { 128 }).then_some(Entry::Range { base, length })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses(texts: &[&str]) -> Vec<Address> {
        texts.iter().map(|text| Address::from(text.parse::<IpAddr>().expect("an address"))).collect()
    }

    /// CF-8, PO-10.
    #[test]
    fn entries_choose_addresses() {
        let of_node = addresses(&["192.0.2.10", "198.51.100.1", "2001:db8::10"]);
        let local = addresses(&["192.0.2.10", "10.244.1.1", "2001:db8::10", "fd00::1"]);
        for (entries, expected) in [
            (&[][..], &["192.0.2.10", "198.51.100.1", "2001:db8::10"][..]),
            (&["primary"], &["192.0.2.10", "2001:db8::10"]),
            (&["localhost"], &[]),
            (&["127.0.0.0/8", "::1/128"], &[]),
            (&["all"], &["10.244.1.1", "192.0.2.10", "198.51.100.1", "2001:db8::10", "fd00::1"]),
            (&["10.0.0.0/8"], &["10.244.1.1", "2001:db8::10", "fd00::1"]),
            (&["10.0.0.0/8", "fd00::/8"], &["10.244.1.1", "fd00::1"]),
            (&["0.0.0.0/0", "::1/128"], &["10.244.1.1", "192.0.2.10", "198.51.100.1"]),
            (&["primary", "10.0.0.0/8"], &["10.244.1.1", "192.0.2.10", "2001:db8::10"]),
        ] {
            let (chosen, bad) = NodePortAddresses::read(entries.iter().copied());
            assert_eq!(bad, [], "{entries:?}");
            let mut expected = addresses(expected);
            expected.sort_unstable();
            let mut found = chosen.choose(&of_node, &local);
            found.sort_unstable();
            assert_eq!(found, expected, "{entries:?}");
        }
        let (primary, _) = NodePortAddresses::read(["primary"]);
        assert_eq!(primary.choose(&[], &local), addresses(&["192.0.2.10", "2001:db8::10"]), "without a Node");
    }

    /// CF-8: a typo is named by its position.
    #[test]
    fn what_cannot_be_read_is_named() {
        let (read, bad) = NodePortAddresses::read(["10.0.0.0/33", "primary", "everything"]);
        assert_eq!(read.entries, [Entry::Primary]);
        assert_eq!(bad.iter().map(|(index, _)| *index).collect::<Vec<_>>(), [0, 2]);
    }
}
