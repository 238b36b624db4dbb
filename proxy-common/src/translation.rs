//! A socket's translations: SOCKETS for the connected peer, DATAGRAMS for its other peers, and OVERFLOW for what does
//! not fit into these.

use bytemuck::{Pod, Zeroable};

use crate::{
    address::{Address, Port},
    endpoint::Endpoint,
    frontend::FrontendKey,
};

/// One translation made for a socket; the value of SOCKETS (the connected peer), and a part of those of DATAGRAMS and
/// OVERFLOW.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct Translation {
    /// The address that the process connected or sent to.
    pub frontend: Address,
    /// The address that it got.
    pub endpoint_address: Address,
    /// The port that the process connected or sent to; 0 in an unused record.
    pub frontend_port: Port,
    /// The port that it got.
    pub endpoint_port: Port,
    /// The endpoint's id; 0 if the Service had no endpoint, and the socket is connected to the frontend itself.
    pub endpoint: u32,
    /// Index into SERVICES.
    pub service: u32,
    /// The generation of the endpoint's id.
    pub generation: u16,
    /// In OVERFLOW, whose elements may be reused while they are read, [`Translation::checksum`]. In SOCKETS and
    /// DATAGRAMS when the socket used the record last, on [the socket's clock](Datagrams::tick);
    /// [`Translation::CONNECTED`] and [`Translation::RENAMED`].
    pub mark: u16,
}

impl Translation {
    /// A record that holds nothing.
    pub const UNUSED: Self = Self {
        frontend: Address::ANY_V6,
        endpoint_address: Address::ANY_V6,
        frontend_port: Port::NONE,
        endpoint_port: Port::NONE,
        endpoint: 0,
        service: 0,
        generation: 0,
        mark: 0,
    };

    /// The bit of a mark that says: the socket was connected by this record, or is.
    pub const CONNECTED: u16 = 1 << 15;

    /// The bit of a mark that says: what comes from the endpoint goes by another name. The socket has asked it by its own
    /// address since, or is connected to it. netfilter tells such answers apart by another source port, which a socket
    /// cannot have.
    pub const RENAMED: u16 = 1 << 14;

    /// The bits of a mark that say when the record was used last.
    pub const TIME: u16 = Self::RENAMED - 1;

    /// The record of a socket whose TCP connections are left alone: neither translated nor refused. The agent
    /// writes it for its own connections to the API server, before it connects.
    pub const BYPASS: Self = Self { service: u32::MAX, ..Self::UNUSED };

    /// The record of a client that asked for `frontend` and got `endpoint`.
    #[inline(always)]
    pub const fn new(frontend: &FrontendKey, endpoint: &Endpoint) -> Self {
        Self {
            frontend: frontend.address,
            endpoint_address: endpoint.address,
            frontend_port: frontend.port,
            endpoint_port: endpoint.port,
            endpoint: endpoint.id,
            service: endpoint.service,
            generation: endpoint.generation,
            mark: 0,
        }
    }

    /// The record of a UDP socket that is connected to `frontend` while its Service has no endpoint: the agent connects
    /// it again when one comes.
    #[inline(always)]
    pub const fn unserved(frontend: &FrontendKey) -> Self {
        Self {
            frontend: frontend.address,
            endpoint_address: frontend.address,
            frontend_port: frontend.port,
            endpoint_port: frontend.port,
            ..Self::UNUSED
        }
    }

    /// The record of a UDP socket that is connected to an address that is no Service's, and was connected to a Service
    /// before.
    #[inline(always)]
    pub const fn direct(destination: &FrontendKey) -> Self {
        Self { service: u32::MAX, ..Self::unserved(destination) }
    }

    /// Whether the record is [of a direct peer](Self::direct).
    #[inline(always)]
    pub const fn is_direct(&self) -> bool {
        self.is_used() && self.service == u32::MAX
    }

    /// Whether the record holds a translation or an unserved frontend.
    #[inline(always)]
    pub const fn is_used(&self) -> bool {
        self.frontend_port.number != 0
    }

    /// Whether the record is [unserved](Self::unserved).
    #[inline(always)]
    pub const fn is_unserved(&self) -> bool {
        self.is_used() && self.endpoint == 0 && self.service != u32::MAX
    }

    /// Whether this record leads from `destination` to an endpoint.
    #[inline(always)]
    pub fn is_served(&self, destination: &FrontendKey) -> bool {
        self.endpoint != 0 && self.is_from(&destination.address, destination.port)
    }

    /// Whether this record leads from `address` and `port`.
    #[inline(always)]
    pub fn is_from(&self, address: &Address, port: Port) -> bool {
        self.frontend_port == port && port.number != 0 && self.frontend.words() == address.words()
    }

    /// Whether this record leads to `address` and `port`.
    #[inline(always)]
    pub fn is_to(&self, address: &Address, port: Port) -> bool {
        self.frontend_port.number != 0
            && self.endpoint_port == port
            && self.endpoint_address.words() == address.words()
    }

