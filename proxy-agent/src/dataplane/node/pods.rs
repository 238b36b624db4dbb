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

/// The network namespace of the Pod with this uid, as in [`PodNamespaces::of`].
pub fn namespace_of_pod(uid: &str, addresses: &[IpAddr]) -> Option<PathBuf> {
    PodNamespaces::look(|of| of == uid).of(uid, addresses)
}

/// The network namespaces of Pods as they are at a moment, beside this process's own.
#[derive(Debug)]
pub struct PodNamespaces {
    /// Those in which their processes are, by uid.
    of_processes: HashMap<String, Vec<PathBuf>>,
    /// All that are visible here, with the addresses of their devices; read once they are needed.
    all: Option<Vec<(PathBuf, Vec<IpAddr>)>>,
}

impl PodNamespaces {
    /// Looks for the processes of those whose uid is wanted.
    pub fn look(is_wanted: impl Fn(&str) -> bool) -> Self {
        let mut met: HashSet<PathBuf> = fs::read_link("/proc/thread-self/ns/net").into_iter().collect();
        let mut of_processes: HashMap<String, Vec<PathBuf>> = HashMap::new();
        for (uid, process) in processes().filter(|(uid, _)| is_wanted(uid)) {
            let path = process.join("ns/net");
            if fs::read_link(&path).is_ok_and(|namespace| met.insert(namespace)) {
                of_processes.entry(uid).or_default().push(path);
            }
        }
        Self { of_processes, all: None }
    }

    /// That of the Pod with this uid and these addresses, if a process of it is visible here; else one that has its address,
    /// as container runtimes mount those of Pods, which may be without processes for a moment.
    ///
    /// Not every process in a Pod's cgroups is in its network namespace: some runtimes put helpers there, which are in the node's,
    /// and a process may make namespaces of its own. Of several it is the one that has one of the Pod's addresses.
    pub fn of(&mut self, uid: &str, addresses: &[IpAddr]) -> Option<PathBuf> {
        let is_its = |has: &[IpAddr]| has.iter().any(|address| addresses.contains(address));
        match self.of_processes.remove(uid).unwrap_or_default().as_slice() {
            [] => {
                let mut all = self.all.get_or_insert_with(visible).iter();
                all.find(|(_, has)| is_its(has)).map(|(path, _)| path.clone())
            }
            [one] => Some(one.clone()),
            several => several.iter().find(|path| is_its(&addresses_in(path))).or(several.first()).cloned(),
        }
    }
}

/// The network namespaces that are visible here, but for this process's own, with the addresses of their devices.
fn visible() -> Vec<(PathBuf, Vec<IpAddr>)> {
    let mut paths = Vec::new();
    // Those that cannot be opened are not visible.
    let _ = Walk::through(|_, path| {
        paths.push(path.to_owned());
        ControlFlow::Continue(())
    });
    // Its own comes first.
    paths.into_iter().skip(1).map(|path| (path.clone(), addresses_in(&path))).collect()
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
