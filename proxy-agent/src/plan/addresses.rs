//! The bits of ADDRESSES: what each address is to this node. Counts the reasons for the bits that Services give.

use std::collections::{BTreeMap, HashMap};

use proxy_common::{Address, AddressBits, FrontendKind};

use super::ServicePlan;
use crate::memory::shrink;

/// How many frontends are the reason for each bit of an address.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
struct Reasons {
    cluster_ip: u32,
    vip: u32,
}

impl Reasons {
    fn bits(self) -> AddressBits {
        let Self { cluster_ip, vip } = self;
        [(cluster_ip, AddressBits::CLUSTER_IP), (vip, AddressBits::VIP)]
            .into_iter()
            .filter(|(count, _)| *count > 0)
            .fold(AddressBits::NONE, |bits, (_, bit)| bits.with(bit))
    }

    fn of(&mut self, bit: AddressBits) -> Option<&mut u32> {
        match bit {
            AddressBits::CLUSTER_IP => Some(&mut self.cluster_ip),
            AddressBits::VIP => Some(&mut self.vip),
            _ => None,
        }
    }
}

/// Every address that is something to this node, and those that changed since they were last taken.
#[derive(Default, Debug)]
pub(super) struct Addresses {
    /// The addresses of Services.
    of_services: HashMap<Address, Reasons>,
    /// The bits of the few that are something by themselves: NODE, `SILENT_LOOPBACK`.
    of_node: BTreeMap<Address, AddressBits>,
    /// The bits that were last taken, of addresses that have been touched since.
    before: BTreeMap<Address, AddressBits>,
}

impl Addresses {
    /// Gives back the room of what is gone.
    pub(super) fn shrink(&mut self) {
        shrink(&mut self.of_services);
    }

    /// Sets the bits that an address has by itself.
    pub(super) fn set_own(&mut self, address: Address, bits: AddressBits) {
        self.touch(address);
        if bits.is_none() {
            self.of_node.remove(&address);
        } else {
            self.of_node.insert(address, bits);
        }
    }

    /// Adds a reason.
    fn add(&mut self, address: Address, bit: AddressBits) {
        self.touch(address);
        if let Some(count) = self.of_services.entry(address).or_default().of(bit) {
            *count += 1;
        }
    }

    /// Takes a reason back.
    fn subtract(&mut self, address: Address, bit: AddressBits) {
        self.touch(address);
        let Some(reasons) = self.of_services.get_mut(&address) else { return };
        if let Some(count) = reasons.of(bit) {
            *count = count.saturating_sub(1);
        }
        if *reasons == Reasons::default() {
            self.of_services.remove(&address);
        }
    }

    /// Adds the reasons of a plan.
    pub(super) fn add_plan(&mut self, plan: &ServicePlan) {
        of_plan(plan).for_each(|(address, bit)| self.add(address, bit));
    }

    /// Takes the reasons of a plan back.
    pub(super) fn subtract_plan(&mut self, plan: &ServicePlan) {
        of_plan(plan).for_each(|(address, bit)| self.subtract(address, bit));
    }

    /// The addresses whose bits differ from when they were last taken, in order.
    pub(super) fn take_changes(&mut self) -> Vec<(Address, AddressBits)> {
        let before = std::mem::take(&mut self.before);
        let changed = |(address, bits)| {
            let now = self.bits(&address);
            (now != bits).then_some((address, now))
        };
        before.into_iter().filter_map(changed).collect()
    }

    /// Every address, in order.
    pub(super) fn all(&self) -> Vec<(Address, AddressBits)> {
        let addresses = self.of_services.keys().chain(self.of_node.keys());
        let mut all: Vec<_> = addresses.map(|address| (*address, self.bits(address))).collect();
        all.sort_unstable_by_key(|(address, _)| *address);
        all.dedup();
        all
    }

    fn bits(&self, address: &Address) -> AddressBits {
        let of_services = self.of_services.get(address).map_or(AddressBits::NONE, |reasons| reasons.bits());
        self.of_node.get(address).map_or(of_services, |own| of_services.with(*own))
    }

    fn touch(&mut self, address: Address) {
        let bits = self.bits(&address);
        self.before.entry(address).or_insert(bits);
    }
}

/// The bits that the frontends of a plan give to addresses.
fn of_plan(plan: &ServicePlan) -> impl Iterator<Item = (Address, AddressBits)> {
    plan.frontends.iter().filter_map(|(key, kind)| match kind {
        FrontendKind::ClusterIp => Some((key.address, AddressBits::CLUSTER_IP)),
        FrontendKind::LoadBalancer | FrontendKind::ExternalIp => Some((key.address, AddressBits::VIP)),
        FrontendKind::NodePort => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: Address = Address::from_v4([10, 0, 0, 1]);

    #[test]
    fn bits_last_as_long_as_a_reason_does() {
        let mut addresses = Addresses::default();
        addresses.add(A, AddressBits::VIP);
        addresses.add(A, AddressBits::VIP);
        addresses.set_own(A, AddressBits::NODE);
        let both = AddressBits::VIP.with(AddressBits::NODE);
        assert_eq!(addresses.all(), [(A, both)]);
        assert_eq!(addresses.take_changes(), [(A, both)]);
        addresses.subtract(A, AddressBits::VIP);
        assert_eq!(addresses.take_changes(), []);
        addresses.subtract(A, AddressBits::VIP);
        assert_eq!(addresses.take_changes(), [(A, AddressBits::NODE)]);
        addresses.set_own(A, AddressBits::NONE);
        assert_eq!(addresses.take_changes(), [(A, AddressBits::NONE)]);
        assert!(addresses.of_services.is_empty() && addresses.of_node.is_empty());
    }

    #[test]
    fn a_change_and_its_reversal_are_nothing() {
        let mut addresses = Addresses::default();
        addresses.add(A, AddressBits::CLUSTER_IP);
        addresses.subtract(A, AddressBits::CLUSTER_IP);
        assert_eq!(addresses.take_changes(), []);
    }
}
