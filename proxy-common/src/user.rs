//! Marks every table type as plain old data for aya's typed maps.

use crate::{
    Address, AddressEntry, Affinity, AffinityKey, Asker, ClientAddresses, Datagrams, Endpoint, EndpointState,
    Event, FlowTags, FlowUses, FragmentKey, FragmentPorts, Frontend, FrontendKey, FrontendLine, Interface,
    LastRefusal, Listener, OverflowKey, Overflowed, Peer, PortOwners, Rate, Record, RefusedPair, Service,
    ServiceCounters, ServiceName, ServiceRefusals, SharedPorts, SourceRangeKey, Translation, Tuple,
};

/// Fails to compile for a type with padding or invalid bit patterns.
const fn is_plain<T: bytemuck::Pod>() {}

macro_rules! pod {
    ($($table_type:ty),+ $(,)?) => {
        $(const _: () = is_plain::<$table_type>();)+
        // SAFETY: each type derives `bytemuck::Pod`, which demands at least what `aya::Pod` does.
        $(unsafe impl aya::Pod for $table_type {})+
    };
}

pod!(
    Address,
    AddressEntry,
    Affinity,
    AffinityKey,
    Asker,
    ClientAddresses,
    Datagrams,
    Endpoint,
    EndpointState,
    Event,
    FlowTags,
    FlowUses,
    FragmentKey,
    FragmentPorts,
    Frontend,
    FrontendKey,
    FrontendLine,
    Interface,
    LastRefusal,
    Listener,
    OverflowKey,
    Overflowed,
    Peer,
    PortOwners,
    Rate,
    Record,
    RefusedPair,
    Service,
    ServiceCounters,
    ServiceName,
    ServiceRefusals,
    SharedPorts,
    SourceRangeKey,
    Translation,
    Tuple,
);
