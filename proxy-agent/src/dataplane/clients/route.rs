//! Asking the kernel for the source address of a route (`ip route get`), in rtnetlink. The kernel's side is
//! `inet_rtm_getroute` and `inet6_rtm_getroute`. No packet is sent.

use std::{
    io,
    os::fd::{AsRawFd, OwnedFd, RawFd},
    path::Path,
};

use bytemuck::{Pod, Zeroable, bytes_of, pod_read_unaligned};
use nix::{
    errno::Errno,
    sys::{
        socket::{
            AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, setsockopt, socket,
            sockopt::ReceiveTimeout,
        },
        time::TimeVal,
    },
};
use proxy_common::Address;

use super::super::Error;

const NLM_F_REQUEST: u16 = 1;
const RTM_NEWROUTE: u16 = 24;
const RTM_GETROUTE: u16 = 26;
const RTA_DST: u16 = 1;
const RTA_PREFSRC: u16 = 7;
/// A route that leads on, not to an address of this namespace's own.
const RTN_UNICAST: u8 = 1;
/// The kernel answers at once; this is for the day when it does not.
const PATIENCE: TimeVal = TimeVal::new(1, 0);

/// `struct nlmsghdr`.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct Header {
    length: u32,
    kind: u16,
    flags: u16,
    sequence: u32,
    port: u32,
}

/// `struct rtmsg`.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct Route {
    family: u8,
    destination_length: u8,
    source_length: u8,
    tos: u8,
    table: u8,
    protocol: u8,
    scope: u8,
    kind: u8,
    flags: u32,
}

/// `struct rtattr`.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct Attribute {
    length: u16,
    kind: u16,
}

const _: () = assert!(size_of::<Header>() == 16 && size_of::<Route>() == 12 && size_of::<Attribute>() == 4);

/// A `NETLINK_ROUTE` socket. It speaks of the namespace in which it was made.
#[derive(Debug)]
pub(super) struct Routes {
    socket: OwnedFd,
}

impl AsRawFd for Routes {
    fn as_raw_fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }
}

impl Routes {
    /// A socket in the namespace of the calling thread.
    pub(super) fn new() -> Result<Self, Error> {
        let make = || {
            let (family, protocol) = (AddressFamily::Netlink, SockProtocol::NetlinkRoute);
            let socket = socket(family, SockType::Raw, SockFlag::SOCK_CLOEXEC, protocol)?;
            setsockopt(&socket, ReceiveTimeout, &PATIENCE)?;
            Ok(socket)
        };
        let socket = make().map_err(|errno: Errno| {
            Error::system("socket(NETLINK_ROUTE)", Path::new("(netlink)"))(io::Error::from(errno))
        })?;
        Ok(Self { socket })
    }

    /// The address that a packet from here to `destination` has; nothing where no route leads there, or one
    /// that leads back.
    pub(super) fn source_towards(&self, destination: Address) -> Option<Address> {
        let socket = self.socket.as_raw_fd();
        send(socket, &question(destination), MsgFlags::empty()).ok()?;
        let mut buffer = [0; 4096];
        let length = recv(socket, &mut buffer, MsgFlags::empty()).ok()?;
        preferred_source(buffer.get(..length)?, destination.is_v4())
    }
}

/// The address as the kernel spells it, which is in the family's own length.
fn spelled(address: &Address) -> &[u8] {
    if address.is_v4() { &address.bytes[12..] } else { &address.bytes }
}

fn question(destination: Address) -> Vec<u8> {
    let bytes = spelled(&destination);
    let family = if destination.is_v4() { libc::AF_INET } else { libc::AF_INET6 };
    let route = Route {
        family: u8::try_from(family).unwrap_or_default(),
        destination_length: u8::try_from(bytes.len() * 8).unwrap_or_default(),
        ..Route::zeroed()
    };
    let length = |bytes: usize| u16::try_from(bytes).unwrap_or_default();
    let attribute = Attribute { length: length(size_of::<Attribute>() + bytes.len()), kind: RTA_DST };
    let header = Header {
        length: u32::from(length(size_of::<Header>() + size_of::<Route>())) + u32::from(attribute.length),
        kind: RTM_GETROUTE,
        flags: NLM_F_REQUEST,
        sequence: 1,
        port: 0,
    };
    [bytes_of(&header), bytes_of(&route), bytes_of(&attribute), bytes].concat()
}

