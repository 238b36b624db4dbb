//! LISTENERS, LISTENING and EVENTS: who listens to what the kernel programs do. A listener takes a place, says what it wants,
//! and gives the programs a buffer; and it says again and again that it is there, so that one that dies is soon forgotten by
//! the programs themselves. The agent is not asked; it only clears away what the dead left.

use std::{io, path::Path, sync::atomic::Ordering, time::Duration};

use aya::{
    maps::{Map, MapData, MapError, MapInfo, RingBuf, of_maps::HashOfMaps},
    sys::SyscallError,
};
use bytemuck::Zeroable as _;
use proxy_common::{Event, Listener, event};

use super::{
    mapped::Mapped,
    maps::{abi_dir, mapped, pinned},
};
use crate::dataplane::Error;

/// For how long a listener that says nothing is taken to be there.
const LEASE: Duration = Duration::from_secs(3);
/// Bytes of a listener's buffer: of some forty thousand events.
const BUFFER: u32 = 1 << 22;
/// `BPF_MAP_TYPE_RINGBUF`.
const RING_BUFFER: u32 = aya_obj::generated::bpf_map_type::BPF_MAP_TYPE_RINGBUF as u32;

/// The places of listeners.
struct Places {
    listening: Mapped<u64>,
    listeners: Mapped<Listener>,
    events: HashOfMaps<MapData, u32, MapData>,
    /// The kernel's number of the table LISTENING.
    id: u32,
}

impl Places {
    /// Those of these tables; nothing if they are of a version before there were any.
    fn open(pin_dir: &Path) -> Result<Option<Self>, Error> {
        let dir = abi_dir(pin_dir);
        if !dir.join("EVENTS").exists() {
            return Ok(None);
        }
        let id = id_of(pin_dir)?;
        Ok(Some(Self {
            listening: mapped(&dir, "LISTENING")?,
            listeners: mapped(&dir, "LISTENERS")?,
            events: pinned(&dir, "EVENTS")?.try_into().map_err(Error::map("EVENTS"))?,
            id,
        }))
    }

    /// Until when the listener at this place is there.
    fn until(&self, place: u32) -> u64 {
        self.listeners.word(place, 0).load(Ordering::Acquire)
    }

    /// Makes `until` of a place another, unless it is not what it was: whoever succeeds has the place.
    fn change(&self, place: u32, was: u64, until: u64) -> bool {
        let word = self.listeners.word(place, 0);
        word.compare_exchange(was, until, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }

    /// Takes the buffer of a place away. Only whoever has the place may.
    fn remove_buffer(&mut self, place: u32) -> Result<(), Error> {
        match self.events.remove(&place) {
            Err(MapError::SyscallError(SyscallError { io_error, .. }))
                if io_error.kind() == io::ErrorKind::NotFound =>
            {
                Ok(())
            }
            removed => removed.map_err(Error::map("EVENTS")),
        }
    }

    /// Gives back a place that the caller has until `was`.
    fn free(&mut self, place: u32, was: u64) -> Result<(), Error> {
        let removed = self.remove_buffer(place);
        let listening = self.listening.word(0, 0);
        let before = listening.load(Ordering::Acquire);
        self.change(place, was, 0);
        if (0..event::LISTENERS).all(|place| self.until(place) == 0) {
            // Unless somebody has begun meanwhile.
            let _ = listening.compare_exchange(before, 0, Ordering::AcqRel, Ordering::Acquire);
        }
        removed
    }
}

/// The kernel's number of the table that the programs look at.
fn id_of(pin_dir: &Path) -> Result<u32, Error> {
    let pin = abi_dir(pin_dir).join("LISTENING");
    Ok(MapInfo::from_pin(pin).map_err(Error::map("LISTENING"))?.id())
}

/// A place, as long as it is renewed.
struct Place {
    places: Places,
    number: u32,
    until: u64,
}

impl Place {
    fn take(places: Places, now: u64) -> Option<Self> {
        let until = lease(now);
        let is_free = |number: &u32| {
            let was = places.until(*number);
            was <= now && places.change(*number, was, until)
        };
        let number = (0..event::LISTENERS).find(is_free)?;
        Some(Self { places, number, until })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let Self { places, number, until } = self;
        // It may be somebody else's by now; and nobody is to take it while its buffer goes.
        let taken = lease(*until);
        if places.change(*number, *until, taken) {
            // The agent tries again.
            let _ = places.free(*number, taken);
        }
    }
}

/// Somebody who listens.
pub struct Listening {
    place: Place,
    buffer: RingBuf<MapData>,
}

impl std::fmt::Debug for Listening {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Listening").field("place", &self.place.number).finish_non_exhaustive()
    }
}

