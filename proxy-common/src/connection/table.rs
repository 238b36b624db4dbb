//! The tables of connections, as the algorithms access them.
//!
//! Words are read once, and may be of different moments. So a record counts only if its checks match, and a change
//! is made only if the words that it depends on are still the same under the lock.

use core::cell::Cell;

use super::{
    begin::{self, Considered, Draft},
    buckets::RecordId,
    find::{self, Way},
    life::Known,
    ports::PortOwners,
    record::{Ends, Origin, Tuple},
};
use crate::{address::Port, event::Happening};

/// Access to FLOWS, FLOW_TAGS, FLOW_USES and SOURCE_PORTS.
pub trait Flows {
    /// Number of regions in FLOWS.
    fn regions(&self) -> u32;
    /// Seed of the hash: a secret that senders of packets cannot know.
    fn seed(&self) -> u64;

    /// A word of FLOW_TAGS.
    fn tags(&self, bucket: u32) -> u64;
    /// Both words of an element of FLOW_USES.
    fn uses(&self, bucket: u32) -> [u64; 2];
    /// Id and generation of a record's endpoint, not verified.
    fn endpoint_of(&self, id: RecordId) -> (u32, u16);
    /// Ingress device of a record's client, not verified.
    fn device_of(&self, id: RecordId) -> u32;
    /// Copies the first half of a record to `ends`. Returns whether its check matches and `tuple` is that of a
    /// packet of kind `W`.
    fn read<W: Way>(&self, id: RecordId, tuple: &Tuple, ends: &mut Ends) -> bool;
    /// Copies the first half of a record to `ends`. Returns whether its check matches.
    fn read_ends(&self, id: RecordId, ends: &mut Ends) -> bool;
    /// Copies the second half of a record to `origin`. Returns whether it belongs to a first half with this check.
    fn read_origin(&self, id: RecordId, check: u32, origin: &mut Origin) -> bool;

    /// Reads the second half of a record; `None` if it does not belong to a first half with this check.
    fn known(&self, id: RecordId, check: u32) -> Option<Known>;

    /// Finds the record of a packet, or of a draft, in all buckets that can hold it. Kernel programs override
    /// this, so that the verifier walks it only once.
    fn find_anywhere<W: Way>(&self, tuple: &Tuple, hash: u64, ends: &mut Ends) -> RecordId
    where
        Self: Sized,
    {
        let ends = Cell::from_mut(ends);
        find::find_anywhere(self, hash, |turn| {
            let mut found = ends.get();
            let id = find::find_in_bucket::<W>(self, tuple, hash, turn, &mut found);
            ends.set(found);
            id
        })
    }

    /// Finds the remapped connection of the client of a draft that has the client's port and the same endpoint.
    /// Overridden for the same reason.
    fn find_remapped(&self, draft: &mut Draft) -> RecordId
    where
        Self: Sized,
    {
        begin::find_remapped(self, draft)
    }

    /// [`begin::consider`], overridden for the same reason.
    fn consider(&self, draft: &mut Draft, hash: u64, turn: u32) -> Considered
    where
        Self: Sized,
    {
        begin::consider(self, draft, hash, turn)
    }

    /// Stores the bits seen in packets from the client.
    fn see_client(&self, id: RecordId, bits: u8);
    /// Stores the bits seen in packets from the endpoint.
    fn see_endpoint(&self, id: RecordId, bits: u8);
    /// Stores the side that reset the connection; 0 revokes a reset.
    fn see_reset(&self, id: RecordId, by: u8);
    /// Stores the sequence number of the endpoint's SYN.
    fn see_answer(&self, id: RecordId, sequence: u32);
    /// Stores the path of the connection through the node.
    fn set_route(&self, id: RecordId, route: u8);
    /// Stores the time of the last packet, in seconds since boot.
    fn touch(&self, id: RecordId, seconds: u32);
    /// Stores the ingress device of the client's packets.
    fn set_device(&self, id: RecordId, device: u32);

    /// Reserves a slot, under the region's lock; `false` if a word that the choice depends on has changed.
    fn reserve(&self, reservation: &Reservation) -> bool;
    /// Protects a record from eviction (`kept`) or permits it, under the region's lock; `false` if its check
    /// differs or its slot is reserved.
    fn keep(&self, id: RecordId, check: u32, kept: bool) -> bool;
    /// Frees the slot of a record, under the region's lock, unless the check differs or the slot is reserved. The
    /// content stays until the slot is reused: SOURCE_PORTS may refer to it, and other processors may be reading
    /// it.
    fn free(&self, id: RecordId, check: u32);
    /// Writes the first half of the record in a reserved slot.
    fn write_ends(&self, id: RecordId, ends: &Ends);
    /// Writes the second half of the record in a reserved slot.
    fn write_origin(&self, id: RecordId, origin: &Origin);
    /// Ends a reservation: stores the flags, without [`Ends::PENDING`], so lookups find the record, and permits
    /// eviction.
    fn publish(&self, id: RecordId, flags: u8);

    /// Reads an element of SOURCE_PORTS; `false` if there is none.
    fn owners(&self, port: Port, owners: &mut PortOwners) -> bool;
    /// Makes a record the owner of a lane, under the port's lock; `false` if the element is no longer as `seen`.
    fn own(&self, port: Port, seen: &PortOwners, lane: u32, tag: u8, id: RecordId) -> bool;

    /// Tells whoever looks on what happened to a connection.
    fn happened(&self, _: RecordId, _: &Ends, _: Happening) {}

    /// Returns the same word, hidden from the optimizer.
    fn opaque(&self, word: u64) -> u64 {
        word
    }

    /// Whether an endpoint still serves; see [`crate::select::is_serving`].
    fn is_serving(&self, endpoint: u32, generation: u16) -> bool;
}

/// A slot to reserve, and the words that the choice depends on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(C)]
pub struct Reservation {
    /// The client's home bucket.
    pub home: u32,
    /// The id of the record in the slot.
    pub record_id: RecordId,
    /// FLOW_TAGS word of the home bucket.
    pub home_tags: u64,
    /// FLOW_TAGS word of the slot's bucket.
    pub tags: u64,
    /// Second FLOW_USES word of the slot's bucket.
    pub kept: u64,
    /// Home bucket of the record to evict, if it is away from home; else `home`.
    pub old_home: u32,
    /// Search step that found the slot; 0 in the home bucket.
    pub reach: u8,
    /// Tag of the client.
    pub tag: u8,
    /// The current second, modulo 256.
    pub second: u8,
    /// Zero.
    pub padding: u8,
}
