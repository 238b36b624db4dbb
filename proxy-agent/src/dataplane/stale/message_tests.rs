use std::net::{IpAddr, Ipv4Addr};

use super::*;

const POD: Ipv4Addr = Ipv4Addr::new(10, 244, 1, 17);

fn id(destination: [u32; 4]) -> SocketId {
    SocketId { destination, destination_port: 5300_u16.to_be(), cookie: [1, 2], ..SocketId::zeroed() }
}

/// A socket as the kernel tells it, with an attribute behind.
fn answer(family: u8, id: SocketId) -> Vec<u8> {
    let body = Answer { family, id, inode: 77, ..Answer::zeroed() };
    let attribute = [8, 0, 15, 0, 0, 0, 0, 0];
    let header = Header { length: 16 + 72 + 8, kind: SOCK_DIAG_BY_FAMILY, flags: 2, sequence: 0, port: 0 };
    [bytes_of(&header), bytes_of(&body), &attribute].concat()
}

fn end(kind: u16, code: i32) -> Vec<u8> {
    let header = Header { length: 20, kind, flags: 0, sequence: 0, port: 0 };
    [bytes_of(&header), &code.to_ne_bytes()].concat()
}

#[test]
fn sockets_are_read_until_the_end() {
    let id = id([u32::from_ne_bytes(POD.octets()), 0, 0, 0]);
    let bytes = [answer(2, id), answer(2, id), end(NLMSG_DONE, 0)].concat();
    let found = Found { family: 2, id, inode: 77 };
    let read: Vec<Message> = messages(&bytes).collect();
    assert_eq!(read, [Message::Socket(found), Message::Socket(found), Message::End(0)]);
    assert_eq!(found.peer(), (IpAddr::from(POD).into(), Port::new(5300)));
    assert_eq!(found.cookie(), 0x2_0000_0001);
}

#[test]
fn a_mapped_peer_is_the_same_peer() {
    let words = Address::from(IpAddr::from(POD)).words();
    let found = Found { family: 10, id: id(words), inode: 77 };
    assert_eq!(found.peer(), (IpAddr::from(POD).into(), Port::new(5300)));
}

#[test]
fn an_error_is_the_end() {
    for kind in [NLMSG_ERROR, NLMSG_DONE] {
        let read: Vec<Message> = messages(&end(kind, -libc::ENOENT)).collect();
        assert_eq!(read, [Message::End(libc::ENOENT)]);
    }
}

#[test]
fn bytes_that_were_cut_off_are_no_panic() {
    let whole = answer(2, id([0; 4]));
    for length in 0..whole.len() {
        assert_eq!(messages(&whole[..length]).count(), 0, "{length}");
    }
}