impl Listening {
    /// Listens for what `wishes` says, from `now` on, in nanoseconds since boot (CLOCK_MONOTONIC). [`Listening::go_on`] has to be
    /// called each second.
    ///
    /// # Errors
    /// Without tables, where four listen already, and on kernels without ring buffers (before 5.8).
    pub fn new(pin_dir: &Path, wishes: &Listener, now: u64) -> Result<Self, Error> {
        let places = Places::open(pin_dir)?.ok_or_else(|| {
            Error::Missing(format!(
                "no table EVENTS under {}: `sidestep run` has not run here since this version",
                pin_dir.display()
            ))
        })?;
        let mut place = Place::take(places, now).ok_or_else(|| {
            Error::Missing(format!(
                "{} others listen already, and there is no room for more",
                event::LISTENERS
            ))
        })?;
        // What somebody wanted here before is not to come into the new buffer.
        place.places.remove_buffer(place.number)?;
        want(&place, wishes);
        for word in [HEARD, DROPPED] {
            place.places.listeners.word(place.number, word).store(0, Ordering::Release);
        }
        let own = aya_obj::Map::new_from_params(RING_BUFFER, 0, 0, BUFFER, 0);
        let buffer = MapData::create(own, "EVENTS", None).map_err(Error::map("EVENTS"))?;
        place.places.events.insert(place.number, &buffer, 0).map_err(Error::map("EVENTS"))?;
        let buffer = Map::from_map_data(buffer).and_then(RingBuf::try_from).map_err(Error::map("EVENTS"))?;
        let mut listening = Self { place, buffer };
        listening.go_on(now);
        Ok(listening)
    }

    /// Changes what it listens for. `until` of the wishes is not used.
    pub fn want(&self, wishes: &Listener) {
        want(&self.place, wishes);
    }

    /// Says that it is there, `now`. Returns whether it was all the time: one that stood still for too long has missed something, or
    /// lost its place.
    pub fn go_on(&mut self, now: u64) -> bool {
        let Place { places, number, until } = &mut self.place;
        let next = lease(now);
        if now > *until || !places.change(*number, *until, next) {
            return false;
        }
        *until = next;
        places.listening.word(0, 0).fetch_max(next, Ordering::AcqRel);
        true
    }

    /// Whether the programs still look at these tables: others may have been made in their place.
    pub fn is_current(&self, pin_dir: &Path) -> bool {
        id_of(pin_dir).is_ok_and(|id| id == self.place.places.id)
    }

    /// The next event, if there is one.
    ///
    /// # Errors
    /// If the programs are of another version, with other events.
    pub fn next_event(&mut self) -> Result<Option<Event>, Error> {
        let Some(item) = self.buffer.next() else { return Ok(None) };
        bytemuck::try_pod_read_unaligned(&item).map(Some).map_err(|_| {
            let (found, expected) = (item.len(), size_of::<Event>());
            Error::Missing(format!(
                "the kernel programs tell events of {found} bytes, not of {expected}: another version's agent runs here; use its                  `sidestep`"
            ))
        })
    }

    /// How many events it wanted so far, and how many of them were dropped, as there was no room in the buffer.
    pub fn heard(&self) -> (u64, u64) {
        let Place { places, number, .. } = &self.place;
        let Listener { heard, dropped, .. } = places.listeners.load(*number).unwrap_or_else(Listener::zeroed);
        (heard, dropped)
    }
}

/// The words of [`Listener::heard`] and [`Listener::dropped`], in which the programs count.
const HEARD: usize = std::mem::offset_of!(Listener, heard) / 8;
const DROPPED: usize = std::mem::offset_of!(Listener, dropped) / 8;

fn want(place: &Place, wishes: &Listener) {
    let words = bytemuck::cast_slice::<u8, u64>(bytemuck::bytes_of(wishes));
    // All but the first, `until`, and those in which the programs count.
    for (number, word) in words.iter().enumerate().take(HEARD).skip(1) {
        place.places.listeners.word(place.number, number).store(*word, Ordering::Release);
    }
}

const _: () = assert!(DROPPED == HEARD + 1 && (DROPPED + 1) * 8 == size_of::<Listener>());

/// Clears away what listeners left that ended without a word.
pub(crate) fn clear_away(pin_dir: &Path, now: u64) -> Result<(), Error> {
    let Some(mut places) = Places::open(pin_dir)? else { return Ok(()) };
    for place in 0..event::LISTENERS {
        let until = places.until(place);
        let taken = lease(now);
        if until != 0 && until < now && places.change(place, until, taken) {
            places.free(place, taken)?;
        }
    }
    Ok(())
}

fn lease(from: u64) -> u64 {
    from.saturating_add(u64::try_from(LEASE.as_nanos()).unwrap_or(u64::MAX))
}
