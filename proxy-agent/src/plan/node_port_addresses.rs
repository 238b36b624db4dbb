//! On which of its addresses does the node answer NodePorts? (CF-8, CF-11, PO-10, PO-11)

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use proxy_common::Address;

/// `nodePortAddresses`: ranges, or the words `primary`, `localhost` and `all`. By default the Node's own
/// addresses, and loopback addresses for the node's own processes (PO-11).
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct NodePortAddresses {
    entries: Vec<Entry>,
    /// `localhostNodePorts: false` (CF-11).
    never_at_loopback: bool,
}

/// 127.0.0.0, the beginning of 127.0.0.0/8.
const LOOPBACK_V4: Address = Address::from_v4([127, 0, 0, 0]);
/// `::1`.
const LOOPBACK_V6: Address = Address { bytes: [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1] };

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
                        "`{text}` is neither a range of addresses nor a known word; write a range such as \
                         192.0.2.0/24, or primary, localhost or all"
                    ),
                )),
            }
        }
        (Self { entries, never_at_loopback: false }, bad)
    }

    /// CF-11: `localhostNodePorts` is false, whatever the entries say.
    #[must_use]
    pub fn never_at_loopback(self) -> Self {
        Self { never_at_loopback: true, ..self }
    }

    /// PO-11: whether loopback addresses of a family answer the node's own processes: by default, and where an entry
    /// names one of them, or is `localhost` or `all`.
    pub(super) fn answers_at_loopback(&self, v4: bool) -> bool {
        let names_loopback = |entry: &Entry| match entry {
            Entry::Localhost | Entry::All => true,
            Entry::Primary => false,
            Entry::Range { base, length } => {
                let (loopback, bits) = if v4 { (LOOPBACK_V4, 8) } else { (LOOPBACK_V6, 128) };
                Entry::Range { base: *base, length: (*length).min(bits) }.contains(&loopback)
            }
        };
        !self.never_at_loopback && (self.is_silent_on(v4) || self.entries.iter().any(names_loopback))
    }

    /// PO-10: ranges of one family alone say nothing about the other, where every address answers.
    fn is_silent_on(&self, v4: bool) -> bool {
        let silent = |entry: &Entry| matches!(entry, Entry::Range { base, .. } if base.is_v4() != v4);
        self.entries.iter().all(silent)
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
        for v4 in [true, false].into_iter().filter(|v4| self.is_silent_on(*v4)) {
            chosen.extend(local.iter().chain(of_node).filter(|ip| ip.is_v4() == v4));
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

    /// PO-11, CF-8, CF-11: by default both families' loopback answers, and where an entry says so.
    #[test]
    fn loopback_answers_where_it_is_not_left_out() {
        for (entries, v4, v6) in [
            (&[][..], true, true),
            (&["primary"], false, false),
            (&["localhost"], true, true),
            (&["primary", "localhost"], true, true),
            (&["all"], true, true),
            (&["10.0.0.0/8"], false, true),
            (&["fd00::/8"], true, false),
            (&["10.0.0.0/8", "fd00::/8"], false, false),
            (&["10.0.0.0/8", "127.0.0.1/32", "::1/128"], true, true),
            (&["127.0.0.0/8", "fd00::/8"], true, false),
            (&["0.0.0.0/0", "::/0"], true, true),
            (&["126.0.0.0/8", "::2/128"], false, false),
        ] {
            let (chosen, bad) = NodePortAddresses::read(entries.iter().copied());
            assert_eq!(bad, [], "{entries:?}");
            let found = (chosen.answers_at_loopback(true), chosen.answers_at_loopback(false));
            assert_eq!(found, (v4, v6), "{entries:?}");
            let never = chosen.never_at_loopback();
            assert!(!never.answers_at_loopback(true) && !never.answers_at_loopback(false), "{entries:?}");
        }
    }

    /// CF-8: a typo is named by its position.
    #[test]
    fn what_cannot_be_read_is_named() {
        let (read, bad) = NodePortAddresses::read(["10.0.0.0/33", "primary", "everything"]);
        assert_eq!(read.entries, [Entry::Primary]);
        assert_eq!(bad.iter().map(|(index, _)| *index).collect::<Vec<_>>(), [0, 2]);
    }
}
