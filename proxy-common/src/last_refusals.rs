//! LAST_REFUSALS: whom the programs refused what, and why, since when and how often. Always on: refusals are rare, and one
//! element stands for all that are alike.

use bytemuck::{Pod, Zeroable, must_cast};

use crate::{address::Address, frontend::FrontendKey, node_event::NodeEvent, reason::Reason};

/// A key of LAST_REFUSALS.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Pod, Zeroable)]
#[repr(C, align(8))]
pub struct RefusedPair {
    /// The client: at a socket its network namespace ([`Address::of_namespace`]), on the packet path the source address.
    pub client: Address,
    /// The address and port that it asked for, not those of a NodePort's entry.
    pub frontend: FrontendKey,
    /// The number of a [`Reason`], or of a [`NodeEvent`] by which a packet was lost.
    pub what: u32,
    /// Index into SERVICES, or [`RefusedPair::NO_SERVICE`]. It may stand for another Service by now.
    pub service: u32,
}

impl RefusedPair {
    /// In place of an index into SERVICES.
    pub const NO_SERVICE: u32 = u32::MAX;

    /// From what the programs give their function in five registers: both halves of the client's address, both of the
    /// frontend's, and [`RefusedPair::rest`].
    #[inline(always)]
    pub const fn from_words(client: [u64; 2], frontend: [u64; 2], rest: u64) -> Self {
        const PORT_AND_PROTOCOL: u64 = 0x00ff_ffff;
        let what = rest >> 24 & 0xff;
        must_cast([
            client[0],
            client[1],
            frontend[0],
            frontend[1],
            rest & PORT_AND_PROTOCOL,
            what | (rest >> 32) << 32,
        ])
    }

    /// The last of these words: from the lowest bit on the port, the protocol, the reason, and the Service.
    #[inline(always)]
    pub const fn rest(frontend: &FrontendKey, what: u32, service: u32) -> u64 {
        let (port, protocol) = (frontend.port.number as u64, frontend.protocol as u64);
        port | protocol << 16 | (what as u64 & 0xff) << 24 | (service as u64) << 32
    }

    /// The name of what happened, as in metrics.
    pub fn name(&self) -> &'static str {
        name_of(self.what)
    }
}

/// The name of a [`Reason`] or [`NodeEvent`] with this number.
pub fn name_of(what: u32) -> &'static str {
    let reason = Reason::ALL.into_iter().find(|reason| *reason as u32 == what).map(Reason::name);
    let event = NodeEvent::ALL.into_iter().find(|event| *event as u32 == what).map(NodeEvent::name);
    reason.or(event).unwrap_or("unknown")
}

/// A value of LAST_REFUSALS. The LRU may reuse an element while a program adds to it: then one refusal counts for another
/// pair.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Pod, Zeroable)]
#[repr(C, align(8))]
pub struct LastRefusal {
    /// When it happened first, as far as the element is there, in nanoseconds since boot (CLOCK_MONOTONIC).
    pub first: u64,
    /// When it happened last.
    pub last: u64,
    /// How often.
    pub count: u64,
}

const _: () = assert!(size_of::<RefusedPair>() == 48);
const _: () = assert!(size_of::<LastRefusal>() == 24);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::address::Port;

    #[test]
    fn a_pair_goes_through_registers() {
        let client = Address::from_v4([10, 244, 1, 5]);
        let frontend = FrontendKey::new(Address::from_v4([10, 96, 0, 10]), Port::new(53), 17);
        for (what, service) in
            [(Reason::UnknownPort as u32, RefusedPair::NO_SERVICE), (NodeEvent::WithoutRoute as u32, 7)]
        {
            let pair = RefusedPair { client, frontend, what, service };
            let rest = RefusedPair::rest(&frontend, what, service);
            let (client, address) = (must_cast(client.bytes), must_cast(frontend.address.bytes));
            assert_eq!(RefusedPair::from_words(client, address, rest), pair);
        }
    }

    #[test]
    fn what_happened_has_the_name_that_metrics_give_it() {
        let name = |what| RefusedPair { what, ..Zeroable::zeroed() }.name();
        assert_eq!(name(Reason::NoEndpoints as u32), "no-endpoints");
        assert_eq!(name(NodeEvent::WithoutRoute as u32), "packets-without-route");
        assert_eq!(name(0), "unknown");
    }
}
