//! The kernel programs: loading them on the pinned maps, and attaching those of sockets.

pub(super) mod load;
