//! A link between two namespaces: a veth pair with its addresses. Permanent neighbour entries avoid ARP and neighbour
//! discovery.

use std::net::Ipv4Addr;

use anyhow::Result;
use sidestep_tests::namespace::Namespace;

/// One end of a wire.
#[derive(Clone, Copy)]
pub(crate) struct End<'a> {
    /// Where.
    pub(crate) namespace: &'a Namespace,
    /// The device's name.
    pub(crate) device: &'a str,
    /// Its addresses, in a network of 256.
    pub(crate) addresses: &'a [Ipv4Addr],
}

/// Joins two namespaces. `number` tells the wires of a topology apart.
pub(crate) fn join(number: u8, near: End<'_>, far: End<'_>) -> Result<()> {
    near.namespace.ip_batch(&format!(
        "link add {} address {} type veth peer name {} address {} netns {}\n",
        near.device,
        hardware(number, 1),
        far.device,
        hardware(number, 2),
        far.namespace.name()
    ))?;
    bring_up(near, far, &hardware(number, 2))?;
    bring_up(far, near, &hardware(number, 1))
}

fn bring_up(end: End<'_>, other: End<'_>, other_hardware: &str) -> Result<()> {
    let End { namespace, device, addresses } = end;
    let own = addresses.iter().map(|address| format!("addr add {address}/24 dev {device}\n"));
    let neighbours = other.addresses.iter().map(|address| {
        format!("neigh replace {address} lladdr {other_hardware} dev {device} nud permanent\n")
    });
    let up = std::iter::once(format!("link set {device} up\n"));
    namespace.ip_batch(&own.chain(up).chain(neighbours).collect::<String>())
}

/// The hardware address of an end.
fn hardware(number: u8, end: u8) -> String {
    format!("02:00:00:00:{number:02x}:{end:02x}")
}
