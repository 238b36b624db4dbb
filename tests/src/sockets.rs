//! Sockets that the standard library does not make: MPTCP, disconnecting, options.

use std::{io, os::fd::AsRawFd};

use socket2::{Domain, Protocol, SockAddr, SockAddrStorage, Socket, Type};

/// `IPPROTO_MPTCP`.
const MPTCP: i32 = 262;

/// An MPTCP socket, or an error where the kernel has none.
pub fn mptcp(domain: Domain) -> io::Result<Socket> {
    Socket::new(domain, Type::STREAM, Some(Protocol::from(MPTCP)))
}

/// `connect(AF_UNSPEC)`: takes the peer from a socket.
pub fn disconnect(socket: &impl AsRawFd) -> io::Result<()> {
    // SAFETY: an address of zeros is a valid one of family AF_UNSPEC, and its length is that of the storage.
    let address = unsafe {
        SockAddr::new(
            SockAddrStorage::zeroed(),
            size_of::<libc::sockaddr_in6>().try_into().expect("28 bytes"),
        )
    };
    // SAFETY: the address lives across the call, and the length is its own.
    let result = unsafe { libc::connect(socket.as_raw_fd(), address.as_ptr().cast(), address.len()) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// `setsockopt` with a number.
pub fn set_option(socket: &impl AsRawFd, level: i32, option: i32, value: libc::c_int) -> io::Result<()> {
    // SAFETY: the value lives across the call, and the length is its own.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            option,
            (&raw const value).cast(),
            size_of::<libc::c_int>().try_into().expect("four bytes"),
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
