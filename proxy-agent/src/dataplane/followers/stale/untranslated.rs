//! Connected UDP sockets whose peer is a Service's own address: they were connected before our programs were attached, and
//! sends on them reach no hook. kube-proxy's rules translate them, and then its conntrack entries; without either they
//! would send to nobody. Connected again they get an endpoint, as new ones do.
//!
//! A search visits every network namespace and every process, so it is for a takeover, not for each change. Only sockets
//! of the cgroups that our programs serve are touched: others may be those of another node on this machine.

use std::{
    collections::HashSet,
    fs,
    fs::File,
    ops::ControlFlow,
    os::unix::fs::{DirEntryExt as _, MetadataExt as _},
    path::Path,
};

use nix::sched::{CloneFlags, setns};
use proxy_common::{AddressBits, FrontendKey, Protocol, Tables as _, Tuple};

use super::{holders, reconnect};
use crate::dataplane::{
    Error, Tables,
    node::{
        namespaces::Walk,
        netlink::{Diag, Found},
    },
};

/// What a search did.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(crate) struct Untranslated {
    /// How many sockets were connected again.
    pub(crate) connected: usize,
    /// How many could not be: no process that is visible here holds them.
    pub(crate) lost: usize,
}

impl Untranslated {
    /// Searches, and connects again all but those whose packets somebody else translates. The calling thread is back in
    /// its network namespace afterwards.
    pub(crate) fn connect_again(
        tables: &Tables,
        cgroup_root: &Path,
        is_translated: impl Fn(&Tuple) -> bool,
    ) -> Result<Self, Error> {
        let mut all = find(|found| asks_service(tables, found) && !is_translated(&found.tuple()))?;
        if !all.is_empty() {
            let served = cgroups(cgroup_root)?;
            all.retain(|found| found.cgroup.is_some_and(|cgroup| served.contains(&cgroup)));
        }
        let mut done = Self::default();
        if all.is_empty() {
            return Ok(done);
        }
        let mut failed = 0;
        let lost = holders::walk(all, |found, socket| {
            let (address, port) = found.peer();
            match reconnect::connect_again(socket, address, port) {
                Ok(_) => done.connected += 1,
                Err(error) => {
                    tracing::debug!(%error, %address, %port, "a UDP socket cannot be connected again");
                    failed += 1;
                }
            }
        });
        done.lost = failed + lost.len();
        Ok(done)
    }
}

/// Whether the peer is the address of a Service, or of a NodePort.
fn asks_service(tables: &Tables, found: &Found) -> bool {
    let (address, port) = found.peer();
    let is_there = |key| tables.frontend(&key).is_some();
    is_there(FrontendKey::new(address, port, Protocol::Udp as u8))
        || (tables.address(&address).has(AddressBits::NODE)
            && is_there(FrontendKey::node_port(&address, port, Protocol::Udp as u8)))
}

/// The inodes of a cgroup and of all below it.
fn cgroups(root: &Path) -> Result<HashSet<u64>, Error> {
    let metadata = fs::metadata(root).map_err(Error::system("stat", root))?;
    let mut found = HashSet::from([metadata.ino()]);
    let mut open = vec![root.to_owned()];
    while let Some(folder) = open.pop() {
        // It may be gone by now.
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                found.insert(entry.ino());
                open.push(entry.path());
            }
        }
    }
    Ok(found)
}

/// The connected UDP sockets of every namespace that are wanted.
fn find(is_wanted: impl Fn(&Found) -> bool) -> Result<Vec<Found>, Error> {
    let home = Path::new("/proc/thread-self/ns/net");
    let home_file = File::open(home).map_err(Error::system("open", home))?;
    let enter = |namespace: &File, path: &Path| {
        setns(namespace, CloneFlags::CLONE_NEWNET).map_err(|errno| Error::system("setns", path)(errno.into()))
    };
    let mut all = Vec::new();
    let walked = Walk::through(|namespace, path| {
        let listed = enter(namespace, path).and_then(|()| Diag::new()?.connected());
        match listed {
            Ok(listed) => all.extend(listed.into_iter().filter(&is_wanted)),
            // It may be gone by now.
            Err(error) => {
                tracing::debug!(%error, path = %path.display(), "cannot list a namespace's sockets");
            }
        }
        ControlFlow::Continue(())
    });
    enter(&home_file, home)?;
    walked?;
    Ok(all)
}
