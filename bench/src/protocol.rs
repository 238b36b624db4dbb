//! The protocol between the server and its clients: the port, and the meaning of bytes.

/// The endpoints' port.
pub(crate) const SERVER_PORT: u16 = 8080;
/// A connection that begins with this byte stays, and is given a thread of its own.
pub(crate) const STAYS: u8 = b'+';
/// This byte is answered with the four bytes of the address that it came from.
pub(crate) const WHO: u8 = b'@';
