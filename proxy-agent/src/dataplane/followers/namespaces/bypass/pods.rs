//! The network namespaces of Pods: kubelet names the cgroups of a Pod by its uid.

use std::{collections::HashMap, fs, os::unix::fs::MetadataExt as _, path::Path};

use proxy_common::SocketWish;

use crate::{dataplane::node::namespaces::numbered, plan::PodWishes};

/// A uid, or the digest that a static Pod has for one, has so many characters at least.
const SHORTEST: usize = 32;

/// What Pods say, by the inode of their network namespace. One without a process that is visible here is not among them.
pub(super) fn namespaces(pods: &PodWishes) -> HashMap<u64, SocketWish> {
    if pods.is_empty() {
        return HashMap::new();
    }
    let wish = |process: &Path| {
        // It may have ended.
        let cgroups = fs::read_to_string(process.join("cgroup")).ok()?;
        let wish = uids(&cgroups).find_map(|uid| pods.get(uid.as_str()))?;
        Some((fs::metadata(process.join("ns/net")).ok()?.ino(), *wish))
    };
    numbered(Path::new("/proc")).iter().filter_map(|process| wish(process)).collect()
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
