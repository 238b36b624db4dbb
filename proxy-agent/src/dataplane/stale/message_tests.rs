use std::net::{IpAddr, Ipv4Addr};

use super::*;

const POD: Ipv4Addr = Ipv4Addr::new(10, 244, 1, 17);

fn record() -> Translation {
    Translation {
        frontend: IpAddr::from(Ipv4Addr::new(10, 96, 0, 53)).into(),
        backend: IpAddr::from(POD).into(),
        frontend_port: Port::new(53),
        backend_port: Port::new(5300),
        endpoint: 7,
        ..Translation::UNUSED
    }
}

fn id(destination: [u32; 4], port: u16) -> SocketId {
    SocketId { destination, destination_port: port.to_be(), cookie: [1, 2], ..SocketId::zeroed() }
}

/// A socket as the kernel tells it, with another attribute before its storage.
fn answer(family: i32, id: SocketId, value: &[u8]) -> Vec<u8> {
    let family = u8::try_from(family).expect("a small number");
    let body = Answer { family, id, ..Answer::zeroed() };
    let storage = [attribute(2, &[9; 4]), attribute(MAP_VALUE, value)].concat();
    let storages = attribute(STORAGES | 0x8000, &attribute(STORAGE, &storage));
    let attributes = [attribute(8, &[1]), storages].concat();
    let length = u32::try_from(16 + 72 + attributes.len()).expect("a small number");
    let header = Header { length, kind: SOCK_DIAG_BY_FAMILY, flags: 2, sequence: 0, port: 0 };
    [bytes_of(&header), bytes_of(&body), &attributes].concat()
}

fn end(kind: u16, code: i32) -> Vec<u8> {
    let header = Header { length: 20, kind, flags: 0, sequence: 0, port: 0 };
    [bytes_of(&header), &code.to_ne_bytes()].concat()
}

fn v4(address: Ipv4Addr) -> [u32; 4] {
    [u32::from_ne_bytes(address.octets()), 0, 0, 0]
}

#[test]
fn sockets_are_read_with_their_records_until_the_end() {
    let id = id(v4(POD), 5300);
    let bytes = [answer(libc::AF_INET, id, bytes_of(&record())), end(NLMSG_DONE, 0)].concat();
    let read: Vec<Message> = messages(&bytes).collect();
    let found = Found { family: 2, id, record: record() };
    assert_eq!(read, [Message::Socket(found), Message::End(0)]);
    assert!(found.is_translated());
}

#[test]
fn a_socket_without_a_record_is_passed_over() {
    let bytes = [answer(libc::AF_INET, id(v4(POD), 5300), &[]), end(NLMSG_DONE, 0)].concat();
    assert_eq!(messages(&bytes).collect::<Vec<_>>(), [Message::End(0)]);
}

#[test]
fn a_socket_that_was_connected_elsewhere_is_not_translated() {
    let elsewhere = Ipv4Addr::new(10, 244, 1, 18);
    for (address, port) in [(elsewhere, 5300), (POD, 5301)] {
        assert!(!Found { family: 2, id: id(v4(address), port), record: record() }.is_translated());
    }
    let unused = Found { family: 2, id: id(v4(POD), 5300), record: Translation::UNUSED };
    assert!(!unused.is_translated(), "connected straight to the pod");
}

#[test]
fn an_ipv6_socket_with_a_mapped_peer_is_translated() {
    let words = Address::from(IpAddr::from(POD)).words();
    assert!(Found { family: 10, id: id(words, 5300), record: record() }.is_translated());
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
    let whole = answer(libc::AF_INET, id(v4(POD), 5300), bytes_of(&record()));
    for length in 0..whole.len() {
        assert_eq!(messages(&whole[..length]).count(), 0, "{length}");
    }
}

#[test]
fn a_request_names_the_map_in_a_nested_attribute() {
    let bytes = dump(2, 42);
    assert_eq!(bytes.len(), 16 + 56 + 4 + 4 + 4);
    assert_eq!(prefix::<u32>(&bytes).map(|length| length as usize), Some(bytes.len()));
    let storages = find(&bytes[72..], REQ_STORAGES).expect("the attribute");
    assert_eq!(find(storages, REQ_MAP_FD), Some(&42_u32.to_ne_bytes()[..]));
}
