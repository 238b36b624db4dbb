//! Series of requests, and their evaluation.

use std::io::{self, Read, Write};

use sidestep_tests::{
    Place,
    cluster::at,
    traffic::{Answer, Asker, connect},
};

use crate::demo::{cast::Cast, table::Row};

/// How many requests a row makes: enough that a random choice misses no pod.
const REQUESTS: u64 = 150;

/// HTTP requests, each on its own connection; `pods` is how many different pods have to answer.
pub(super) fn http(what: &str, from: &Place, address: &str, pods: usize) -> Row {
    let mut row = Row::new(what, address);
    from.run(|| {
        many(&mut row, pods, || {
            let mut stream = connect(at(address))?;
            let peer = stream.peer_addr()?.to_string();
            write!(stream, "GET / HTTP/1.1\r\nHost: web\r\nConnection: close\r\n\r\n")?;
            let mut response = String::new();
            stream.read_to_string(&mut response)?;
            let answer = response
                .strip_prefix("HTTP/1.1 200 OK")
                .and_then(|rest| Answer::parse(rest.split_once("\r\n\r\n")?.1));
            let answer =
                answer.ok_or_else(|| io::Error::other(format!("not an HTTP response: {response:?}")))?;
            Ok((answer, peer))
        });
    });
    row
}

/// UDP queries, each on its own socket.
pub(super) fn names(what: &str, cast: &Cast, connected: bool) -> Row {
    const DNS: &str = "10.96.0.53:53";
    let mut row = Row::new(what, DNS);
    cast.client.run(|| {
        many(&mut row, cast.dns.len(), || {
            let asker = Asker::v4()?;
            let (answer, source) = if connected {
                asker.connect(at(DNS))?;
                asker.ask_peer()?
            } else {
                asker.ask(at(DNS))?
            };
            Ok((answer, source.to_string()))
        });
    });
    row
}

fn many(row: &mut Row, pods: usize, mut request: impl FnMut() -> io::Result<(Answer, String)>) {
    for number in 0..REQUESTS {
        row.requests += 1;
        match request() {
            Ok((answer, peer)) => {
                *row.spread.entry(answer.server).or_default() += 1;
                let expected = row.address.clone();
                row.expect(peer == expected, || format!("the peer was {peer}"));
                row.peer = peer;
            }
            Err(error) => row.flaws.push(format!("request {number}: {error}")),
        }
    }
    let answered = row.spread.len();
    row.expect(answered == pods, || format!("{answered} pods answered, not {pods}"));
}