/// `RTA_PREFSRC` of a route that leads on. Errors, and what is too short, are nothing.
fn preferred_source(answer: &[u8], v4: bool) -> Option<Address> {
    let header: Header = prefix(answer)?;
    if header.kind != RTM_NEWROUTE {
        return None;
    }
    let mut rest = answer.get(size_of::<Header>()..usize::try_from(header.length).ok()?)?;
    let route: Route = prefix(rest)?;
    if route.kind != RTN_UNICAST {
        return None;
    }
    rest = rest.get(size_of::<Route>()..)?;
    loop {
        let attribute: Attribute = prefix(rest)?;
        let length = usize::from(attribute.length);
        let body = rest.get(size_of::<Attribute>()..length)?;
        if attribute.kind == RTA_PREFSRC {
            return if v4 {
                body.try_into().ok().map(Address::from_v4)
            } else {
                body.try_into().ok().map(|bytes| Address { bytes }).filter(|address| !is_link_local(address))
            };
        }
        rest = rest.get(length.next_multiple_of(4)..)?;
    }
}

/// Nobody's ranges hold such an address: it means something else on every link.
fn is_link_local(address: &Address) -> bool {
    std::net::Ipv6Addr::from(address.bytes).is_unicast_link_local()
}

fn prefix<T: Pod>(bytes: &[u8]) -> Option<T> {
    bytes.get(..size_of::<T>()).map(pod_read_unaligned)
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;

    fn address(text: &str) -> Address {
        text.parse::<IpAddr>().expect("an address").into()
    }

    /// An answer with these attributes.
    fn answer(kind: u16, route: u8, attributes: &[(u16, &[u8])]) -> Vec<u8> {
        let mut body = bytes_of(&Route { kind: route, ..Route::zeroed() }).to_vec();
        for (kind, value) in attributes {
            let length = u16::try_from(4 + value.len()).expect("short");
            body.extend(bytes_of(&Attribute { length, kind: *kind }));
            body.extend(*value);
            body.resize(body.len().next_multiple_of(4), 0);
        }
        let length = u32::try_from(16 + body.len()).expect("short");
        let header = Header { length, kind, flags: 0, sequence: 1, port: 0 };
        [bytes_of(&header).to_vec(), body].concat()
    }

    #[test]
    fn the_source_is_that_of_a_route_which_leads_on() {
        let v6 = address("fd00::10");
        for (bytes, v4, expected) in [
            (answer(24, 1, &[(1, &[203, 0, 113, 7]), (7, &[10, 244, 1, 10])]), true, Some("10.244.1.10")),
            (answer(24, 1, &[(4, &[1, 2]), (7, &v6.bytes)]), false, Some("fd00::10")),
            (answer(24, 2, &[(7, &[203, 0, 113, 7])]), true, None),
            (answer(24, 1, &[(1, &[203, 0, 113, 7])]), true, None),
            (answer(24, 1, &[(7, &address("fe80::1").bytes)]), false, None),
            (answer(24, 1, &[(7, &[10, 244])]), true, None),
            (answer(2, 1, &[(7, &[10, 244, 1, 10])]), true, None),
            (vec![0; 3], true, None),
        ] {
            let found = preferred_source(&bytes, v4).map(|address| address.to_string());
            assert_eq!(found.as_deref(), expected, "{bytes:?}");
            for length in 0..bytes.len() {
                preferred_source(&bytes[..length], v4);
            }
        }
    }

    #[test]
    fn a_question_has_the_length_that_it_says() {
        for (text, length) in [("203.0.113.7", 36), ("2001:db8::7", 48)] {
            let bytes = question(address(text));
            assert_eq!(bytes.len(), length);
            assert_eq!(bytes[..4], u32::try_from(length).expect("short").to_ne_bytes());
        }
    }

    #[test]
    fn a_route_to_an_address_of_our_own_leads_back() {
        let routes = Routes::new().expect("a socket");
        assert_eq!(routes.source_towards(address("127.0.0.1")), None);
    }
}
