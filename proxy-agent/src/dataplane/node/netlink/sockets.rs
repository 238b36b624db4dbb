//! The connected UDP sockets of one network namespace, and where it listens (`NETLINK_SOCK_DIAG`). The kernel's side is
//! `net/ipv4/inet_diag.c` and `udp_diag.c`.

use std::{
    net::SocketAddr,
    os::fd::{AsRawFd, RawFd},
};

use netlink_packet_core::{NLM_F_ACK, NLM_F_DUMP, Nla as _};
use netlink_packet_sock_diag::{
    SockDiagDestroy, SockDiagMessage,
    constants::{AF_INET, AF_INET6},
    inet::{ExtensionFlags, InetRequest, InetResponse, SocketId, StateFlags, nlas::Nla as InetNla},
};
use netlink_sys::protocols::NETLINK_SOCK_DIAG;
use proxy_common::{Address, Port, Protocol, Tuple};

use super::conversation::Conversation;
use crate::dataplane::Error;

/// `INET_DIAG_CGROUP_ID` (5.9).
const CGROUP_ID: u16 = 21;

/// A `NETLINK_SOCK_DIAG` socket.
#[derive(Debug)]
pub(crate) struct Diag {
    conversation: Conversation<SockDiagMessage>,
}

impl AsRawFd for Diag {
    fn as_raw_fd(&self) -> RawFd {
        self.conversation.as_raw_fd()
    }
}

/// A connected UDP socket.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Found {
    family: u8,
    id: SocketId,
    /// Its inode: what the descriptors of processes name.
    pub(crate) inode: u32,
    /// The cgroup in which it was made: the inode of its directory.
    pub(crate) cgroup: Option<u64>,
}

impl From<InetResponse> for Found {
    fn from(response: InetResponse) -> Self {
        let header = response.header;
        Self {
            cgroup: response.nlas.iter().find_map(cgroup),
            family: header.family,
            id: header.socket_id,
            inode: header.inode,
        }
    }
}

impl Found {
    /// What it is connected to.
    pub(crate) fn peer(&self) -> (Address, Port) {
        (self.id.destination_address.into(), Port::new(self.id.destination_port))
    }

    /// Its packets, as they leave it.
    pub(crate) fn tuple(&self) -> Tuple {
        let source = (self.id.source_address.into(), Port::new(self.id.source_port));
        Tuple::new(Protocol::Udp as u8, source, self.peer())
    }

    /// Its cookie (`SO_COOKIE`): no other socket ever has the same.
    pub(crate) fn cookie(&self) -> u64 {
        // Two words, the low one first, each in the machine's order.
        let (words, _) = self.id.cookie.as_chunks::<4>();
        words.iter().rev().fold(0, |cookie, word| cookie << 32 | u64::from(u32::from_ne_bytes(*word)))
    }
}

impl Diag {
    /// A socket in the namespace of the calling thread.
    pub(crate) fn new() -> Result<Self, Error> {
        Ok(Self { conversation: Conversation::new(NETLINK_SOCK_DIAG)? })
    }

    /// The connected UDP sockets of both families.
    ///
    /// Sockets that others close meanwhile may make the kernel miss one: ask again later.
    pub(crate) fn connected(&self) -> Result<Vec<Found>, Error> {
        let mut all = Vec::new();
        self.each(Protocol::Udp, &StateFlags::ESTABLISHED, |response| all.push(Found::from(response)))?;
        Ok(all)
    }

    /// The addresses and ports at which TCP sockets listen, of both families; an error if the kernel does not tell.
    pub(crate) fn listening(&self) -> Result<Vec<SocketAddr>, Error> {
        let mut all = Vec::new();
        let families = self.each(Protocol::Tcp, &StateFlags::LISTEN, |response| {
            let id = response.header.socket_id;
            all.push(SocketAddr::new(id.source_address, id.source_port));
        })?;
        if families == 0 {
            return Err(Error::Missing("the kernel lists no TCP sockets (CONFIG_INET_DIAG)".to_owned()));
        }
        Ok(all)
    }

