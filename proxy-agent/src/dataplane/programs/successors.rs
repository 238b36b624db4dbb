//! Programs that hand packets on: SUCCESSORS, while connections move to bigger tables.

use aya::{Ebpf, maps::ProgramArray};
use proxy_common::PacketHook;

use crate::dataplane::Error;

const NAME: &str = "SUCCESSORS";

/// The packet programs and their places. Those that answers meet come first: once a connection begins in the other
/// tables, every program finds it there.
const PLACES: [(&str, u32); 4] = [
    ("egress", PacketHook::Egress.place(true)),
    ("egress_l3", PacketHook::Egress.place(false)),
    ("ingress_l3", PacketHook::Ingress.place(false)),
    ("ingress", PacketHook::Ingress.place(true)),
];

/// Lets the programs of `from` give packets without a record to those of `to`, so that connections begin in the tables of
/// these from now on. That ends with `from`.
///
/// # Errors
/// When the kernel takes a program for none of the kind.
pub fn hand_on(from: &mut Ebpf, to: &Ebpf) -> Result<(), Error> {
    let map = from.map_mut(NAME).ok_or_else(|| Error::Missing(format!("the object holds no map {NAME}")))?;
    let mut successors = ProgramArray::try_from(map).map_err(Error::map(NAME))?;
    for (name, place) in PLACES {
        if let Some(Ok(program)) = to.program(name).map(aya::programs::Program::fd) {
            successors.set(place, program, 0).map_err(Error::map(NAME))?;
        }
    }
    Ok(())
}
