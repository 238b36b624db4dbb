//! LISTENERS, LISTENING and EVENTS: who listens to what the kernel programs do. A listener takes a place, says what it wants,
//! and gives the programs a buffer; and it says again and again that it is there, so that one that dies is soon forgotten by
//! the programs themselves. The agent is not asked; it only clears away what the dead left.

use std::{path::Path, sync::atomic::Ordering, time::Duration};

use aya::maps::{Map, MapData, MapError, RingBuf, of_maps::HashOfMaps};
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
}

impl Places {
    /// Those of these tables; nothing if they are of a version before there were any.
    fn open(pin_dir: &Path) -> Result<Option<Self>, Error> {
        let dir = abi_dir(pin_dir);
        if !dir.join("EVENTS").exists() {
            return Ok(None);
        }
        Ok(Some(Self {
            listening: mapped(&dir, "LISTENING")?,
            listeners: mapped(&dir, "LISTENERS")?,
            events: pinned(&dir, "EVENTS")?.try_into().map_err(Error::map("EVENTS"))?,
        }))
    }

    /// Until when the listener at this place is there.
    fn until(&self, place: u32) -> u64 {
        self.listeners.word(place, 0).load(Ordering::Acquire)
    }

    /// Makes `until` of a place another, unless it is not what it was.
    fn change(&self, place: u32, was: u64, until: u64) -> bool {
        let word = self.listeners.word(place, 0);
        word.compare_exchange(was, until, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }

    /// Frees a place of the caller's, whose listener is there until `was`, and takes its buffer away.
    fn free(&mut self, place: u32, was: u64) -> Result<(), Error> {
        // While the place is taken: who comes next brings a buffer of its own.
        match self.events.remove(&place) {
            Err(MapError::KeyNotFound) => {}
            removed => removed.map_err(Error::map("EVENTS"))?,
        }
        self.change(place, was, 0);
        if (0..event::LISTENERS).all(|place| self.until(place) == 0) {
            self.listening.word(0, 0).store(0, Ordering::Release);
        }
        Ok(())
    }
}

/// Somebody who listens.
pub struct Listening {
    places: Places,
    place: u32,
    until: u64,
    buffer: RingBuf<MapData>,
}

impl std::fmt::Debug for Listening {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Listening").field("place", &self.place).finish_non_exhaustive()
    }
}

impl Listening {
    /// Listens for what `wishes` says, from `now` on, in nanoseconds since boot (CLOCK_MONOTONIC). [`Listening::go_on`] has to be
    /// called each second.
    ///
    /// # Errors
    /// Without tables, where four listen already, and on kernels without ring buffers (before 5.8).
    pub fn new(pin_dir: &Path, wishes: &Listener, now: u64) -> Result<Self, Error> {
        let mut places = Places::open(pin_dir)?.ok_or_else(|| {
            Error::Missing(format!(
                "no table EVENTS under {}: `sidestep run` has not run here since this version",
                pin_dir.display()
            ))
        })?;
        let until = lease(now);
        let is_free = |place: &u32| {
            let was = places.until(*place);
            was <= now && places.change(*place, was, until)
        };
        let place = (0..event::LISTENERS).find(is_free).ok_or_else(|| {
            Error::Missing(format!(
                "{} others listen already, and there is no room for more",
                event::LISTENERS
            ))
        })?;
        let own = aya_obj::Map::new_from_params(RING_BUFFER, 0, 0, BUFFER, 0);
        let buffer = MapData::create(own, "EVENTS", None).map_err(Error::map("EVENTS"))?;
        places.events.insert(place, &buffer, 0).map_err(Error::map("EVENTS"))?;
        let buffer = Map::from_map_data(buffer).and_then(RingBuf::try_from).map_err(Error::map("EVENTS"))?;
        let mut listening = Self { places, place, until, buffer };
        listening.want(&Listener { heard: 0, dropped: 0, ..*wishes });
        listening.go_on(now)?;
        Ok(listening)
    }

    /// Changes what it listens for. `until` of the wishes is not used.
    pub fn want(&self, wishes: &Listener) {
        let words = bytemuck::cast_slice::<u8, u64>(bytemuck::bytes_of(wishes));
        // All but the first, `until`, and the last two, which the programs count in.
        for (number, word) in words.iter().enumerate().skip(1).take(Mapped::<Listener>::WORDS - 3) {
            self.places.listeners.word(self.place, number).store(*word, Ordering::Release);
        }
    }

    /// Says that it is there, `now`.
    ///
    /// # Errors
    /// If it has not said so for too long, and is not.
    pub fn go_on(&mut self, now: u64) -> Result<(), Error> {
        let until = lease(now);
        if !self.places.change(self.place, self.until, until) {
            return Err(Error::Missing(
                "this process stood still for so long that another one listens in its place".to_owned(),
            ));
        }
        self.until = until;
        self.places.listening.word(0, 0).fetch_max(until, Ordering::AcqRel);
        Ok(())
    }

    /// The next event, if there is one.
    pub fn next_event(&mut self) -> Option<Event> {
        let item = self.buffer.next()?;
        bytemuck::try_pod_read_unaligned(&item).ok()
    }

    /// How many events it wanted so far, and how many of them were dropped, as there was no room in the buffer.
    pub fn heard(&self) -> (u64, u64) {
        let Listener { heard, dropped, .. } =
            self.places.listeners.load(self.place).unwrap_or_else(Listener::zeroed);
        (heard, dropped)
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        if self.places.until(self.place) == self.until {
            // The agent tries again.
            let _ = self.places.free(self.place, self.until);
        }
    }
}

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
