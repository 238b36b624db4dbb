//! What devices do instead of the stack, switched off and on as `ethtool -K` does it.

use std::{io, os::fd::AsRawFd};

use socket2::{Domain, Socket, Type};

/// Something that a device may do; the numbers are those of `linux/ethtool.h`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
pub enum Offload {
    /// Checks checksums (`rx`).
    ReceiveChecksum = 0x15,
    /// Computes checksums (`tx`).
    TransmitChecksum = 0x17,
    /// Cuts TCP's large segments (`tso`).
    TcpSegmentation = 0x1f,
    /// The stack cuts large packets late (`gso`).
    GenericSegmentation = 0x24,
    /// The stack joins packets that come (`gro`).
    GenericReceive = 0x2c,
}

/// `struct ethtool_value`.
#[repr(C)]
struct Value {
    command: u32,
    data: u32,
}

/// Switches an offload of a device in the namespace of the calling thread.
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
