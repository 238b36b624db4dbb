//! A name server in a pod, over UDP and TCP; one of its names resolves to the pod itself.

use std::{
    collections::BTreeMap,
    io::{ErrorKind, Read, Write},
    net::{IpAddr, Ipv6Addr, SocketAddr, TcpStream},
    sync::Arc,
};

use anyhow::Result;

use crate::{
    place::Place,
    traffic::{TcpServer, UdpServer},
};

/// Its port, over both protocols.
pub const PORT: u16 = 53;
/// The name that resolves to the addresses of the pod that answers.
pub const ENDPOINT: &str = "endpoint.demo.svc";
/// The name with TXT records that do not fit into a datagram, so that a client has to ask again over TCP.
pub const LONG: &str = "long.demo.svc";

/// Names and their addresses, in lower case and without the last dot.
pub type Zone = BTreeMap<&'static str, Vec<IpAddr>>;

/// The longest answer over UDP (RFC 1035, 4.2.1); larger sizes that clients offer (EDNS) are ignored.
const LONGEST_DATAGRAM: usize = 512;

/// Record types (RFC 1035, RFC 3596).
const A: u16 = 1;
const TXT: u16 = 16;
const AAAA: u16 = 28;

/// The server; stops on drop.
#[derive(Debug)]
pub struct NameServer {
    _udp: UdpServer,
    _tcp: TcpServer,
}

impl NameServer {
    /// Starts it in a pod, with these names and [`ENDPOINT`] and [`LONG`].
    pub fn start(place: &Place, zone: &Zone) -> Result<Self> {
        let mut zone = zone.clone();
        zone.insert(ENDPOINT, place.addresses().to_vec());
        let zone = Arc::new(zone);
        let address = SocketAddr::from((Ipv6Addr::UNSPECIFIED, PORT));
        let datagrams = Arc::clone(&zone);
        let answer =
            move |query: &[u8], _client, _local| Question::parse(query)?.answer(&datagrams, LONGEST_DATAGRAM);
        Ok(Self {
            _udp: UdpServer::answering(place, place.name(), address, answer)?,
            _tcp: TcpServer::talking(
                place,
                place.name(),
                address,
                Box::new(move |stream| converse(stream, &zone)),
            )?,
        })
    }
}

/// Answers queries on a connection, where each message begins with its length (RFC 1035, 4.2.2).
fn converse(mut stream: &TcpStream, zone: &Zone) -> std::io::Result<()> {
    let mut length = [0; 2];
    while stream.read_exact(&mut length).is_ok() {
        let mut query = vec![0; u16::from_be_bytes(length).into()];
        stream.read_exact(&mut query)?;
        let answer = Question::parse(&query).and_then(|question| question.answer(zone, u16::MAX.into()));
        let answer = answer.ok_or(ErrorKind::InvalidData)?;
        let length = u16::try_from(answer.len()).expect("at most the limit");
        stream.write_all(&[&length.to_be_bytes(), answer.as_slice()].concat())?;
    }
    Ok(())
}

/// The first question of a query.
struct Question<'a> {
    id: [u8; 2],
    name: String,
    kind: u16,
    /// The encoded question, which the answer repeats.
    section: &'a [u8],
}

impl<'a> Question<'a> {
    fn parse(query: &'a [u8]) -> Option<Self> {
        let id = query.first_chunk().copied()?;
        let (mut labels, mut at) = (Vec::new(), 12);
        loop {
            let length = usize::from(*query.get(at)?);
            at += 1;
            if length == 0 {
                break;
            }
            labels.push(str::from_utf8(query.get(at..at + length)?).ok()?.to_ascii_lowercase());
            at += length;
        }
        let kind = u16::from_be_bytes(*query.get(at..)?.first_chunk()?);
        Some(Self { id, name: labels.join("."), kind, section: query.get(12..at + 4)? })
    }

