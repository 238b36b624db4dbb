//! What is installed: the state of every Service port, each in one small allocation.
//!
//! A node has those of the whole cluster and looks at the ones that change, so they are packed, each with its identity. Only
//! the Service's name, which others keep too, is beside it.

use std::{
    hash::{BuildHasher as _, RandomState},
    ops::Range,
};

use hashbrown::HashTable;
use proxy_common::{FrontendKey, FrontendKind};
use serde::{Deserialize, Serialize};

use crate::{
    model::{ObjectName, Packed},
    plan::ServicePortId,
};

/// Where an installed Service port is. Its endpoints are read from its slots, not kept twice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Installed {
    /// Index into SERVICES.
    pub index: u32,
    /// Its slots in ENDPOINTS.
    pub block: Range<u32>,
    /// Its entries in FRONTENDS, sorted.
    pub frontends: Box<[(FrontendKey, FrontendKind)]>,
}

/// Every installed Service port, by its identity.
#[derive(Default, Debug)]
pub struct InstalledPorts {
    ports: HashTable<Port>,
    hasher: RandomState,
}

#[derive(Debug)]
struct Port {
    service: ObjectName,
    /// The rest of its identity, and its state.
    packed: Packed<(ServicePortId, State)>,
}

/// [`Installed`], shorter.
#[derive(Serialize, Deserialize)]
struct State {
    index: u32,
    start: u32,
    length: u32,
    frontends: Box<[(FrontendKey, FrontendKind)]>,
}

impl InstalledPorts {
    /// How many there are.
    pub fn len(&self) -> usize {
        self.ports.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.ports.is_empty()
    }

    /// The state of a Service port, if it is installed.
    pub fn get(&self, id: &ServicePortId) -> Option<Installed> {
        let port = self.ports.find(self.hasher.hash_one(id), |port| port.is(id))?;
        Some(port.unpack().1)
    }

    /// All of them, in no particular order.
    pub fn iter(&self) -> impl Iterator<Item = (ServicePortId, Installed)> {
        self.ports.iter().map(Port::unpack)
    }

    /// Notes the state of a Service port.
    pub(crate) fn set(&mut self, id: &ServicePortId, installed: &Installed) {
        let Self { ports, hasher } = self;
        let port = Port::new(id, installed);
        let hash = |port: &Port| hasher.hash_one(port.id());
        match ports.find_mut(hasher.hash_one(id), |port| port.is(id)) {
            // With the name that everyone else keeps: what was adopted came with its own.
            Some(before) => *before = port,
            None => drop(ports.insert_unique(hasher.hash_one(id), port, hash)),
        }
    }

    /// Forgets a Service port; its last state.
    pub(crate) fn remove(&mut self, id: &ServicePortId) -> Option<Installed> {
        let entry = self.ports.find_entry(self.hasher.hash_one(id), |port| port.is(id)).ok()?;
        let (port, _) = entry.remove();
        Some(port.unpack().1)
    }

    /// Gives back the room of what is gone.
    pub(crate) fn shrink(&mut self) {
        let Self { ports, hasher } = self;
        if ports.capacity() / 4 > ports.len() {
            ports.shrink_to(ports.len() * 2, |port| hasher.hash_one(port.id()));
        }
    }
}

impl Port {
    fn new(id: &ServicePortId, installed: &Installed) -> Self {
        let Installed { index, block, frontends } = installed.clone();
        let state = State { index, start: block.start, length: block.end - block.start, frontends };
        Self { service: id.service.clone(), packed: Packed::new(&(id.clone(), state)) }
    }

    fn is(&self, id: &ServicePortId) -> bool {
        self.service == id.service && self.id() == *id
    }

    fn id(&self) -> ServicePortId {
        ServicePortId { service: self.service.clone(), ..self.packed.first() }
    }

    fn unpack(&self) -> (ServicePortId, Installed) {
        let (id, State { index, start, length, frontends }) = self.packed.get();
        let id = ServicePortId { service: self.service.clone(), ..id };
        (id, Installed { index, block: start..start + length, frontends })
    }
}

#[cfg(test)]
mod tests {
    use proxy_common::{Address, Port as Number, Protocol};

    use super::*;
    use crate::plan::Family;

    fn id(service: &str, port: &str, protocol: Protocol) -> ServicePortId {
        ServicePortId {
            service: ObjectName::new("default", service),
            port: port.into(),
            protocol,
            family: Family::V4,
        }
    }

    fn installed(index: u32) -> Installed {
        let key = FrontendKey::new(Address::from_v4([10, 96, 0, 1]), Number::new(80), 6);
        Installed { index, block: index..index + 2, frontends: Box::new([(key, FrontendKind::ClusterIp)]) }
    }

    #[test]
    fn ports_of_a_service_are_told_apart() {
        let ids = [
            id("web", "http", Protocol::Tcp),
            id("web", "http", Protocol::Udp),
            id("web", "", Protocol::Tcp),
            id("dns", "http", Protocol::Tcp),
        ];
        let mut ports = InstalledPorts::default();
        for (index, id) in (0..).zip(&ids) {
            assert_eq!(ports.get(id), None);
            ports.set(id, &installed(index));
        }
        ports.set(&ids[0], &installed(9));
        assert_eq!(ports.len(), ids.len());
        let mut found: Vec<_> = ports.iter().collect();
        found.sort_by(|(a, _), (b, _)| a.cmp(b));
        let mut expected: Vec<_> = ids.iter().cloned().zip([9, 1, 2, 3].map(installed)).collect();
        expected.sort_by(|(a, _), (b, _)| a.cmp(b));
        assert_eq!(found, expected);
        assert_eq!(ports.remove(&ids[1]), Some(installed(1)));
        assert_eq!((ports.remove(&ids[1]), ports.get(&ids[1])), (None, None));
        assert_eq!(ports.get(&ids[0]), Some(installed(9)));
    }

    /// So many that some of their hashes begin alike.
    #[test]
    fn each_of_many_ports_has_its_own_state() {
        let named = |number: u32| id("web", &format!("p{number}"), Protocol::Tcp);
        let mut ports = InstalledPorts::default();
        (0..1000).for_each(|number| ports.set(&named(number), &installed(number)));
        for number in 0..1000 {
            assert_eq!(ports.get(&named(number)), Some(installed(number)));
        }
        (1..1000).for_each(|number| assert_eq!(ports.remove(&named(number)), Some(installed(number))));
        ports.shrink();
        assert_eq!((ports.get(&named(0)), ports.len()), (Some(installed(0)), 1));
    }

    /// A cluster has a hundred thousand of them.
    #[test]
    fn a_usual_port_takes_few_bytes() {
        assert_eq!(size_of::<Port>(), 24);
        let port = Port::new(&id("web", "http", Protocol::Tcp), &installed(100_000));
        assert_eq!(format!("{:?}", port.packed), "24 bytes", "more is the next size of allocations");
    }
}
