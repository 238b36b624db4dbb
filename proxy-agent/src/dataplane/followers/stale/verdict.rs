//! Whether the endpoint of a translation is gone.
//!
//! An endpoint is gone if it neither serves nor may get new connections. An unready endpoint with
//! `publishNotReadyAddresses` may get them: a closed socket would come right back to it.

use proxy_common::{
    Address, EndpointState, FrontendKey, Port, Protocol, Scope, Service, Tables, Translation,
    select::{Anybody, Resolution, resolve},
};

/// Decides about one record.
///
/// The endpoint may live on under another id: its Service port was renamed, or the address that the client
/// asked for moved to another Service with the same pod behind it. `lives(service, address, port)` is asked
/// only then.
pub(super) fn is_stale(
    tables: &impl Tables,
    record: &Translation,
    lives: impl FnOnce(u32, &Address, Port) -> bool,
) -> bool {
    let state = tables.endpoint_state(record.endpoint);
    if state.is_some_and(|state| state.generation == record.generation && is_alive(state)) {
        return false;
    }
    let key = FrontendKey::new(record.frontend, record.frontend_port, Protocol::Udp as u8);
    match resolve(tables, &key, &Anybody) {
        Resolution::Service(frontend) => {
            !lives(frontend.service, &record.endpoint_address, record.endpoint_port)
        }
        Resolution::NotService | Resolution::UnknownPort => true,
    }
}

/// Whether an unserved record's Service has an endpoint now.
pub(super) fn has_endpoints(tables: &impl Tables, record: &Translation) -> bool {
    let key = FrontendKey::new(record.frontend, record.frontend_port, Protocol::Udp as u8);
    match resolve(tables, &key, &Anybody) {
        Resolution::Service(frontend) => tables
            .span(frontend.service, Service::set(frontend.kind(), Scope::Inside))
            .is_some_and(|span| span.count != 0),
        Resolution::NotService | Resolution::UnknownPort => false,
    }
}

/// Whether there is an endpoint with this state word.
pub(super) fn is_alive(state: EndpointState) -> bool {
    state.bits != 0
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};

    use proxy_common::{
        AddressBits, Affinity, AffinityKey, ClientAddresses, Endpoint, Found, Frontend, FrontendKind, Policy,
        Span, service::EndpointSet,
    };

    use super::*;

    /// One Service (index 5) at 10.96.0.53:53, and the state of endpoint 7.
    struct Fake {
        state: EndpointState,
        known: bool,
    }

    fn vip() -> Address {
        IpAddr::from(Ipv4Addr::new(10, 96, 0, 53)).into()
    }

    impl Tables for Fake {
        fn frontend(&self, key: &FrontendKey) -> Option<Found> {
            let found = *key == FrontendKey::new(vip(), Port::new(53), Protocol::Udp as u8);
            (self.known && found).then(|| Frontend::new(key, 5, FrontendKind::ClusterIp).into())
        }
        fn address(&self, _: &Address) -> AddressBits {
            AddressBits::NONE
        }
        fn span(&self, _: u32, _: EndpointSet) -> Option<Span> {
            None
        }
        fn policy(&self, _: u32) -> Option<Policy> {
            None
        }
        fn endpoint(&self, _: u32) -> Option<Endpoint> {
            None
        }
        fn endpoint_state(&self, id: u32) -> Option<EndpointState> {
            (id == 7).then_some(self.state)
        }
        fn affinity(&self, _: &AffinityKey) -> Option<Affinity> {
            None
        }
        fn remember(&self, _: &AffinityKey, _: &Affinity) {}
        fn refresh(&self, _: &AffinityKey, _: u64) {}
        fn admits(&self, _: u32, _: u16, _: &Address) -> bool {
            false
        }
        fn client(&self, _: u64) -> Option<ClientAddresses> {
            None
        }
    }

    fn stale(generation: u16, bits: u16, known: bool, lives: bool) -> bool {
        let record = Translation {
            frontend: vip(),
            frontend_port: Port::new(53),
            endpoint: 7,
            generation: 3,
            ..Translation::UNUSED
        };
        let tables = Fake { state: EndpointState { slot: 0, generation, bits }, known };
        is_stale(&tables, &record, |service, _, _| {
            assert_eq!(service, 5);
            lives
        })
    }

    /// ST-10: out of every set, but serving.
    #[test]
    fn an_endpoint_that_drains_is_not_gone() {
        assert!(!stale(3, EndpointState::SERVING, true, false));
    }

    #[test]
    fn an_endpoint_that_is_unready_and_used_all_the_same_is_not_gone() {
        assert!(!stale(3, EndpointState::usable(EndpointSet::Cluster), true, false));
    }

    /// ST-5.
    #[test]
    fn an_endpoint_without_bits_or_whose_id_is_anothers_is_gone() {
        assert!(stale(3, 0, true, false));
        assert!(stale(4, EndpointState::SERVING, true, false));
    }

    #[test]
    fn an_endpoint_that_lives_on_under_another_id_is_not_gone() {
        assert!(!stale(3, 0, true, true));
    }

    #[test]
    fn the_endpoints_of_a_service_that_went_are_gone() {
        assert!(stale(3, 0, false, true));
    }
}
