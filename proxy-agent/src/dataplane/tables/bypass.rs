//! Lets the agent's own sockets bypass the Services in the maps: the connection that keeps the maps right must not
//! depend on what they say about the API server's address.
//!
//! A record in SOCKETS marks a socket; writing it takes both the socket's descriptor and the map. The connect
//! programs check it before they translate or refuse. It disappears with the socket.

use std::{
    fmt,
    os::fd::AsRawFd,
    path::Path,
    sync::{Mutex, PoisonError},
};

use aya::maps::{MapData, SkStorage};
use proxy_common::Translation;

use super::pinned::Tables;
use crate::dataplane::Error;

/// Marks sockets to be left alone.
pub struct Bypass {
    /// One at a time: aya wants the map for itself where it writes.
    sockets: Mutex<SkStorage<MapData, Translation>>,
}

impl fmt::Debug for Bypass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bypass").finish_non_exhaustive()
    }
}

impl Bypass {
    /// For the programs that use the tables below `pin_dir`, now or later.
    pub fn open(pin_dir: &Path) -> Result<Self, Error> {
        Ok(Self { sockets: Mutex::new(Tables::sockets(pin_dir)?) })
    }

    /// Marks a TCP socket that is not connected yet.
    pub fn mark(&self, socket: &impl AsRawFd) -> Result<(), Error> {
        let mut sockets = self.sockets.lock().unwrap_or_else(PoisonError::into_inner);
        sockets.insert(socket, Translation::BYPASS, 0).map_err(Error::map("SOCKETS"))
    }
}
