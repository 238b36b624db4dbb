//! The tables of connections, as the algorithms use them.
//!
//! Words are read once, and may be of different moments: what is found is believed only if its checks are right, and what
//! is chosen is done only if the words that it was chosen by are still the same under the lock.

use core::cell::Cell;

use super::{
    begin::{self, Considered, Draft},
    buckets::Place,
    find::{self, Way},
    life::Known,
    ports::PortOwners,
    record::{Ends, Origin, Tuple},
};
use crate::address::Port;

/// FLOWS, FLOW_TAGS, FLOW_USES and SOURCE_PORTS.
pub trait Flows {
    /// Regions of FLOWS.
    fn regions(&self) -> u32;
    /// A secret that senders of packets cannot know.
    fn seed(&self) -> u64;

    /// A word of FLOW_TAGS.
    fn tags(&self, bucket: u32) -> u64;
    /// Both words of an element of FLOW_USES.
    fn uses(&self, bucket: u32) -> [u64; 2];
    /// The endpoint's id and its generation that a record names, whole or not.
    fn endpoint_of(&self, place: Place) -> (u32, u16);
    /// The device that a record names.
    fn device_of(&self, place: Place) -> u32;
    /// Copies the first half of a record, whole or not, and says whether it is whole and `tuple` one of its packets on
    /// this way.
    fn read<W: Way>(&self, place: Place, tuple: &Tuple, ends: &mut Ends) -> bool;
    /// Copies the first half of a record, and says whether it is whole.
    fn read_ends(&self, place: Place, ends: &mut Ends) -> bool;
    /// Copies the second half of the record whose first half has this check, and says whether it is that.
    fn read_origin(&self, place: Place, check: u32, origin: &mut Origin) -> bool;

    /// What the second half of the record says whose first half has this check; nothing if it is another one.
    fn known(&self, place: Place, check: u32) -> Option<Known>;

    /// Finds the record of a packet, or of a draft, among all slots that can have it. A kernel program has this verified once,
    /// not with each way to get there.
    fn find_anywhere<W: Way>(&self, tuple: &Tuple, hash: u64, ends: &mut Ends) -> Place
    where
        Self: Sized,
    {
        let ends = Cell::from_mut(ends);
        find::find_anywhere(self, hash, |turn| {
            let mut found = ends.get();
            let place = find::find_in_bucket::<W>(self, tuple, hash, turn, &mut found);
            ends.set(found);
            place
        })
    }

    /// [`begin::consider`], likewise.
    fn consider(&self, draft: &mut Draft, hash: u64, turn: u32) -> Considered
    where
        Self: Sized,
    {
        begin::consider(self, draft, hash, turn)
    }

    /// Records the state seen in packets from the client.
    fn see_client(&self, place: Place, bits: u8);
    /// Records the state seen in packets from the endpoint.
    fn see_endpoint(&self, place: Place, bits: u8);
    /// Notes a reset, and by whom; 0: it was none.
    fn see_reset(&self, place: Place, by: u8);
    /// Notes the sequence number of the endpoint's SYN.
    fn see_answer(&self, place: Place, sequence: u32);
    /// Notes which way the connection takes.
    fn set_route(&self, place: Place, route: u8);
    /// Notes that a packet came by at this second.
    fn touch(&self, place: Place, seconds: u32);
    /// Notes the device that the client's packets come in by.
    fn set_device(&self, place: Place, device: u32);

    /// Under the region's lock, and if all words are as they were seen: reserves a slot.
    fn reserve(&self, reservation: &Reservation) -> bool;
    /// Under the region's lock, and if the record is still the one with this check and nobody writes it: keeps it, or lets others
    /// take its slot.
    fn keep(&self, place: Place, check: u32, kept: bool) -> bool;
    /// Under the region's lock, and if the record is still the one with this check, and nobody writes it: frees its slot. What
    /// is in it stays until somebody takes it: SOURCE_PORTS may lead there, and whoever has just found it reads a whole record.
    fn free(&self, place: Place, check: u32);
    /// Writes the first half of the record in a reserved slot.
    fn write_ends(&self, place: Place, ends: &Ends);
    /// Writes the second half.
    fn write_origin(&self, place: Place, origin: &Origin);
    /// Ends a reservation: others find the record, with flags other than [`Ends::PENDING`], and may take its slot.
    fn publish(&self, place: Place, flags: u8);

    /// An element of SOURCE_PORTS.
    fn owners(&self, port: Port, owners: &mut PortOwners) -> bool;
    /// Under the port's lock, and if the element is as it was seen: makes a record an owner of the port.
    fn own(&self, port: Port, seen: &PortOwners, lane: u32, tag: u8, place: Place) -> bool;

    /// The same word, of which the compiler knows nothing.
    fn opaque(&self, word: u64) -> u64 {
        word
    }

    /// Whether an endpoint still serves; see [`crate::select::is_serving`].
    fn is_serving(&self, endpoint: u32, generation: u16) -> bool;
}

/// A slot that is to be reserved, and what it was chosen by.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(C)]
pub struct Reservation {
    /// The client's home bucket.
    pub home: u32,
    /// The slot.
    pub place: Place,
    /// The home's word of FLOW_TAGS.
    pub home_tags: u64,
    /// The bucket's word of FLOW_TAGS.
    pub tags: u64,
    /// The bucket's second word of FLOW_USES.
    pub kept: u64,
    /// Home of the record that is there, if that is another bucket; else the client's.
    pub old_home: u32,
    /// How many buckets from the home it is.
    pub reach: u8,
    /// What the slot will be tagged with.
    pub tag: u8,
    /// The second, modulo 256.
    pub second: u8,
    /// Zero.
    pub padding: u8,
}