    /// The socket used the record at this time of [its clock](Datagrams::tick).
    #[inline(always)]
    pub const fn set_time(&mut self, now: u16) {
        self.mark = self.mark & !Self::TIME | now;
    }

    /// Whether both records lead from one address to another one.
    #[inline(always)]
    pub fn is_same(&self, other: &Self) -> bool {
        self.is_to(&other.endpoint_address, other.endpoint_port)
            && self.is_from(&other.frontend, other.frontend_port)
    }

    /// Whether an answer from `address` and `port` is named as the frontend's.
    #[inline(always)]
    pub fn names(&self, address: &Address, port: Port) -> bool {
        !self.is_renamed() && self.is_to(address, port)
    }

    /// Whether what comes from the endpoint [goes by another name](Self::RENAMED).
    #[inline(always)]
    pub const fn is_renamed(&self) -> bool {
        self.mark & Self::RENAMED != 0
    }

    /// Whether the socket was connected by this record, and may still be.
    #[inline(always)]
    pub const fn may_be_peers(&self) -> bool {
        self.mark & (Self::CONNECTED | Self::RENAMED) == Self::CONNECTED
    }

    /// Whether the socket was connected to `address` and `port` by this record, and may still be.
    #[inline(always)]
    pub fn connected(&self, address: &Address, port: Port) -> bool {
        self.may_be_peers() && self.is_to(address, port)
    }

    /// Whether this is [`Translation::BYPASS`]. Forgetting a peer keeps it so.
    #[inline(always)]
    pub const fn is_bypass(&self) -> bool {
        self.service == u32::MAX && self.frontend_port.number == 0
    }

    /// Sixteen bits that depend on every other bit of the record but its mark.
    #[inline(always)]
    pub const fn checksum(&self) -> u16 {
        let ports = (self.frontend_port.number as u64) << 16 | self.endpoint_port.number as u64;
        let ids = (self.service as u64) << 32 | self.endpoint as u64;
        let rest = (self.endpoint_address.fingerprint_with(ids) as u64) << 32 | ports;
        (self.frontend.fingerprint_with(rest ^ (self.generation as u64) << 48) >> 16) as u16
    }
}

/// Value of DATAGRAMS: the latest translations of a socket for peers that it is not connected to. It sends to them by
/// name, or was connected to them before.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct Datagrams {
    /// The translations. A Service address that got another endpoint has two: answers of the old one may be waiting.
    pub entries: [Translation; Datagrams::LEN],
    /// 1 once an entry was moved to OVERFLOW.
    pub evicted: u32,
    /// The socket's clock, which counts its uses of a record.
    pub clock: u32,
}

/// An entry of [`Datagrams`], by its number, and for how many uses of others it has not been used.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Aged {
    /// The entry's number.
    pub entry: u32,
    /// The entry's [age](Datagrams::age).
    pub age: u32,
}

impl Datagrams {
    /// How many Service addresses a socket remembers by itself. A resolver talks to one or two.
    pub const LEN: usize = 4;
    /// No translation yet.
    pub const EMPTY: Self = Self { entries: [Translation::UNUSED; Self::LEN], evicted: 0, clock: 0 };

    /// What the clock shows when it begins, at first and anew.
    pub const BEGINNING: u16 = 1;

    /// The mark of a record that is used now. When the clock begins anew, all entries are as old as can be; make the
    /// connected peer's record so, too.
    #[inline(always)]
    #[expect(clippy::cast_possible_truncation, reason = "the clock has fourteen bits")]
    pub fn tick(&mut self) -> u16 {
        self.clock += 1;
        if self.clock > u32::from(Translation::TIME) {
            self.clock = u32::from(Self::BEGINNING);
            for entry in &mut self.entries {
                entry.set_time(0);
            }
        }
        self.clock as u16
    }

    /// For how many uses of others a record has not been used.
    #[inline(always)]
    pub const fn age(&self, record: &Translation) -> u32 {
        self.clock.wrapping_sub(record.mark as u32) & Translation::TIME as u32
    }

    /// The youngest entry of those that are `wanted`.
    #[inline(always)]
    #[expect(clippy::cast_possible_truncation, reason = "there are four")]
    pub fn youngest(&self, wanted: impl Fn(&Translation) -> bool) -> Option<Aged> {
        let mut found = Aged { entry: 0, age: u32::MAX };
        for (number, entry) in self.entries.iter().enumerate() {
            let age = self.age(entry);
            if age < found.age && wanted(entry) {
                found = Aged { entry: number as u32, age };
            }
        }
        (found.age != u32::MAX).then_some(found)
    }

    /// The entry with this number, modulo [`Datagrams::LEN`].
    #[inline(always)]
    #[must_use]
    pub fn entry(&self, number: u32) -> &Translation {
        &self.entries[number as usize & (Self::LEN - 1)]
    }

    /// The same, to be changed.
    #[inline(always)]
    pub fn entry_mut(&mut self, number: u32) -> &mut Translation {
        &mut self.entries[number as usize & (Self::LEN - 1)]
    }
}

const _: () = assert!(Datagrams::LEN.is_power_of_two());

