//! Switches offloads of devices, like `ethtool -K`.

use std::{io, os::fd::AsRawFd};

use socket2::{Domain, Socket, Type};

/// An offload; the numbers are those of `linux/ethtool.h`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
pub enum Offload {
    /// The device verifies checksums (`rx`).
    ReceiveChecksum = 0x15,
    /// The device computes checksums (`tx`).
    TransmitChecksum = 0x17,
    /// The device splits large TCP segments (`tso`).
    TcpSegmentation = 0x1f,
    /// The stack segments large packets late (`gso`).
    GenericSegmentation = 0x24,
    /// The stack coalesces incoming packets (`gro`).
    GenericReceive = 0x2c,
}

/// `struct ethtool_value`.
#[repr(C)]
struct Value {
    command: u32,
    data: u32,
}

/// Switches an offload of a device in the calling thread's namespace.
pub fn switch(device: &str, offload: Offload, on: bool) -> io::Result<()> {
    const SIOCETHTOOL: libc::c_ulong = 0x8946;
    let mut value = Value { command: offload as u32, data: on.into() };
    // SAFETY: `ifreq` is plain numbers and pointers, and all zeros are a value of it.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    let name = &mut request.ifr_name[..libc::IFNAMSIZ - 1];
    for (place, byte) in name.iter_mut().zip(device.bytes()) {
        *place = byte.cast_signed();
    }
    request.ifr_ifru.ifru_data = (&raw mut value).cast();
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, None)?;
    // SAFETY: the request and the value that it points to live across the call.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), SIOCETHTOOL, &raw mut request) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
