//! A node: what its hooks do with a packet, on tuples instead of bytes.

use proxy_common::{
    Address, Endpoint, Port, PortOwners, Tuple,
    connection::{
        Answer, Begun, Clock, Draft, Ends, Flows as _, Leaving, Noted, RecordId, Request, Seen, SourcePorts,
        answered, asked, begin, find, find_by_source, find_remapped, left, read_source, try_port,
    },
    packet::{Numbers, Segment, Transport},
};

use crate::memory::{Memory, nothing};

pub(crate) type Side = (Address, Port);

pub(crate) const TCP: u8 = 6;
pub(crate) const UDP: u8 = 17;
pub(crate) const SYN: u8 = 2;
pub(crate) const ACK: u8 = 16;
pub(crate) const FIN: u8 = 1;
pub(crate) const RST: u8 = 4;

pub(crate) const NODE: Address = Address::from_v4([192, 0, 2, 10]);

/// The fate of a packet from a client.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Fate {
    /// It reaches this endpoint, with this source.
    Arrives { source: Side, endpoint: Side },
    /// It has no connection, cannot begin one, and is left to the stack.
    Left,
    /// It is refused or dropped.
    Refused(Begun),
    /// It is dropped: its source now belongs to another connection.
    Dropped,
}

/// A packet that reached an endpoint: client, frontend, and the translated source and destination.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Arrival {
    pub(crate) protocol: u8,
    pub(crate) client: Side,
    pub(crate) frontend: Side,
    pub(crate) source: Side,
    pub(crate) endpoint: Side,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Node {
    pub(crate) clock: Clock,
    pub(crate) ports: SourcePorts,
    /// Whether the CNI masquerades packets before egress sees them.
    pub(crate) foreign: bool,
    /// The acknowledgement number of clients. The endpoint's SYN has the sequence number 0, unknown to a client
    /// that has not seen it.
    pub(crate) acknowledgement: u32,
}

pub(crate) fn endpoint(number: u8) -> Endpoint {
    Endpoint {
        address: Address::from_v4([10, 244, number % 2 + 1, number]),
        id: number.into(),
        service: 1,
        port: Port::new(8080),
        generation: 1,
        flags: if number.is_multiple_of(2) { Endpoint::LOCAL } else { 0 },
    }
}

impl Node {
    pub(crate) fn new(ports: u16) -> Self {
        let clock = Clock { seconds: 1000, udp_timeout: 30 };
        Self { clock, ports: SourcePorts { first: 60_000, count: ports }, foreign: false, acknowledgement: 1 }
    }

    const fn transport(&self, segment: Segment) -> Transport {
        let numbers = Numbers { sequence: 0, acknowledgement: self.acknowledgement };
        Transport { source: Port::new(0), destination: Port::new(0), segment, numbers }
    }

