//! NAMES: which Service port a service index stands for. No program reads it; people and a restarted agent do.

use bytemuck::{Pod, Zeroable};

/// A value of NAMES. Strings are padded with zeros; Kubernetes limits them to 63, 63 and 63 bytes
/// (port names of Services to 63 as DNS labels, those of pods to 15).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct ServiceName {
    /// `metadata.namespace`.
    pub namespace: [u8; 64],
    /// `metadata.name`.
    pub name: [u8; 64],
    /// `spec.ports[].name`; empty for an unnamed port.
    pub port: [u8; 64],
    /// IANA protocol number.
    pub protocol: u8,
    /// 4 or 6.
    pub family: u8,
    /// Zero.
    pub padding: [u8; 6],
}

const _: () = assert!(size_of::<ServiceName>() == 200);
