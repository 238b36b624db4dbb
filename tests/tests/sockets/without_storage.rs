//! Sockets that the kernel gives no more memory for options, of which storage for programs is a part
//! (`net.core.optmem_max`): they are translated all the same, and see the Service.

use std::net::SocketAddr;

use sidestep_tests::{
    Place, cluster,
    cluster::{DNS_PORT, at, service},
    skip,
    sockets::set_bytes,
    traffic::{Asker, Conversation},
};

const OPTMEM: &str = "/proc/sys/net/core/optmem_max";

/// TCP and UDP, connected or not, in every kind of socket.
fn assert_names_the_service(place: &Place, prepare: impl Fn(&Asker) + Send + Sync) {
    for ip in ["10.96.0.53", "[fd00:10:96::53]", "[::ffff:10.96.0.53]"] {
        let (tcp, udp) = (at(&format!("{ip}:80")), at(&format!("{ip}:53")));
        place.run(|| {
            let asker = Asker::for_address(udp).expect("a socket");
            prepare(&asker);
            for _ in 0..3 {
                assert_eq!(asker.ask(udp).expect("an answer").1, udp, "sendto");
            }
            asker.connect(udp).unwrap_or_else(|error| panic!("connect to {udp}: {error}"));
            assert_eq!(asker.socket().peer_addr().expect("a peer"), udp);
            assert_eq!(asker.ask_peer().expect("an answer").1, udp, "send");

            let asker = Asker::for_address(udp).expect("a socket");
            prepare(&asker);
            asker.connect(udp).unwrap_or_else(|error| panic!("connect to {udp}: {error}"));
            assert_eq!(asker.socket().peer_addr().expect("a peer"), udp);
            assert_eq!(asker.ask_peer().expect("an answer").1, udp, "connected at once");

            let conversation = Conversation::with(tcp).expect("a connection");
            assert_eq!(conversation.peer().expect("a peer"), tcp);
        });
    }
}

/// A pod whose limit leaves no room for anything.
#[test]
fn a_socket_of_a_pod_without_room_for_options_sees_the_service() {
    let cluster = cluster!(3);
    cluster.serve("dns", &service("dns", &["10.96.0.53", "fd00:10:96::53"])).expect("manifests");
    let _agent = cluster.lab.agent().expect("an agent");
    if let Err(error) = cluster.client.run(|| std::fs::write(OPTMEM, "8")) {
        skip!("the limit is not one of each network namespace here: {error}");
    }
    assert_names_the_service(&cluster.client, |_| {});
}

/// ST-5: what was connected to an endpoint because of a Service, and then to the same pod directly, names the pod.
#[test]
fn a_socket_without_room_that_is_connected_to_the_pod_names_the_pod() {
    let cluster = cluster!(1);
    cluster.serve("dns", &service("dns", &["10.96.0.53", "fd00:10:96::53"])).expect("manifests");
    let _agent = cluster.lab.agent().expect("an agent");
    if let Err(error) = cluster.client.run(|| std::fs::write(OPTMEM, "8")) {
        skip!("the limit is not one of each network namespace here: {error}");
    }
    let pod = &cluster.backends[0].place;
    for (vip, ip) in ["10.96.0.53:53", "[fd00:10:96::53]:53"].into_iter().zip(pod.addresses()) {
        let direct = SocketAddr::new(ip, DNS_PORT);
        cluster.client.run(|| {
            let asker = Asker::for_address(direct).expect("a socket");
            for peer in [at(vip), direct, at(vip)] {
                asker.connect(peer).expect("connected");
                assert_eq!(asker.socket().peer_addr().expect("a peer"), peer);
                assert_eq!(asker.ask_peer().expect("an answer").1, peer);
            }
        });
    }
}

/// A program that has used up what one socket may have, with a filter of its own.
#[test]
fn a_socket_whose_room_for_options_is_used_up_sees_the_service() {
    let cluster = cluster!(3);
    cluster.serve("dns", &service("dns", &["10.96.0.53", "fd00:10:96::53"])).expect("manifests");
    let _agent = cluster.lab.agent().expect("an agent");
    // Somewhat more than one filter of the largest size, wherever the limit is.
    if let Err(error) = cluster.client.run(|| std::fs::write(OPTMEM, "20480")) {
        skip!("the limit is not one of each network namespace here: {error}");
    }
    assert_names_the_service(&cluster.client, |asker| {
        let fits = (1..4096).rev().find(|length| attach_filter(asker, *length).is_ok());
        assert!(fits.is_some_and(|length| length > 1), "{fits:?}");
    });
}

/// Attaches a filter of so many instructions that lets everything pass.
fn attach_filter(asker: &Asker, length: u16) -> std::io::Result<()> {
    // `ret #-1`
    let accept = libc::sock_filter { code: 0x06, jt: 0, jf: 0, k: u32::MAX };
    let mut filter = vec![accept; length.into()];
    let program = libc::sock_fprog { len: length, filter: filter.as_mut_ptr() };
    // SAFETY: plain numbers and a pointer, read as the bytes that the kernel expects.
    let bytes = unsafe {
        std::slice::from_raw_parts(std::ptr::from_ref(&program).cast::<u8>(), size_of::<libc::sock_fprog>())
    };
    set_bytes(asker.socket(), libc::SOL_SOCKET, libc::SO_ATTACH_FILTER, bytes)
}
