//! OVERFLOW: removes what nobody has used for as long as netfilter keeps a stream of datagrams; when there is little room
//! left, for as long as it keeps a datagram that nobody answered.

use std::path::Path;

use aya::maps::{HashMap, MapData};
use proxy_common::{
    OverflowKey, Overflowed,
    translation::{OVERFLOW, OVERFLOW_SECONDS},
};

use crate::dataplane::{Error, Tables, node::system::uptime};

/// How long an entry stays when less than an eighth of the table is free, in seconds.
const PRESSED_SECONDS: u64 = 30;

/// The table.
#[derive(Debug)]
pub(super) struct Overflow(HashMap<MapData, OverflowKey, Overflowed>);

impl Overflow {
    pub(super) fn open(pin_dir: &Path) -> Result<Self, Error> {
        Ok(Self(Tables::overflow(pin_dir)?))
    }

    pub(super) fn sweep(&mut self) -> Result<(), Error> {
        let now = u64::from(uptime());
        let mut entries = Vec::new();
        for entry in &self.0 {
            let (key, value) = entry.map_err(Error::map("OVERFLOW"))?;
            entries.push((key, value.seconds));
        }
        let is_pressed = entries.len() > OVERFLOW / 8 * 7;
        let lifetime = if is_pressed { PRESSED_SECONDS } else { OVERFLOW_SECONDS };
        for (key, _) in entries.iter().filter(|(_, seconds)| now.saturating_sub(*seconds) > lifetime) {
            // One that is used at this moment is written again by its next datagram.
            let _ = self.0.remove(key);
        }
        Ok(())
    }
}
