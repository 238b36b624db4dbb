//! The EndpointSlices of one Service, packed, in the order of their names.
//!
//! Usually it is one, which costs no allocation but its own: a cluster has as many of these as Services.

use std::collections::BTreeMap;

use super::{EndpointSlice, ObjectName, packed::Packed};

/// Slices by name.
#[derive(Debug)]
pub(super) enum Slices {
    One(ObjectName, Packed<EndpointSlice>),
    /// None at all, or several.
    Other(Option<Box<ByName>>),
}

type ByName = BTreeMap<ObjectName, Packed<EndpointSlice>>;

impl Default for Slices {
    fn default() -> Self {
        Self::Other(None)
    }
}

impl Slices {
    pub(super) fn is_empty(&self) -> bool {
        matches!(self, Self::Other(None))
    }

    pub(super) fn get(&self, name: &ObjectName) -> Option<&Packed<EndpointSlice>> {
        match self {
            Self::One(known, slice) => (known == name).then_some(slice),
            Self::Other(slices) => slices.as_ref()?.get(name),
        }
    }

    pub(super) fn set(&mut self, name: ObjectName, slice: Packed<EndpointSlice>) {
        *self = match std::mem::take(self) {
            Self::Other(None) => Self::One(name, slice),
            Self::One(known, _) if known == name => Self::One(known, slice),
            Self::One(known, before) => {
                Self::Other(Some(Box::new(BTreeMap::from([(known, before), (name, slice)]))))
            }
            Self::Other(Some(mut slices)) => {
                slices.insert(name, slice);
                Self::Other(Some(slices))
            }
        };
    }

    pub(super) fn remove(&mut self, name: &ObjectName) {
        *self = match std::mem::take(self) {
            Self::One(known, _) if known == *name => Self::default(),
            Self::Other(Some(mut slices)) => {
                slices.remove(name);
                match slices.pop_first() {
                    Some((name, slice)) if slices.is_empty() => Self::One(name, slice),
                    Some((name, slice)) => {
                        slices.insert(name, slice);
                        Self::Other(Some(slices))
                    }
                    None => Self::default(),
                }
            }
            other => other,
        };
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&ObjectName, &Packed<EndpointSlice>)> {
        let (one, others) = match self {
            Self::One(name, slice) => (Some((name, slice)), None),
            Self::Other(slices) => (None, slices.as_ref()),
        };
        one.into_iter().chain(others.into_iter().flat_map(|slices| slices.iter()))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn packed(port: u16) -> Packed<EndpointSlice> {
        let wire = json!({
            "metadata": {"labels": {"kubernetes.io/service-name": "web"}},
            "addressType": "IPv4",
            "ports": [{"name": "", "port": port}],
        });
        Packed::new(&EndpointSlice::read(serde_json::from_value(wire).expect("valid")).expect("kept"))
    }

    fn name(name: &str) -> ObjectName {
        ObjectName::new("ns", name)
    }

    #[test]
    fn one_takes_as_little_as_none_and_several_are_in_order() {
        assert_eq!(size_of::<Slices>(), 24);
        let mut slices = Slices::default();
        let listed = |slices: &Slices| -> Vec<(String, u16)> {
            slices.iter().map(|(name, slice)| (name.to_string(), slice.get().ports[0].port)).collect()
        };
        let expected = |expected: &[(&str, u16)]| {
            expected.iter().map(|(name, port)| (format!("ns/{name}"), *port)).collect::<Vec<_>>()
        };
        for (add, port, then) in [
            ("b", 1, &[("b", 1)][..]),
            ("b", 2, &[("b", 2)]),
            ("a", 3, &[("a", 3), ("b", 2)]),
            ("c", 4, &[("a", 3), ("b", 2), ("c", 4)]),
            ("a", 5, &[("a", 5), ("b", 2), ("c", 4)]),
        ] {
            slices.set(name(add), packed(port));
            assert_eq!(listed(&slices), expected(then));
            assert!(slices.get(&name(add)) == Some(&packed(port)) && slices.get(&name("d")).is_none());
        }
        for (remove, then) in [
            ("d", &[("a", 5), ("b", 2), ("c", 4)][..]),
            ("b", &[("a", 5), ("c", 4)]),
            ("a", &[("c", 4)]),
            ("a", &[("c", 4)]),
            ("c", &[]),
        ] {
            slices.remove(&name(remove));
            assert_eq!(listed(&slices), expected(then));
        }
        assert!(slices.is_empty());
    }
}