    /// The answer as a message; one that is longer than `limit` has no records and is marked as truncated.
    fn answer(&self, zone: &Zone, limit: usize) -> Option<Vec<u8>> {
        const NO_SUCH_NAME: u8 = 3;
        let (code, records) = match zone.get(self.name.as_str()) {
            _ if self.name == LONG => (0, self.long_text()),
            Some(addresses) => (0, self.addresses(addresses)),
            None => (NO_SUCH_NAME, Vec::new()),
        };
        let whole = self.message(false, code, &records)?;
        if whole.len() > limit { self.message(true, code, &[]) } else { Some(whole) }
    }

    /// The data of the records of the type that is asked for.
    fn addresses(&self, addresses: &[IpAddr]) -> Vec<Vec<u8>> {
        let data = addresses.iter().filter_map(|address| match (address, self.kind) {
            (IpAddr::V4(v4), A) => Some(v4.octets().to_vec()),
            (IpAddr::V6(v6), AAAA) => Some(v6.octets().to_vec()),
            _ => None,
        });
        data.collect()
    }

    fn long_text(&self) -> Vec<Vec<u8>> {
        let text = || [&[200][..], &[b'x'; 200]].concat();
        if self.kind == TXT { (0..10).map(|_| text()).collect() } else { Vec::new() }
    }

    fn message(&self, truncated: bool, code: u8, records: &[Vec<u8>]) -> Option<Vec<u8>> {
        // QR, AA, RD and RA.
        let flags = [0x85 | u8::from(truncated) << 1, 0x80 | code];
        let count = u16::try_from(records.len()).ok()?.to_be_bytes();
        let mut message = [&self.id[..], &flags, &[0, 1], &count, &[0; 4], self.section].concat();
        for data in records {
            // A pointer to the question's name; class IN; a TTL of 0, so that caches ask each time.
            message.extend([0xc0, 12]);
            message.extend(self.kind.to_be_bytes());
            message.extend([0, 1, 0, 0, 0, 0]);
            message.extend(u16::try_from(data.len()).ok()?.to_be_bytes());
            message.extend(data);
        }
        Some(message)
    }
}

#[cfg(test)]
mod tests {
    use super::{LONG, LONGEST_DATAGRAM, Question, TXT, Zone};

    fn query(name: &str, kind: u16) -> Vec<u8> {
        let mut query = vec![0xab, 0xcd, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        for label in name.split('.') {
            query.push(label.len().try_into().unwrap());
            query.extend(label.as_bytes());
        }
        query.extend([0, 0, kind.try_into().unwrap(), 0, 1]);
        query
    }

    #[test]
    fn an_answer_repeats_the_question() {
        let zone = Zone::from([("web.demo.svc", vec!["10.96.0.10".parse().unwrap()])]);
        let query = query("Web.Demo.svc", 1);
        let question = Question::parse(&query).unwrap();
        let answer = question.answer(&zone, LONGEST_DATAGRAM).unwrap();
        assert_eq!(answer[..12], [0xab, 0xcd, 0x85, 0x80, 0, 1, 0, 1, 0, 0, 0, 0]);
        assert_eq!(answer[12..query.len()], query[12..]);
        assert_eq!(answer[query.len()..], [0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 0, 0, 4, 10, 96, 0, 10]);
    }

    #[test]
    fn an_unknown_name_is_an_error_and_a_missing_type_is_not() {
        let zone = Zone::from([("web.demo.svc", vec!["10.96.0.10".parse().unwrap()])]);
        for (name, code) in [("web.demo.svc", 0x80), ("other.demo.svc", 0x83)] {
            let answer = Question::parse(&query(name, 28)).unwrap().answer(&zone, LONGEST_DATAGRAM).unwrap();
            assert_eq!((answer[3], &answer[6..8]), (code, &[0, 0][..]), "{name}");
        }
    }

    #[test]
    fn a_long_answer_over_udp_is_truncated() {
        let query = query(LONG, TXT);
        let question = Question::parse(&query).unwrap();
        let answer = question.answer(&Zone::new(), LONGEST_DATAGRAM).unwrap();
        assert_eq!((answer.len(), answer[2] & 2), (query.len(), 2));
        let answer = question.answer(&Zone::new(), usize::from(u16::MAX)).unwrap();
        assert!(answer.len() > 2000 && answer[2] & 2 == 0);
    }
}