    /// The sockets of this protocol in these states, of both families. Returns how many of them the kernel has.
    fn each(
        &self,
        protocol: Protocol,
        states: &StateFlags,
        mut take: impl FnMut(InetResponse),
    ) -> Result<u32, Error> {
        const WHAT: (&str, &str) = ("SOCK_DIAG_BY_FAMILY", "(netlink)");
        let mut families = 0;
        for (family, any) in [(AF_INET, SocketId::new_v4()), (AF_INET6, SocketId::new_v6())] {
            let question = request(family, protocol, states.clone(), any);
            let each = |answer| {
                if let SockDiagMessage::InetResponse(response) = answer {
                    take(*response);
                }
            };
            match self.conversation.ask(WHAT, question, NLM_F_DUMP, each) {
                // The kernel has no such family.
                Err(Error::System { error, .. }) if error.raw_os_error() == Some(libc::ENOENT) => {}
                result => {
                    result?;
                    families += 1;
                }
            }
        }
        Ok(families)
    }

    /// Destroys a socket: its owner gets ECONNABORTED once, and may connect it again. `false` if it is gone.
    ///
    /// Its cookie makes sure that it is that one.
    pub(crate) fn destroy(&self, found: &Found) -> Result<bool, Error> {
        let which = request(found.family, Protocol::Udp, StateFlags::all(), found.id.clone());
        let question = SockDiagDestroy::new(which);
        match self.conversation.ask(("SOCK_DESTROY", "(netlink)"), question, NLM_F_ACK, drop) {
            Ok(()) => Ok(true),
            Err(Error::System { error, .. }) if error.raw_os_error() == Some(libc::ENOENT) => Ok(false),
            Err(error) => Err(error),
        }
    }
}

/// The cgroup, if that is what the attribute has.
fn cgroup(attribute: &InetNla) -> Option<u64> {
    let InetNla::Other(other) = attribute else { return None };
    if other.kind() != CGROUP_ID {
        return None;
    }
    let mut bytes = [0; 8];
    if other.value_len() != bytes.len() {
        return None;
    }
    other.emit_value(&mut bytes);
    Some(u64::from_ne_bytes(bytes))
}

fn request(family: u8, protocol: Protocol, states: StateFlags, socket_id: SocketId) -> SockDiagMessage {
    let (protocol, extensions) = (protocol as u8, ExtensionFlags::empty());
    SockDiagMessage::InetRequest(InetRequest { family, protocol, extensions, states, socket_id })
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;

    fn found(peer: &str) -> Found {
        let id = SocketId {
            destination_address: peer.parse().expect("an address"),
            destination_port: 5300,
            cookie: (0x2_0000_0001_u64).to_ne_bytes(),
            ..SocketId::new_v6()
        };
        Found { family: AF_INET6, id, inode: 77, cgroup: None }
    }

    #[test]
    fn a_mapped_peer_is_the_same_peer() {
        let expected = (Address::from("10.244.1.17".parse::<IpAddr>().expect("an address")), Port::new(5300));
        assert_eq!(found("10.244.1.17").peer(), expected);
        assert_eq!(found("::ffff:10.244.1.17").peer(), expected);
    }

    #[test]
    fn a_connected_socket_is_found_by_its_cookie_and_destroyed() {
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").expect("a socket");
        let other = std::net::UdpSocket::bind("127.0.0.1:0").expect("a socket");
        socket.connect(other.local_addr().expect("an address")).expect("connected");
        let peer = socket.peer_addr().expect("a peer");
        let diag = Diag::new().expect("a socket");
        let all = diag.connected().expect("sockets");
        let is_ours = |found: &&Found| found.peer() == (Address::from(peer.ip()), Port::new(peer.port()));
        let ours = all.iter().find(is_ours).expect("it is there");
        assert!(ours.cgroup.is_some(), "the kernel tells its cgroup since 5.9");
        assert_eq!(ours.cookie(), socket2::SockRef::from(&socket).cookie().expect("a cookie"));
        if nix::unistd::geteuid().is_root() {
            assert!(diag.destroy(ours).expect("destroyed"));
            assert!(!diag.destroy(ours).expect("gone"), "once");
            let error = socket.take_error().expect("asked").expect("it was destroyed");
            assert_eq!(error.kind(), std::io::ErrorKind::ConnectionAborted, "{error}");
        }
    }
}
