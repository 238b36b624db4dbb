//! Events: what the programs do, as `sidestep monitor` sees it. Nothing is told while nobody listens.

use bytemuck::{Pod, Zeroable};

use crate::address::{Address, Port};

macro_rules! kinds {
    ($($number:literal $kind:ident $name:literal $explanation:literal;)+) => {
        /// What happened.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
        #[repr(u32)]
        pub enum Happening {
            $(#[doc = concat!("`", $name, "`: ", $explanation, ".")] $kind = $number,)+
        }

        impl Happening {
            /// How many there are.
            const COUNT: usize = [$($number),+].len();

            /// All of them.
            pub const ALL: [Self; Self::COUNT] = [$(Self::$kind),+];

            /// From the number in an [`Event`].
            #[inline(always)]
            pub const fn from_number(number: u32) -> Option<Self> {
                match number {
                    $($number => Some(Self::$kind),)+
                    _ => None,
                }
            }

            /// What it means, for people.
            pub const fn explanation(self) -> &'static str {
                match self {
                    $(Self::$kind => $explanation,)+
                }
            }

            /// The name that the command uses.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$kind => $name,)+
                }
            }
        }
    };
}

kinds! {
    0 Chosen "chosen" "a socket gets an endpoint: in connect, or for its first datagram to a Service";
    1 Refused "refused" "a client is refused, or a packet of it is lost; or its endpoint resets what has just begun";
    2 Began "began" "a connection or flow of packets, from outside or a pod, gets an endpoint";
    3 Confirmed "confirmed" "its client has answered the endpoint's answer: it is established";
    4 Ended "ended" "it ends by FIN from both sides";
    5 Reset "reset" "it ends by a reset, of the client or the endpoint";
    6 Evicted "evicted" "it was not confirmed, and another one took its record within half a minute of its last packet";
}

/// One event.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Pod, Zeroable)]
#[repr(C, align(8))]
pub struct Event {
    /// When, in nanoseconds since boot (CLOCK_MONOTONIC).
    pub time: u64,
    /// The client: at a socket its network namespace ([`Address::of_namespace`]), on the packet path its address.
    pub client: Address,
    /// The address that the client asked for.
    pub frontend: Address,
    /// The endpoint's address; zero of what got none.
    pub endpoint: Address,
    /// Index into SERVICES, or [`RefusedPair::NO_SERVICE`](crate::RefusedPair::NO_SERVICE).
    pub service: u32,
    /// The process that called, in the initial process namespace; 0 of a packet, and where the kernel does not tell.
    pub process: u32,
    /// The client's port; 0 at a socket, which may not have one yet.
    pub client_port: Port,
    /// The port that the client asked for.
    pub frontend_port: Port,
    /// The endpoint's port.
    pub endpoint_port: Port,
    /// IANA protocol number.
    pub protocol: u8,
    /// The number of a [`Happening`].
    pub happening: u8,
    /// Of a refusal, the number of a [`crate::Reason`] or [`crate::NodeEvent`]; of a reset, the side:
    /// [`crate::connection::Seen::BY_CLIENT`] or one of the values after it.
    pub what: u32,
    /// Zero.
    pub padding: u32,
    /// The name of the thread that called, as the kernel keeps it.
    pub thread: [u8; 16],
}

impl Event {
    /// Sets address, port and protocol that the client asked for; `rest` is as of a [`RefusedPair`](crate::RefusedPair).
    #[inline(always)]
    #[expect(clippy::cast_possible_truncation, reason = "parts of a word")]
    pub const fn set_frontend(&mut self, address: Address, rest: u64) {
        self.frontend = address;
        self.frontend_port = Port::new(rest as u16);
        self.protocol = (rest >> 16) as u8;
    }
}

/// Somebody who listens, and for what: an element of LISTENERS.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Pod, Zeroable)]
#[repr(C, align(8))]
pub struct Listener {
    /// Until when, in nanoseconds since boot (CLOCK_MONOTONIC), unless it says more before; 0 where there is none. So one that
    /// dies is soon not there any more.
    pub until: u64,
    /// What a client is known by, as in [`Event::client`]; zero for nothing.
    pub clients: [Address; 3],
    /// A bit for each wanted [`Happening`].
    pub happenings: u32,
    /// A bit for each wanted reason of a refusal, by its number.
    pub reasons: u32,
    /// Of how many events one is wanted, at random: 0 or 1 for all.
    pub sample: u32,
    /// 1 if all clients are wanted.
    pub anybody: u32,
    /// A bit for each wanted Service: that of its index modulo their number. Those that share a bit are told, too.
    pub services: [u64; Listener::SERVICE_WORDS],
    /// Events that it wanted.
    pub heard: u64,
    /// Those of them for which its buffer had no room.
    pub dropped: u64,
}

