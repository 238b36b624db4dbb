//! `NETLINK_SOCK_DIAG` messages: which connected UDP sockets are there, and destroy this one.
//!
//! Written by hand because no crate spells `SOCK_DESTROY`. Pure: bytes in, bytes out; what is too short or of
//! another kind is passed over, never a panic. The kernel's side is `net/ipv4/inet_diag.c` and `udp_diag.c`.

use bytemuck::{Pod, Zeroable, bytes_of, pod_read_unaligned};
use proxy_common::{Address, Port};

const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const SOCK_DIAG_BY_FAMILY: u16 = 20;
const SOCK_DESTROY: u16 = 21;
const NLM_F_REQUEST: u16 = 1;
const NLM_F_ACK: u16 = 4;
const NLM_F_DUMP: u16 = 0x300;
/// The state of a connected UDP socket.
const TCP_ESTABLISHED: u32 = 1;

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

/// `struct inet_diag_sockid`: the four-tuple in network byte order, the device, and the socket's cookie.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Pod, Zeroable)]
#[repr(C)]
struct SocketId {
    source_port: u16,
    destination_port: u16,
    source: [u32; 4],
    destination: [u32; 4],
    device: u32,
    cookie: [u32; 2],
}

/// `struct inet_diag_req_v2`.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct Request {
    family: u8,
    protocol: u8,
    extensions: u8,
    padding: u8,
    states: u32,
    id: SocketId,
}

/// `struct inet_diag_msg`.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct Answer {
    family: u8,
    state: u8,
    timer: u8,
    retransmits: u8,
    id: SocketId,
    expires: u32,
    receive_queue: u32,
    send_queue: u32,
    user: u32,
    inode: u32,
}

const _: () = assert!(size_of::<Header>() == 16);
const _: () = assert!(size_of::<SocketId>() == 48);
const _: () = assert!(size_of::<Request>() == 56);
const _: () = assert!(size_of::<Answer>() == 72);

/// A connected UDP socket.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Found {
    family: u8,
    id: SocketId,
    /// Its inode: what the descriptors of processes name.
    pub(super) inode: u32,
}

impl Found {
    /// What it is connected to.
    pub(super) fn peer(&self) -> (Address, Port) {
        let address = if i32::from(self.family) == libc::AF_INET {
            Address::from_v4(self.id.destination[0].to_ne_bytes())
        } else {
            Address::from_words(self.id.destination)
        };
        (address, Port::from_network(self.id.destination_port))
    }

    /// Its cookie (`SO_COOKIE`): no other socket ever has the same.
    pub(super) fn cookie(&self) -> u64 {
        let [low, high] = self.id.cookie;
        u64::from(high) << 32 | u64::from(low)
    }
}

/// One message from the kernel.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Message {
    /// A socket.
    Socket(Found),
    /// The last message; 0 or an error number.
    End(i32),
}

/// Asks for all connected UDP sockets of a family.
pub(super) fn dump(family: u8) -> Vec<u8> {
    let request = request(family, 1 << TCP_ESTABLISHED, SocketId::zeroed());
    message(SOCK_DIAG_BY_FAMILY, NLM_F_REQUEST | NLM_F_DUMP, &request)
}

/// Asks to destroy a socket; its cookie makes sure that it is that one.
pub(super) fn destroy(found: &Found) -> Vec<u8> {
    message(SOCK_DESTROY, NLM_F_REQUEST | NLM_F_ACK, &request(found.family, u32::MAX, found.id))
}

/// The messages in what the kernel sent at once.
pub(super) fn messages(mut bytes: &[u8]) -> impl Iterator<Item = Message> {
    std::iter::from_fn(move || {
        loop {
            let header: Header = prefix(bytes)?;
            let length = usize::try_from(header.length).ok()?;
            let body = bytes.get(size_of::<Header>()..length)?;
            bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
            match header.kind {
                SOCK_DIAG_BY_FAMILY => {
                    if let Some(found) = socket(body) {
                        return Some(Message::Socket(found));
                    }
                }
                // Both begin with a negative error number, or 0; some kernels end without one.
                NLMSG_DONE | NLMSG_ERROR => {
                    return Some(Message::End(prefix::<i32>(body).unwrap_or(0).saturating_neg()));
                }
                _ => {}
            }
        }
    })
}

fn socket(body: &[u8]) -> Option<Found> {
    let Answer { family, id, inode, .. } = prefix(body)?;
    Some(Found { family, id, inode })
}

fn request(family: u8, states: u32, id: SocketId) -> Request {
    Request { family, protocol: proxy_common::Protocol::Udp as u8, extensions: 0, padding: 0, states, id }
}

fn message(kind: u16, flags: u16, request: &Request) -> Vec<u8> {
    let length = u32::try_from(size_of::<Header>() + size_of::<Request>()).unwrap_or_default();
    let header = Header { length, kind, flags, sequence: 0, port: 0 };
    [bytes_of(&header), bytes_of(request)].concat()
}

fn prefix<T: Pod>(bytes: &[u8]) -> Option<T> {
    bytes.get(..size_of::<T>()).map(pod_read_unaligned)
}

#[cfg(test)]
#[path = "message_tests.rs"]
mod tests;
