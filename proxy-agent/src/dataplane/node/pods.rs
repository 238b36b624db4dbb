//! Pods as the node sees them: kubelet names the cgroups of a Pod by its uid, and container runtimes give it its name as
//! host name. Processes of others are visible in the node's process namespace alone (`hostPID`).

use std::{
    collections::{HashMap, HashSet},
    fs,
    net::{IpAddr, SocketAddr},
    ops::ControlFlow,
    path::{Path, PathBuf},
};

use nix::{ifaddrs::getifaddrs, sched::CloneFlags, unistd::gethostname};

use super::{
    namespaces::{Walk, numbered},
    netlink::Diag,
    system::{in_namespace, ip_of},
};
use crate::dataplane::Error;

/// A uid, or the digest that a static Pod has for one, has so many characters at least.
const SHORTEST: usize = 32;

/// The directories of all processes in `/proc`, each with what may be the uid of its Pod.
pub(crate) fn processes() -> impl Iterator<Item = (String, PathBuf)> {
    numbered(Path::new("/proc")).into_iter().flat_map(|process| {
        // It may have ended.
        let cgroups = fs::read_to_string(process.join("cgroup")).unwrap_or_default();
        uids(&cgroups).map(|uid| (uid, process.clone())).collect::<Vec<_>>()
    })
}

/// The network namespace of the Pod with this uid, if a process of it is visible here, else one that has its address.
///
/// Not every process in a Pod's cgroups is in its network namespace: some runtimes put helpers there, which are in the node's,
/// and a process may make namespaces of its own. Of several it is the one that has one of the Pod's addresses.
pub fn namespace_of_pod(uid: &str, addresses: &[IpAddr]) -> Option<PathBuf> {
    let of_processes = namespaces_where(|of| of == uid).remove(uid);
    match of_processes.and_then(|found| own_of(found, addresses)) {
        None => namespaces_by_address()
            .into_iter()
            .find(|(_, has)| has.iter().any(|address| addresses.contains(address)))
            .map(|(namespace, _)| namespace),
        found => found,
    }
}

/// The network namespaces that are visible here, but for this process's own, with the addresses of their devices: container
/// runtimes mount those of Pods, which may be without processes for a moment.
pub fn namespaces_by_address() -> Vec<(PathBuf, Vec<IpAddr>)> {
    let mut paths = Vec::new();
    // Those that cannot be opened are not visible.
    let _ = Walk::through(|_, path| {
        paths.push(path.to_owned());
        ControlFlow::Continue(())
    });
    // Its own comes first.
    paths.into_iter().skip(1).map(|path| (path.clone(), addresses_in(&path))).collect()
}

/// The network namespaces in which Pods have processes, beside this process's own, by uid.
pub fn namespaces_of_pods() -> HashMap<String, Vec<PathBuf>> {
    namespaces_where(|_| true)
}

fn namespaces_where(is_wanted: impl Fn(&str) -> bool) -> HashMap<String, Vec<PathBuf>> {
    let mut met: HashSet<PathBuf> = fs::read_link("/proc/thread-self/ns/net").into_iter().collect();
    let mut found: HashMap<String, Vec<PathBuf>> = HashMap::new();
    for (uid, process) in processes().filter(|(uid, _)| is_wanted(uid)) {
        let path = process.join("ns/net");
        if fs::read_link(&path).is_ok_and(|namespace| met.insert(namespace)) {
            found.entry(uid).or_default().push(path);
        }
    }
    found
}

/// The one of a Pod's namespaces that is its own, by its addresses.
pub fn own_of(mut found: Vec<PathBuf>, addresses: &[IpAddr]) -> Option<PathBuf> {
    if found.len() > 1 {
        let own =
            found.iter().position(|path| addresses_in(path).iter().any(|found| addresses.contains(found)));
        return Some(found.swap_remove(own.unwrap_or_default()));
    }
    found.pop()
}

/// The addresses of the devices in this network namespace, but for loopback; none if it cannot be entered.
pub fn addresses_in(namespace: &Path) -> Vec<IpAddr> {
    let there = in_namespace(namespace, CloneFlags::CLONE_NEWNET, || {
        let all = getifaddrs().into_iter().flatten().filter_map(|one| ip_of(&one));
        Ok(all.filter(|address| !address.is_loopback()).collect())
    });
    there.unwrap_or_default()
}

/// The host names of processes that have both host name and network namespace of their own, with the latter. Each
/// container of a Pod may have a host name by itself, which is the same.
pub fn namespaces_by_host_name() -> Vec<(String, PathBuf)> {
    let link = |process: &Path, kind: &str| fs::read_link(process.join("ns").join(kind)).ok();
    let own = Path::new("/proc/thread-self");
    let (own_name, own_network) = (link(own, "uts"), link(own, "net"));
    let (mut met, mut known) = (HashSet::new(), HashSet::new());
    let processes = numbered(Path::new("/proc")).into_iter().filter_map(|process| {
        let (name, network) = (link(&process, "uts")?, link(&process, "net")?);
        let is_own = own_name.as_ref() == Some(&name) || own_network.as_ref() == Some(&network);
        if is_own || !met.insert((name, network.clone())) {
            return None;
        }
        // Of the kernel: a file in the process's root could be anything.
        let name = in_namespace(&process.join("ns/uts"), CloneFlags::CLONE_NEWUTS, || Ok(gethostname().ok()));
        let name = name.ok()??.into_string().ok()?;
        known.insert((name.clone(), network)).then(|| (name, process.join("ns/net")))
    });
    processes.collect()
}

/// The addresses and ports at which TCP sockets listen in this network namespace.
pub fn listening_in(namespace: &Path) -> Result<Vec<SocketAddr>, Error> {
    in_namespace(namespace, CloneFlags::CLONE_NEWNET, || Diag::new()?.listening())
}

/// What may be uids of Pods in `/proc/PID/cgroup`: `…/pod<uid>/…`, or with systemd `…-pod<uid>.slice`, with underscores.
fn uids(cgroups: &str) -> impl Iterator<Item = String> {
    let parts = cgroups.lines().flat_map(|line| line.split('/'));
    parts.filter_map(|part| {
        let (before, uid) = part.rsplit_once("pod")?;
        let is_pod = (before.is_empty() || before.ends_with('-')) && uid.len() >= SHORTEST;
        is_pod.then(|| uid.trim_end_matches(".slice").replace('_', "-"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cgroup_names_its_pod() {
        let uid = "0a1b2c3d-0000-4000-8000-0123456789ab";
        let systemd = uid.replace('-', "_");
        for cgroups in [
            format!("0::/kubepods/burstable/pod{uid}/8f3e\n"),
            format!(
                "0::/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{systemd}.slice/cri-1.scope\n"
            ),
            format!("12:cpuset:/kubepods/pod{uid}/8f3e\n0::/\n"),
        ] {
            assert!(uids(&cgroups).any(|found| found == uid), "{cgroups}");
        }
        assert_eq!(uids("0::/user.slice/podman/kubepods\n").count(), 0);
    }
}