    /// Both hooks, for a packet from a client. `choose` draws the endpoint of a new connection.
    pub(crate) fn send(
        &self,
        memory: &Memory,
        protocol: u8,
        (client, frontend): (Side, Side),
        segment: Segment,
        choose: impl FnOnce() -> Option<Endpoint>,
    ) -> Fate {
        let tuple = Tuple::new(protocol, client, frontend);
        let (mut ends, mut origin) = nothing();
        let mut record_id = find::<Request>(memory, &tuple, &mut ends);
        if record_id.is_some() {
            match asked(memory, record_id, &mut ends, &self.transport(segment), self.clock, 7) {
                Noted::Follow => {}
                Noted::Gone => return Fate::Left,
                Noted::Anew => {
                    memory.free(record_id, ends.check);
                    record_id = RecordId::NONE;
                }
            }
        }
        if !record_id.is_some() {
            if !segment.begins() {
                return Fate::Left;
            }
            let Some(endpoint) = choose() else { return Fate::Refused(Begun::NoRoom) };
            let mut draft = Draft::new();
            (draft.clock, draft.ports, draft.random) = (self.clock, self.ports, memory.draw());
            let flags = if endpoint.is_local() { Ends::LOCAL } else { Ends::MASQUERADED };
            draft.set(&tuple, &endpoint, flags, 7);
            draft.origin.source = NODE;
            let begun = begin(memory, &mut draft, |draft, rival| try_port(memory, draft, rival, |_| false));
            if begun != Begun::Connection {
                return Fate::Refused(begun);
            }
            (record_id, ends, origin) = (draft.record_id(), draft.ends, draft.origin);
        }
        let endpoint = ends.to();
        let mut owners = PortOwners::default();
        if ends.is_remapped() && !read_source(memory, record_id, &ends, &mut origin, &mut owners) {
            return Fate::Dropped;
        }
        let client = ends.inside(&origin);
        if self.foreign {
            return Fate::Arrives { source: client, endpoint };
        }
        let leaving = Tuple::new(protocol, client, endpoint);
        let mut record_id = find::<Leaving>(memory, &leaving, &mut ends);
        if !record_id.is_some() {
            let answer = leaving.reversed();
            record_id = find_remapped(memory, &answer, &mut owners, &mut ends, &mut origin);
        }
        if !record_id.is_some() || !ends.is_masqueraded() {
            return Fate::Arrives { source: client, endpoint };
        }
        if !read_source(memory, record_id, &ends, &mut origin, &mut owners) {
            return Fate::Dropped;
        }
        left(memory, record_id, &mut ends);
        Fate::Arrives { source: origin.masquerade(), endpoint }
    }

    /// Both hooks, for an answer. Returns its destination and source afterwards.
    pub(crate) fn answer(&self, memory: &Memory, arrival: &Arrival, segment: Segment) -> (Side, Side) {
        let Arrival { protocol, source, endpoint, .. } = *arrival;
        let (mut ends, mut origin) = nothing();
        let mut to = source;
        let tuple = Tuple::new(protocol, endpoint, source);
        let record_id = find_by_source(memory, &tuple, &mut PortOwners::default(), &mut ends, &mut origin);
        if record_id.is_some()
            && answered(memory, record_id, &mut ends, &self.transport(segment), false, self.clock)
        {
            to = ends.inside(&origin);
        }
        let tuple = Tuple::new(protocol, endpoint, to);
        let mut record_id = find::<Answer>(memory, &tuple, &mut ends);
        if !record_id.is_some() {
            let owners = &mut PortOwners::default();
            record_id = find_remapped(memory, &tuple, owners, &mut ends, &mut origin);
        }
        if record_id.is_some()
            && answered(memory, record_id, &mut ends, &self.transport(segment), true, self.clock)
        {
            return (ends.from(), ends.asked());
        }
        (to, endpoint)
    }
}

/// The connection of a client, if confirmed: first half of the record, id and generation of the endpoint.
pub(crate) fn confirmed(
    memory: &Memory,
    protocol: u8,
    client: Side,
    frontend: Side,
) -> Option<(Ends, u32, u16)> {
    let (mut ends, mut origin) = nothing();
    let record_id = find::<Request>(memory, &Tuple::new(protocol, client, frontend), &mut ends);
    let is_kept =
        record_id.is_some() && memory.kept(record_id) & 1 != 0 && ends.seen.client & Seen::CONFIRMED != 0;
    let is_whole = is_kept && memory.read_origin(record_id, ends.check, &mut origin);
    is_whole.then_some((ends, origin.endpoint, origin.generation))
}

/// Lets the endpoints with these numbers serve.
pub(crate) fn serve(memory: &Memory, numbers: impl IntoIterator<Item = u8>) -> Vec<Endpoint> {
    let endpoints: Vec<Endpoint> = numbers.into_iter().map(endpoint).collect();
    memory.serving.borrow_mut().extend(endpoints.iter().map(|endpoint| (endpoint.id, endpoint.generation)));
    endpoints
}

/// A client outside the cluster.
pub(crate) fn client(number: u8, port: u16) -> Side {
    (Address::from_v4([198, 51, 100, number]), Port::new(port))
}

/// A NodePort.
pub(crate) fn frontend(number: u16) -> Side {
    (NODE, Port::new(30_080 + number))
}
