//! PEERS: elements whose socket is gone. The kernel runs no `sock_release` hook for its own sockets (subflows of MPTCP,
//! NFS), so these would keep their elements for ever.
//!
//! A living owner is held by a process, or is connected and in its network namespace's table. What is neither, and has
//! been an owner before the search began, is gone: cookies are never used again.

use std::{collections::HashSet, fs::File, ops::ControlFlow, path::Path};

use nix::sched::{CloneFlags, setns};
use proxy_common::{Peer, peer::PEERS};

use crate::dataplane::{
    Error, Tables,
    node::namespaces::Walk,
    programs::load::iterators::{HELD_PEERS, Iterators, TCP_PEERS},
};

/// So many elements in use are not worth a search.
pub(super) const FEW: usize = PEERS as usize / 8;

const BPF_F_LOCK: u64 = 4;

/// Frees them, if at least `least` elements are in use; how many there were.
///
/// # Errors
/// When a namespace cannot be searched that could be opened: then nothing is freed.
pub(super) fn sweep(pin_dir: &Path, least: usize) -> Result<usize, Error> {
    let mut peers = Tables::peers(pin_dir)?;
    let mut owners = Vec::new();
    for index in 0..PEERS {
        let owner = peers.get(&index, 0).map_err(Error::map("PEERS"))?.owner;
        if owner != 0 {
            owners.push((index, owner));
        }
    }
    if owners.len() < least {
        return Ok(0);
    }
    let living = living(pin_dir)?;
    owners.retain(|(_, owner)| !living.contains(owner));
    for (index, owner) in &owners {
        // Only its owner could have given it back meanwhile, and nobody else takes it before.
        if peers.get(index, 0).is_ok_and(|peer| peer.owner == *owner) {
            let free: Peer = bytemuck::Zeroable::zeroed();
            peers.set(*index, free, BPF_F_LOCK).map_err(Error::map("PEERS"))?;
        }
    }
    Ok(owners.len())
}

/// The cookies of the owners that live.
fn living(pin_dir: &Path) -> Result<HashSet<u64>, Error> {
    let home = Path::new("/proc/thread-self/ns/net");
    let own = File::open(home).map_err(Error::system("open", home))?;
    let mut iterators = Iterators::load(pin_dir, &[HELD_PEERS, TCP_PEERS])?;
    let mut living = HashSet::new();
    let mut failure = None;
    let walked = Walk::through(|namespace, path| {
        let entered = setns(namespace, CloneFlags::CLONE_NEWNET)
            .map_err(|errno| Error::system("setns", path)(errno.into()));
        match entered.and_then(|()| iterators.read::<u64>(TCP_PEERS)) {
            Ok(cookies) => living.extend(cookies),
            Err(error) => failure = Some(error),
        }
        ControlFlow::Continue(())
    });
    setns(&own, CloneFlags::CLONE_NEWNET).map_err(|errno| Error::system("setns", home)(errno.into()))?;
    if let Some(error) = failure {
        return Err(error);
    }
    // Namespaces that are closed to the agent do not matter: what a process holds there is found, and nobody asks the
    // kernel's own sockets for their peer's name.
    let _whole = walked?;
    living.extend(iterators.read::<u64>(HELD_PEERS)?);
    Ok(living)
}