/// A key of OVERFLOW. A translation of datagrams stands there twice, by the address asked for and by the one given.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Pod, Zeroable)]
#[repr(C, align(8))]
pub struct OverflowKey {
    /// With a local port the cookie of the network namespace, so that all sockets of one port (SO_REUSEPORT) find the
    /// translation; else the socket's cookie.
    pub owner: u64,
    /// The address.
    pub address: Address,
    /// The port.
    pub port: Port,
    /// The socket's own port; 0 for a connected peer, which is recorded before the socket may have a port.
    pub local_port: Port,
    /// [`OverflowKey::BY_FRONTEND`] or [`OverflowKey::BY_ENDPOINT`].
    pub direction: u32,
}

impl OverflowKey {
    /// The key is the destination that the process named.
    pub const BY_FRONTEND: u32 = 0;
    /// The key is what the program got.
    pub const BY_ENDPOINT: u32 = 1;
}

/// A key of ASKERS: a socket, and a peer that sent to it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct Asker {
    /// The socket's cookie.
    pub socket: u64,
    /// The peer's address.
    pub address: Address,
    /// The peer's port.
    pub port: Port,
    /// Zero.
    pub padding: [u16; 3],
}

/// A value of OVERFLOW.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct Overflowed {
    /// The translation, with its checksum.
    pub translation: Translation,
    /// When it was written, in seconds since boot.
    pub seconds: u64,
}

/// Elements of OVERFLOW; also the most it holds, two for each translation of datagrams.
pub const OVERFLOW: usize = 1 << 15;

/// For how many seconds a translation stays in OVERFLOW: as long as netfilter keeps a stream of datagrams.
pub const OVERFLOW_SECONDS: u64 = 180;

/// A value of SHARED_PORTS: for 64 ports in a row whether OVERFLOW may have translations that sockets of this port look
/// for. Port 0 stands for the sockets that are found by their own cookie.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Pod, Zeroable)]
#[repr(C, align(64))]
pub struct SharedPorts {
    /// Not 0 for a port that may have some. Bytes, since a store of one needs no lock.
    pub ports: [u8; 64],
}

/// How many elements SHARED_PORTS has.
pub const SHARED_PORTS: usize = 1 << 10;

const _: () = assert!(size_of::<Translation>() == 48);
const _: () = assert!(size_of::<Datagrams>() == 200);
const _: () = assert!(size_of::<OverflowKey>() == 32);
const _: () = assert!(size_of::<Asker>() == 32);
const _: () = assert!(size_of::<Overflowed>() == 56);
const _: () = assert!(size_of::<SharedPorts>() == 64);

#[cfg(test)]
mod tests {
    use super::*;

    const fn used(number: u8, mark: u16) -> Translation {
        Translation {
            frontend: Address::from_v4([10, 96, 0, number]),
            endpoint_address: Address::from_v4([10, 244, 0, 1]),
            frontend_port: Port::new(53),
            endpoint_port: Port::new(5300),
            mark,
            ..Translation::UNUSED
        }
    }

    #[test]
    fn the_youngest_record_is_the_one_that_was_used_last() {
        let mut datagrams = Datagrams::EMPTY;
        assert_eq!(datagrams.youngest(Translation::is_used), None);
        for (number, entry) in [(1, 2), (2, 0), (3, 1)] {
            let now = datagrams.tick();
            *datagrams.entry_mut(entry) = used(number, now | Translation::CONNECTED);
        }
        assert_eq!(datagrams.youngest(Translation::is_used), Some(Aged { entry: 1, age: 0 }));
        let not_the_last =
            |entry: &Translation| entry.is_used() && entry.frontend.words() != used(3, 0).frontend.words();
        assert_eq!(datagrams.youngest(not_the_last), Some(Aged { entry: 0, age: 1 }));
        let now = datagrams.tick();
        datagrams.entry_mut(2).set_time(now);
        assert_eq!(datagrams.youngest(Translation::is_used), Some(Aged { entry: 2, age: 0 }));
        assert_ne!(datagrams.entry(2).mark & Translation::CONNECTED, 0);
    }

    #[test]
    fn however_often_others_are_used_a_record_does_not_become_young_again() {
        let mut datagrams = Datagrams::EMPTY;
        let now = datagrams.tick();
        *datagrams.entry_mut(0) = used(1, now);
        for _ in 0..100_000 {
            let now = datagrams.tick();
            *datagrams.entry_mut(1) = used(2, now);
            assert_eq!(datagrams.youngest(Translation::is_used).map(|last| last.entry), Some(1));
        }
    }

    #[test]
    fn a_renamed_record_names_no_answer_and_no_peer_and_leads_there_all_the_same() {
        let record = used(1, Translation::RENAMED | Translation::CONNECTED);
        let (address, port) = (record.endpoint_address, record.endpoint_port);
        assert!(record.is_to(&address, port) && record.is_from(&record.frontend, record.frontend_port));
        assert!(!record.names(&address, port) && !record.connected(&address, port));
        assert!(used(1, Translation::CONNECTED).connected(&address, port));
    }
}
