//! A sequence of events, and what must hold after each: clients, changing endpoints, floods, and time.

use std::collections::HashMap;

use proptest::{prop_assert, prop_assert_eq, test_runner::TestCaseError};
use proxy_common::{Address, Endpoint, Port, packet::Segment};

use crate::{
    memory::Memory,
    node::{ACK, Arrival, Fate, Node, SYN, Side, TCP, UDP, client, confirmed, frontend, serve},
};

/// An event.
#[derive(Clone, Debug)]
pub(crate) enum Step {
    /// A client sends a packet, and may be answered.
    Speak { client: u8, port: u16, frontend: u16, segment: Option<u8>, answer: Option<u8> },
    /// Clients with forged addresses send SYNs, and are answered.
    Flood { clients: u8 },
    /// Time passes.
    Wait { seconds: u32 },
    /// An endpoint stops serving, or serves again with another generation.
    Change { endpoint: u8 },
    /// The slot of an unconfirmed connection is reused.
    Evict { number: u8 },
    /// The agent releases an idle connection.
    Idle { number: u8 },
}

/// The protocol and segment of a packet: TCP with these control bits, or UDP.
fn segment_of(control: Option<u8>) -> (u8, Segment) {
    control.map_or((UDP, Segment::DATAGRAM), |control| (TCP, Segment::tcp(control)))
}

struct Story {
    memory: Memory,
    node: Node,
    endpoints: Vec<Endpoint>,
    asked: HashMap<(u8, Side, Side), Arrival>,
}

impl Story {
    fn serving(&self) -> Option<Endpoint> {
        let serving = self.memory.serving.borrow();
        let serving: Vec<&Endpoint> = self
            .endpoints
            .iter()
            .filter(|endpoint| serving.contains(&(endpoint.id, endpoint.generation)))
            .collect();
        let draw = self.memory.draw() as usize;
        serving.get(draw % serving.len().max(1)).map(|endpoint| **endpoint)
    }

    fn send(&self, protocol: u8, client: Side, frontend: Side, segment: Segment) -> Fate {
        self.node.send(&self.memory, protocol, (client, frontend), segment, || self.serving())
    }

    /// Picks a record by number, among those whose slot is protected (`kept`) or not.
    fn pick(&self, number: u8, kept: bool) -> Option<proxy_common::connection::RecordId> {
        let all = self.memory.all();
        let all: Vec<_> =
            all.iter().filter(|(record_id, _)| (self.memory.kept(*record_id) & 1 != 0) == kept).collect();
        all.get(usize::from(number) % all.len().max(1)).map(|(record_id, _)| *record_id)
    }

    fn happen(&mut self, number: usize, step: &Step) -> Result<(), TestCaseError> {
        match *step {
            Step::Wait { seconds } => self.node.clock.seconds += seconds,
            Step::Evict { number } => {
                if let Some(record_id) = self.pick(number, false) {
                    self.memory.evict(record_id);
                }
            }
            Step::Idle { number } => {
                if let Some(record_id) = self.pick(number, true) {
                    let mut uses = self.memory.uses.borrow_mut();
                    uses[record_id.bucket() as usize].kept[record_id.slot() as usize] &= !1;
                }
            }
            Step::Change { endpoint } => {
                let endpoint = &mut self.endpoints[usize::from(endpoint)];
                let mut serving = self.memory.serving.borrow_mut();
                if !serving.remove(&(endpoint.id, endpoint.generation)) {
                    endpoint.generation += 1;
                    serving.insert((endpoint.id, endpoint.generation));
                }
            }
            Step::Flood { clients } => {
                for number in 0..clients {
                    let client = (Address::from_v4([203, 0, 113, number]), Port::new(1000));
                    let fate = self.send(TCP, client, frontend(0), Segment::tcp(SYN));
                    if let Fate::Arrives { source, endpoint } = fate {
                        let frontend = frontend(0);
                        let arrival = Arrival { protocol: TCP, client, frontend, source, endpoint };
                        self.node.answer(&self.memory, &arrival, Segment::tcp(SYN | ACK));
                        let blind = Node { acknowledgement: 1 << 31, ..self.node };
                        blind.send(&self.memory, TCP, (client, frontend), Segment::tcp(ACK), || None);
                    }
                    prop_assert!(
                        confirmed(&self.memory, TCP, client, frontend(0)).is_none(),
                        "a flood confirms a connection"
                    );
                }
            }
            Step::Speak { client: who, port, frontend: to, segment, answer } => {
                self.speak(number, client(who, port), frontend(to), segment, answer)?;
            }
        }
        Ok(())
    }

