//! Strategies for packets.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use proptest::prelude::*;
use proxy_common::{Address, Port};
use sidestep_tests::packets::{Datagram, Transport};

/// Address and port as `rewrite` takes them.
pub(crate) fn new(address: SocketAddr) -> (Address, Port) {
    (address.ip().into(), Port::new(address.port()))
}

/// Addresses of one family. Some have words of all zeroes or all ones, the two representations of zero in a
/// checksum.
pub(crate) fn address(v6: bool) -> BoxedStrategy<IpAddr> {
    if v6 {
        let word = prop_oneof![4 => any::<u16>(), 1 => Just(0), 1 => Just(0xffff)];
        let words = prop::array::uniform7(word);
        let bytes = words.prop_map(|[b, c, d, e, f, g, h]| Ipv6Addr::new(0xfd00, b, c, d, e, f, g, h).into());
        bytes.boxed()
    } else {
        let byte = prop_oneof![4 => any::<u8>(), 1 => Just(0), 1 => Just(0xff)];
        prop::array::uniform4(byte).prop_map(|bytes| Ipv4Addr::from(bytes).into()).boxed()
    }
}

/// Addresses of one family, with a port.
pub(crate) fn socket(v6: bool) -> impl Strategy<Value = SocketAddr> {
    (address(v6), any::<u16>()).prop_map(SocketAddr::from)
}

fn payload() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        prop::collection::vec(any::<u8>(), 0..40),
        Just(Vec::new()),
        // Sums that result in the other zero.
        Just(vec![0; 16]),
        Just(vec![0xff; 16]),
    ]
}

fn transport() -> impl Strategy<Value = Transport> {
    let options = (0..=10_usize).prop_flat_map(|words| prop::collection::vec(any::<u8>(), words * 4));
    let tcp = (any::<u32>(), any::<u32>(), any::<u8>(), options).prop_map(
        |(sequence, acknowledgement, control, options)| Transport::Tcp {
            sequence,
            acknowledgement,
            control,
            options,
        },
    );
    prop_oneof![3 => tcp, 3 => any::<bool>().prop_map(|checksum| Transport::Udp { checksum })]
}

/// Any of the extension headers that may precede a transport header, in the order that RFC 8200 recommends.
fn extensions() -> impl Strategy<Value = Vec<(u8, Vec<u8>)>> {
    let body = || (0..3_usize).prop_flat_map(|eights| prop::collection::vec(any::<u8>(), 6 + eights * 8));
    let each = [0, 60, 43, 51, 60]
        .map(|kind| prop::option::weighted(0.3, body()).prop_map(move |body| (kind, body)));
    each.prop_map(|each| each.into_iter().filter_map(|(kind, body)| Some((kind, body?))).collect())
}

/// A datagram of one family.
pub(crate) fn datagram_of(v6: bool) -> BoxedStrategy<Datagram> {
    let addresses = (socket(v6), socket(v6));
    let base = (addresses, transport(), payload());
    let base = base.prop_map(|((source, destination), transport, payload)| {
        Datagram::new(source, destination, transport, payload)
    });
    if v6 {
        // An atomic fragment (RFC 6946) adds another extension header.
        let atomic = prop::option::weighted(0.2, any::<u32>());
        (base, prop_oneof![1 => Just(Vec::new()), 1 => extensions()], atomic)
            .prop_map(|(base, extensions, identification)| Datagram { extensions, identification, ..base })
            .boxed()
    } else {
        let options = (0..=10_usize).prop_flat_map(|words| prop::collection::vec(any::<u8>(), words * 4));
        (base, prop_oneof![1 => Just(Vec::new()), 1 => options])
            .prop_map(|(base, options)| Datagram { options, ..base })
            .boxed()
    }
}

/// A datagram, and another address of its family.
pub(crate) fn datagram() -> impl Strategy<Value = (Datagram, SocketAddr)> {
    any::<bool>().prop_flat_map(|v6| (datagram_of(v6), socket(v6)))
}

/// Offsets at which a datagram can be fragmented, after the beginning of the transport header.
pub(crate) fn cuts(datagram: &Datagram) -> Vec<usize> {
    let header = if datagram.protocol() == 6 { 24 } else { 8 };
    (header..datagram.segment().len()).step_by(8).collect()
}
