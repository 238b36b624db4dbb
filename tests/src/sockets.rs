//! Socket calls that the standard library lacks: MPTCP and packet sockets, disconnecting, options; and what the kernel says
//! of sockets.

use std::{fs, io, net::SocketAddr, os::fd::AsRawFd};

use socket2::{Domain, Protocol, SockAddr, SockAddrStorage, Socket, Type};

/// `IPPROTO_MPTCP`.
const MPTCP: i32 = 262;

/// An MPTCP socket, or an error if the kernel lacks MPTCP.
pub fn mptcp(domain: Domain) -> io::Result<Socket> {
    Socket::new(domain, Type::STREAM, Some(Protocol::from(MPTCP)))
}

/// A packet socket of one device for this protocol (`ETH_P_ALL`: every packet, including outgoing ones).
pub fn packets(device: &str, protocol: i32) -> io::Result<Socket> {
    // Without a protocol it receives nothing until it is bound to the device.
    let socket = Socket::new(Domain::PACKET, Type::RAW, None)?;
    let address = link_address(device, protocol)?;
    socket.bind(&address)?;
    Ok(socket)
}

/// The address of a device for a packet socket.
fn link_address(device: &str, protocol: i32) -> io::Result<SockAddr> {
    let index = nix::net::if_::if_nametoindex(device)?;
    let protocol = u16::try_from(protocol).map_err(io::Error::other)?;
    let mut storage = SockAddrStorage::zeroed();
    // SAFETY: `sockaddr_ll` is plain numbers, all zeros are a value of it, and the storage has room for it.
    let address = unsafe { storage.view_as::<libc::sockaddr_ll>() };
    address.sll_family = libc::AF_PACKET.try_into().map_err(io::Error::other)?;
    address.sll_protocol = protocol.to_be();
    address.sll_ifindex = index.try_into().map_err(io::Error::other)?;
    let length = size_of::<libc::sockaddr_ll>().try_into().map_err(io::Error::other)?;
    // SAFETY: the storage holds an address of its own family, of this length.
    Ok(unsafe { SockAddr::new(storage, length) })
}

/// `connect(AF_UNSPEC)`: disconnects a socket.
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

/// `setsockopt` with an integer value.
pub fn set_option(socket: &impl AsRawFd, level: i32, option: i32, value: libc::c_int) -> io::Result<()> {
    set_bytes(socket, level, option, &value.to_ne_bytes())
}

/// `setsockopt` with a value of bytes.
pub fn set_bytes(socket: &impl AsRawFd, level: i32, option: i32, value: &[u8]) -> io::Result<()> {
    let length = value.len().try_into().map_err(io::Error::other)?;
    // SAFETY: the value lives across the call, and the length is its own.
    let result =
        unsafe { libc::setsockopt(socket.as_raw_fd(), level, option, value.as_ptr().cast(), length) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// The UDP sockets of this thread's network namespace: own address and peer, as the kernel has them. No program of ours
/// gives these other names.
pub fn udp_peers() -> io::Result<Vec<(SocketAddr, SocketAddr)>> {
    let mut sockets = Vec::new();
    for file in ["/proc/thread-self/net/udp", "/proc/thread-self/net/udp6"] {
        for line in fs::read_to_string(file)?.lines().skip(1) {
            let mut addresses = line.split_whitespace().skip(1).map_while(socket_address);
            let both = addresses.next().zip(addresses.next());
            sockets.push(both.ok_or_else(|| io::Error::other(format!("{file}: {line}")))?);
        }
    }
    Ok(sockets)
}

/// An address and port as `/proc/net/udp` writes them: words of four bytes, each in the machine's order.
fn socket_address(text: &str) -> Option<SocketAddr> {
    let (ip, port) = text.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    let words = ip.as_bytes().chunks(8).map(|word| u32::from_str_radix(str::from_utf8(word).ok()?, 16).ok());
    let bytes =
        words.collect::<Option<Vec<u32>>>()?.into_iter().flat_map(u32::to_ne_bytes).collect::<Vec<u8>>();
    match bytes.len() {
        4 => Some((<[u8; 4]>::try_from(bytes).ok()?, port).into()),
        _ => Some((<[u8; 16]>::try_from(bytes).ok()?, port).into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_proc_are_read_in_both_families() {
        let v4 = u32::from_ne_bytes([10, 244, 1, 10]);
        assert_eq!(socket_address(&format!("{v4:08X}:0035")), Some(([10, 244, 1, 10], 53).into()));
        let one = u32::from_ne_bytes([0, 0, 0, 1]);
        let loopback = ([0, 0, 0, 0, 0, 0, 0, 1_u16], 8080).into();
        assert_eq!(socket_address(&format!("{:024X}{one:08X}:1F90", 0)), Some(loopback));
        for text in ["", ":", "12", "0:1:2", "XY000000:0035"] {
            assert_eq!(socket_address(text), None, "{text}");
        }
    }
}