impl Listener {
    /// Words of [`Listener::services`].
    pub const SERVICE_WORDS: usize = 16;

    /// One who wants everything.
    pub const EVERYTHING: Self = Self {
        until: 0,
        clients: [Address::ANY_V6; 3],
        happenings: u32::MAX,
        reasons: u32::MAX,
        sample: 1,
        anybody: 1,
        services: [u64::MAX; Self::SERVICE_WORDS],
        heard: 0,
        dropped: 0,
    };

    /// Which word of [`Listener::services`] a Service has a bit in, and the bit.
    #[inline(always)]
    pub const fn service_bit(service: u32) -> (usize, u64) {
        ((service >> 6) as usize % Self::SERVICE_WORDS, 1 << (service & 63))
    }

    /// Whether it wants an event of this kind, Service and client. `what` is the reason of a refusal.
    #[inline(always)]
    pub const fn wants(&self, happening: Happening, what: u32, service: u32, client: &Address) -> bool {
        let (word, bit) = Self::service_bit(service);
        if self.happenings >> (happening as u32) & 1 == 0 || self.services[word] & bit == 0 {
            return false;
        }
        if happening as u32 == Happening::Refused as u32 && self.reasons >> (what & 31) & 1 == 0 {
            return false;
        }
        let [a, b, c] = &self.clients;
        self.anybody != 0 || client.is(a) || client.is(b) || client.is(c)
    }
}

/// How many may listen at the same time.
pub const LISTENERS: u32 = 4;

const _: () = assert!(size_of::<Event>() == 96);
const _: () = assert!(size_of::<Listener>() == 216);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{last_refusals::RefusedPair, reason::Reason};

    const SOCKET: Address = Address::of_namespace(7);
    const PACKET: Address = Address::from_v4([10, 244, 1, 5]);

    #[test]
    fn who_asks_for_nothing_in_particular_hears_everything() {
        for happening in Happening::ALL {
            for client in [SOCKET, PACKET] {
                assert!(Listener::EVERYTHING.wants(happening, 0, RefusedPair::NO_SERVICE, &client));
            }
        }
    }

    #[test]
    fn a_client_is_known_by_its_namespace_and_by_its_addresses() {
        let wants = |clients: &[Address], client| {
            let mut listener = Listener { anybody: 0, ..Listener::EVERYTHING };
            listener.clients[..clients.len()].copy_from_slice(clients);
            listener.wants(Happening::Chosen, 0, 0, &client)
        };
        let (other_socket, other_packet) = (Address::of_namespace(8), Address::from_v4([10, 244, 1, 6]));
        assert!(wants(&[SOCKET], SOCKET) && !wants(&[SOCKET], other_socket) && !wants(&[SOCKET], PACKET));
        assert!(wants(&[PACKET], PACKET) && !wants(&[PACKET], other_packet) && !wants(&[PACKET], SOCKET));
        let pod = [SOCKET, other_packet, PACKET];
        assert!(wants(&pod, PACKET) && wants(&pod, SOCKET) && !wants(&pod, other_socket));
    }

    #[test]
    fn kinds_reasons_and_services_are_chosen_by_bits() {
        let mut listener = Listener { happenings: 1 << Happening::Refused as u32, ..Listener::EVERYTHING };
        assert!(!listener.wants(Happening::Chosen, 0, 0, &SOCKET));
        listener.reasons = 1 << Reason::NoEndpoints as u32;
        let refused = |listener: &Listener, reason: Reason, service| {
            listener.wants(Happening::Refused, reason as u32, service, &SOCKET)
        };
        assert!(refused(&listener, Reason::NoEndpoints, 0) && !refused(&listener, Reason::UnknownPort, 0));
        let (word, bit) = Listener::service_bit(1_500);
        assert_eq!((word, bit), (7, 1 << 28));
        listener.services = [0; Listener::SERVICE_WORDS];
        listener.services[word] = bit;
        assert!(refused(&listener, Reason::NoEndpoints, 1_500));
        assert!(!refused(&listener, Reason::NoEndpoints, 1_501));
    }
}
