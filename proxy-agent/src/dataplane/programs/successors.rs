//! Two sets of programs while connections move from the tables of one to those of the other: which hands packets
//! on (SUCCESSORS), and which source ports either draws (PORT_SHARE).

use aya::{
    Ebpf,
    maps::{Array, Map, ProgramArray},
};
use proxy_common::{PacketHook, connection::PortShare};

use crate::dataplane::Error;

const SUCCESSORS: &str = "SUCCESSORS";
const PORT_SHARE: &str = "PORT_SHARE";

/// The packet programs and their places. Those that answers meet come first: once a connection begins in the other
/// tables, every program finds it there.
const PLACES: [(&str, u32); 5] = [
    ("egress", PacketHook::Egress.place(true)),
    ("egress_l3", PacketHook::Egress.place(false)),
    ("egress_pod", PacketHook::TO_POD),
    ("ingress_l3", PacketHook::Ingress.place(false)),
    ("ingress", PacketHook::Ingress.place(true)),
];

/// Lets the programs of `from` give packets without a record to those of `to`, so that connections begin in the tables of
/// these from now on. That ends with `from`.
///
/// # Errors
/// When the kernel takes a program for none of the kind.
pub fn hand_on(from: &mut Ebpf, to: &Ebpf) -> Result<(), Error> {
    let mut successors = ProgramArray::try_from(own(from, SUCCESSORS)?).map_err(Error::map(SUCCESSORS))?;
    for (name, place) in PLACES {
        if let Some(Ok(program)) = to.program(name).map(aya::programs::Program::fd) {
            successors.set(place, program, 0).map_err(Error::map(SUCCESSORS))?;
        }
    }
    Ok(())
}

/// Lets these programs draw this share of the source ports from now on. Those that are running may still draw others.
///
/// # Errors
/// When the kernel refuses the system call.
pub fn share_ports(programs: &mut Ebpf, share: PortShare) -> Result<(), Error> {
    let mut shares = Array::<_, u32>::try_from(own(programs, PORT_SHARE)?).map_err(Error::map(PORT_SHARE))?;
    shares.set(0, share as u32, 0).map_err(Error::map(PORT_SHARE))
}

/// A map that these programs have for themselves.
fn own<'a>(programs: &'a mut Ebpf, name: &str) -> Result<&'a mut Map, Error> {
    programs.map_mut(name).ok_or_else(|| Error::Missing(format!("the object holds no map {name}")))
}