    fn speak(
        &mut self,
        number: usize,
        client: Side,
        frontend: Side,
        control: Option<u8>,
        answer: Option<u8>,
    ) -> Result<(), TestCaseError> {
        let (protocol, segment) = segment_of(control);
        let before = confirmed(&self.memory, protocol, client, frontend);
        let is_serving = |id: u32, generation: u16| self.memory.serving.borrow().contains(&(id, generation));
        let fate = self.send(protocol, client, frontend, segment);
        let Fate::Arrives { source, endpoint } = fate else {
            let keeps = before.is_some_and(|(_, id, generation)| is_serving(id, generation));
            prop_assert!(
                !keeps || segment.begins() || fate != Fate::Left,
                "step {number}: a packet of a live connection is not translated"
            );
            return Ok(());
        };
        if let Some((ends, id, generation)) = before
            && (!segment.begins() || is_serving(id, generation))
        {
            prop_assert_eq!(endpoint, ends.to(), "step {}: a live connection changed its endpoint", number);
        }
        let is_remote =
            self.endpoints.iter().any(|one| !one.is_local() && (one.address, one.port) == endpoint);
        prop_assert!(
            !is_remote || self.node.foreign || source != client,
            "step {number}: a packet left with the client's address {client:?}"
        );
        let arrival = Arrival { protocol, client, frontend, source, endpoint };
        // No other live connection has this SNAT source towards this endpoint.
        if let Some(other) = self.asked.insert((protocol, source, endpoint), arrival)
            && (other.client, other.frontend) != (client, frontend)
            && let Some((ends, ..)) = confirmed(&self.memory, protocol, other.client, other.frontend)
        {
            prop_assert!(
                ends.to() != endpoint || self.source_of(&other) != Some(source),
                "step {}: {:?} has the source of the live {:?}",
                number,
                arrival,
                other
            );
        }
        if let Some(control) = answer {
            let segment = if protocol == TCP { Segment::tcp(control | ACK) } else { Segment::DATAGRAM };
            let (to, from) = self.node.answer(&self.memory, &arrival, segment);
            // After a reset, a SYN-ACK belongs to another connection, which has no record.
            if segment.is_answer() && from == endpoint {
                return Ok(());
            }
            prop_assert_eq!((to, from), (client, frontend), "step {}: the answer to {:?}", number, arrival);
        }
        Ok(())
    }

    /// The source of a connection at its endpoint.
    fn source_of(&self, arrival: &Arrival) -> Option<Side> {
        let Arrival { protocol, client, frontend, .. } = *arrival;
        let is_it = |record: &proxy_common::Record| {
            record.ends.from() == client
                && record.ends.asked() == frontend
                && record.ends.protocol == protocol
        };
        let all = self.memory.all();
        let (_, record) = all.iter().find(|(_, record)| is_it(record))?;
        Some(if record.ends.has_source_port() { record.origin.masquerade() } else { client })
    }
}

/// Runs a sequence of events, and reports the first violation.
pub(crate) fn run(regions: usize, ports: u16, foreign: bool, steps: Vec<Step>) -> Result<(), TestCaseError> {
    let memory = Memory::new(regions);
    let endpoints = serve(&memory, 1..5);
    let mut story =
        Story { memory, node: Node { foreign, ..Node::new(ports) }, endpoints, asked: HashMap::new() };
    steps.into_iter().enumerate().try_for_each(|(number, step)| story.happen(number, &step))
}
