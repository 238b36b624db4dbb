//! Steps 4 and 5 of `install` for ADDRESSES: what is said of an address whatever its port.

use std::collections::HashSet;

use proxy_common::{Address, AddressBits, AddressEntry};

use super::{elements::Elements as _, not_installed::NotInstalled, writer::Writer};

impl Writer {
    /// Enters an address, unless it was found so.
    pub(super) fn set_address(&mut self, address: Address, bits: AddressBits) {
        self.refused.forget_address(&address);
        self.filter.add(&address);
        let known = self.found_addresses.as_ref().and_then(|found| found.get(&address));
        if known == Some(&bits) {
            return;
        }
        let mut entered = self.tables.addresses.enter(address, AddressEntry::new(&address, bits));
        if let Err(error) = &entered
            && let Some((other, its)) = self.enter_instead(address, bits)
        {
            let error = error.to_string();
            self.refused.address(other, its, NotInstalled::Address { address: other, error });
            entered = Ok(());
        }
        match entered {
            Ok(()) if bits.has(AddressBits::NODE) => {
                self.node_addresses.insert(address);
            }
            Ok(()) => {
                self.node_addresses.remove(&address);
            }
            Err(error) => {
                let error = error.to_string();
                self.refused.address(address, bits, NotInstalled::Address { address, error });
            }
        }
    }

    /// Removes an address.
    pub(super) fn remove_address(&mut self, address: &Address) {
        self.refused.forget_address(address);
        self.node_addresses.remove(address);
        self.tables.addresses.withdraw(address);
    }

    /// Removes what an earlier agent left and the whole plan does not have.
    pub(super) fn remove_found_addresses(&mut self, planned: &[(Address, AddressBits)]) {
        let planned: HashSet<Address> = planned.iter().map(|(address, _)| *address).collect();
        // One that made way is noted to be tried again, and is found no more.
        self.refused.keep_addresses(|address| planned.contains(address));
        let found = self.found_addresses.take().unwrap_or_default();
        for address in found.keys().filter(|address| !planned.contains(address)) {
            self.remove_address(address);
        }
    }
}
