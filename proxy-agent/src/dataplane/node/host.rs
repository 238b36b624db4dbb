//! Whether the cgroup and the BPF file system that this process sees are the node's, or a container's own.
//!
//! A container usually has a cgroup namespace of its own, in which *its* cgroup looks like the root: programs
//! attached there would serve that container alone. And a BPF file system mounted inside a container disappears with
//! it, and so does every pin. Both look right from within, so this module checks properties that a container cannot
//! fake. It caches nothing, since mounts change.

use std::{
    io,
    path::{Path, PathBuf},
};

use procfs::{
    FromRead as _,
    process::{MountInfo, MountInfos, MountOptFields, Process},
};

use crate::dataplane::Error;

/// Where a BPF file system belongs.
const BPFFS: &str = "/sys/fs/bpf";

/// The cgroup in which all of the node's processes are: where cgroup2 is mounted, if that mount is the node's.
///
/// In a container there may be two of them, its own and the node's (by hostPath); the node's is taken.
pub fn node_cgroup() -> Result<PathBuf, Error> {
    mounted_cgroup()?.ok_or_else(|| Error::Missing(NO_CGROUP.to_owned()))
}

/// The same; `None` while cgroup2 is not mounted at all.
pub fn mounted_cgroup() -> Result<Option<PathBuf>, Error> {
    let reader = Reader { container: in_container(), in_init_namespace: shares_cgroup_namespace_with_init() };
    // The machine's root cgroup has no events: it can be neither empty nor frozen (`cgroup_base_files`).
    choose_cgroup(&mounts("self")?, reader, |path| !path.join("cgroup.events").exists())
        .map_err(Error::Missing)
}

/// What to do where cgroup2 is not mounted.
pub const NO_CGROUP: &str = "cgroup2 is not mounted: mount it with `sidestep mount` (in a pod: by an init container), or \
                             boot with systemd.unified_cgroup_hierarchy=1";

/// Who reads mountinfo.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reader {
    /// Whether this process is in a container.
    pub(crate) container: bool,
    /// Whether it is known to be in the cgroup namespace of the node's first process.
    pub(crate) in_init_namespace: bool,
}

/// Picks the node's cgroup among the mounts; `is_machine_root` looks into a mounted cgroup.
pub(crate) fn choose_cgroup(
    mounts: &[MountInfo],
    reader: Reader,
    is_machine_root: impl Fn(&Path) -> bool,
) -> Result<Option<PathBuf>, String> {
    let cgroups = || mounts.iter().filter(|mount| mount.fs_type == "cgroup2");
    let Reader { container, in_init_namespace } = reader;
    let is_nodes = |mount: &MountInfo| match mount.root.as_str() {
        // What mountinfo shows is relative to the reader's cgroup namespace. Its root may be a container's.
        "/" => !container || in_init_namespace || is_machine_root(&mount.mount_point),
        // Only `..`: the mount shows more than the reader's namespace. So it was given to this container.
        root => root.split('/').skip(1).all(|part| part == ".."),
    };
    let Some(any) = cgroups().next() else { return Ok(None) };
    match cgroups().find(|mount| is_nodes(mount)) {
        Some(mount) => Ok(Some(mount.mount_point.clone())),
        None => Err(format!(
            "the cgroup at {} is this container's, not the node's: programs attached there would serve this \
             container alone. Mount the node's /sys/fs/cgroup by hostPath, with hostPID where the node is itself a \
             container, or name a cgroup with --cgroup-root",
            any.mount_point.display()
        )),
    }
}

/// Whether this process is in the cgroup namespace of the node's PID 1, of which `/` is all of the node. On hybrid cgroups
/// pods are; where the node is itself a container, nothing else tells its cgroup from a pod's.
fn shares_cgroup_namespace_with_init() -> bool {
    let namespace = |who: &str| std::fs::read_link(format!("/proc/{who}/ns/cgroup")).ok();
    let own = namespace("self");
    // The node's, and not the pod's own (`shareProcessNamespace`), whose runtime shows it only its own cgroup.
    own.is_some()
        && own == namespace("1")
        && !own_namespace_is_init()
        && mounts("1").is_ok_and(|mounts| shows_whole_namespace(&mounts))
}

fn shows_whole_namespace(mounts: &[MountInfo]) -> bool {
    mounts.iter().any(|mount| mount.fs_type == "cgroup2" && mount.root == "/")
}

/// Whether `path` is on a mounted BPF file system.
pub fn bpffs_mounted(path: &Path) -> Result<bool, Error> {
    Ok(bpffs_of(&mounts("self")?, path).is_some())
}

/// The directory in which the BPF file system of `path` is mounted: it stays when that is unmounted.
pub fn above_bpffs(path: &Path) -> Result<Option<PathBuf>, Error> {
    let mounts = mounts("self")?;
    Ok(bpffs_of(&mounts, path).and_then(|mount| mount.mount_point.parent()).map(Path::to_owned))
}

/// Refuses a BPF file system at `pin_dir` that is the container's own; one that is not mounted passes.
pub fn check_bpffs(pin_dir: &Path) -> Result<(), Error> {
    if !in_container() {
        return Ok(());
    }
    let shares_mounts = own_namespace_is_init();
    // With PID 1 out of sight (hidepid, no ptrace), propagation decides.
    let init = if shares_mounts { None } else { mounts("1").ok() };
    bpffs_is_nodes(&mounts("self")?, init.as_deref(), pin_dir).map_err(Error::Missing)
}

/// `init` are the mounts of a PID 1 that has others than this process.
pub(crate) fn bpffs_is_nodes(
    mounts: &[MountInfo],
    init: Option<&[MountInfo]>,
    pin_dir: &Path,
) -> Result<(), String> {
    let Some(bpffs) = bpffs_of(mounts, pin_dir) else { return Ok(()) };
    // PID 1 without a BPF file system is not the node's, or can say nothing: with `shareProcessNamespace` it is the
    // pod's own.
    let of_init = |init: &'_ [MountInfo]| -> Vec<_> {
        init.iter().filter(|mount| mount.fs_type == "bpf").map(|mount| mount.majmin.clone()).collect()
    };
    let devices = init.map(of_init).filter(|devices| !devices.is_empty());
    let nodes = match devices {
        // Each BPF file system is a device of its own.
        Some(devices) => devices.contains(&bpffs.majmin),
        // A container's own mounts are private; one that came from the node by hostPath, with
        // `mountPropagation: HostToContainer`, still follows its origin.
        None => bpffs
            .opt_fields
            .iter()
            .any(|field| matches!(field, MountOptFields::Master(_) | MountOptFields::Shared(_))),
    };
    if nodes {
        return Ok(());
    }
    Err(format!(
        "the BPF file system at {} belongs to this container: when the container ends, the pinned maps and \
         programs end with it. Mount the node's {BPFFS} by hostPath with `mountPropagation: HostToContainer`",
        bpffs.mount_point.display()
    ))
}

/// The BPF file system that `path` is on.
fn bpffs_of<'a>(mounts: &'a [MountInfo], path: &Path) -> Option<&'a MountInfo> {
    let around = mounts.iter().filter(|mount| path.starts_with(&mount.mount_point));
    // Of several mounts on one point the last is what one sees, and `max_by_key` returns the last.
    let closest = around.max_by_key(|mount| mount.mount_point.as_os_str().len())?;
    (closest.fs_type == "bpf").then_some(closest)
}

/// Makes sure that `pin_dir` is on a BPF file system, mounting one at `/sys/fs/bpf` where it is missing.
///
/// Not inside a container: a mount made there dies with the pod, and with it every pin.
pub fn ensure_bpffs(pin_dir: &Path) -> Result<(), Error> {
    if bpffs_mounted(pin_dir)? {
        return Ok(());
    }
    if !pin_dir.starts_with(BPFFS) {
        return Err(Error::Missing(format!(
            "{} is not on a BPF file system (mount -t bpf)",
            pin_dir.display()
        )));
    }
    if in_container() {
        return Err(Error::Missing(format!(
            "the node's BPF file system is not mounted into this container: add a hostPath volume for {BPFFS}, \
             and an init container with `sidestep mount` for nodes that do not mount it themselves"
        )));
    }
    mount("bpf", Path::new(BPFFS))
}

/// Mounts what the node lacks, cgroup2 at `cgroup` and the BPF file system, and returns what was mounted.
///
/// In an init container these mounts reach the node through `mountPropagation: Bidirectional`.
pub fn mount_missing(cgroup: &Path) -> Result<Vec<PathBuf>, Error> {
    let mounts = mounts("self")?;
    let mut made = Vec::new();
    if bpffs_of(&mounts, Path::new(BPFFS)).is_none() {
        mount("bpf", Path::new(BPFFS))?;
        made.push(PathBuf::from(BPFFS));
    }
    if !mounts.iter().any(|mount| mount.fs_type == "cgroup2") {
        std::fs::create_dir_all(cgroup).map_err(Error::system("mkdir", cgroup))?;
        mount("cgroup2", cgroup)?;
        made.push(cgroup.to_owned());
    }
    Ok(made)
}

fn mount(fs_type: &'static str, at: &Path) -> Result<(), Error> {
    nix::mount::mount(Some(fs_type), at, Some(fs_type), nix::mount::MsFlags::empty(), None::<&str>)
        .map_err(|errno| Error::system("mount", at)(errno.into()))?;
    tracing::info!(path = %at.display(), fs_type, "mounted");
    Ok(())
}

/// Whether this process is in a pod, or has other mounts than PID 1.
fn in_container() -> bool {
    std::env::var_os("KUBERNETES_SERVICE_HOST").is_some() || !own_namespace_is_init()
}

/// Whether this process sees the network namespaces of pods: through the node's processes (in a pod: `hostPID`),
/// or where container runtimes mount them (in a pod: the node's `/run/netns`).
pub fn sees_namespaces() -> bool {
    // In a pod without hostPID, PID 1 is one of the pod's own. Where its mounts cannot be read (no CAP_SYS_PTRACE),
    // neither can its namespaces.
    let sees_processes = !in_container() || !own_namespace_is_init();
    sees_processes || mounts("self").is_ok_and(|mounts| mounts.iter().any(shows_namespaces))
}

fn shows_namespaces(mount: &MountInfo) -> bool {
    mount.fs_type == "nsfs" || mount.mount_point.ends_with("netns")
}

/// Whether PID 1, as this process sees it, has the same mounts; where that cannot be read, it is taken for so.
fn own_namespace_is_init() -> bool {
    let own = std::fs::read_link("/proc/self/ns/mnt").ok();
    let init = std::fs::read_link("/proc/1/ns/mnt").ok();
    own.is_none() || init.is_none() || own == init
}

/// The mounts of the process that `/proc/<who>` stands for.
pub(crate) fn mounts(who: &str) -> Result<Vec<MountInfo>, Error> {
    let path = format!("/proc/{who}");
    Process::new_with_root(path.clone().into())
        .and_then(|process| process.mountinfo())
        .map(|mounts| mounts.0)
        .map_err(|error| Error::system("reading mountinfo of", path)(io::Error::other(error)))
}

/// The lines of a mountinfo.
pub(crate) fn parse(text: &[u8]) -> procfs::ProcResult<Vec<MountInfo>> {
    MountInfos::from_read(text).map(|mounts| mounts.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(lines: &[&str]) -> Vec<MountInfo> {
        lines.iter().map(|line| MountInfo::from_line(line).unwrap()).collect()
    }

    const NODE: &str = "31 23 0:28 / /sys/fs/cgroup rw shared:9 - cgroup2 cgroup2 rw,nsdelegate";
    const OWN: &str = "99 98 0:28 / /sys/fs/cgroup ro - cgroup2 cgroup rw,nsdelegate";
    const GIVEN: &str = "97 98 0:28 /../../../.. /host/sys/fs/cgroup rw master:9 - cgroup2 cgroup2 rw";
    const PIN_DIR: &str = "/sys/fs/bpf/sidestep";

    #[test]
    fn the_nodes_cgroup_is_told_from_a_containers() {
        let choose = |lines: &[&str], container, root| {
            choose_cgroup(&table(lines), Reader { container, in_init_namespace: false }, |_| root)
        };
        let path = |path: &str| Ok(Some(PathBuf::from(path)));
        assert_eq!(choose(&[NODE], false, true), path("/sys/fs/cgroup"));
        // A node that is itself a container (kind): its namespace's root is all there is of it.
        assert_eq!(choose(&[NODE], false, false), path("/sys/fs/cgroup"));
        // A pod: its own cgroup looks like a root.
        assert!(choose(&[OWN], true, false).unwrap_err().contains("this container's"));
        assert_eq!(choose(&[OWN, GIVEN], true, false), path("/host/sys/fs/cgroup"));
        // A pod in the node's cgroup namespace: what it has of its own shows where it is.
        let own = OWN.replace("0:28 /", "0:28 /kubepods/pod1");
        assert!(choose(&[&own], true, false).is_err());
        assert_eq!(choose(&[&own, NODE], true, true), path("/sys/fs/cgroup"));
        // A part of the node's, mounted into a pod.
        let part = GIVEN.replace("/../../../..", "/../../other");
        assert!(choose(&[&part], true, false).is_err());
        assert_eq!(choose(&[], false, false), Ok(None));
    }

    /// On hybrid cgroups a pod is in its node's cgroup namespace; where that node is a container, only PID 1 tells.
    #[test]
    fn the_cgroup_of_a_node_in_a_container_is_told_by_its_first_process() {
        let pod = Reader { container: true, in_init_namespace: true };
        let choose = |lines: &[&str]| choose_cgroup(&table(lines), pod, |_| false);
        let own = OWN.replace("0:28 /", "0:28 /kubepods/pod1");
        assert_eq!(choose(&[&own, NODE]), Ok(Some("/sys/fs/cgroup".into())));
        assert!(choose(&[&own]).is_err());
        // PID 1 is the pod's own: its runtime mounts nothing but the container's cgroup for it.
        assert!(!shows_whole_namespace(&table(&[&own])));
        assert!(shows_whole_namespace(&table(&[NODE])));
    }

    #[test]
    fn where_namespaces_are_mounted_they_are_seen() {
        for (line, seen) in [
            ("50 40 0:24 /netns /host/run/netns rw master:5 - tmpfs tmpfs rw", true),
            ("51 50 0:4 net:[4026532281] /host/run/netns/cni-1 rw master:6 - nsfs nsfs rw", true),
            (NODE, false),
        ] {
            assert_eq!(table(&[line]).iter().any(shows_namespaces), seen, "{line}");
        }
    }

    #[test]
    fn a_containers_own_bpffs_is_told_from_the_nodes() {
        let check = |lines: &[&str], init: Option<&[MountInfo]>| {
            bpffs_is_nodes(&table(lines), init, Path::new(PIN_DIR))
        };
        let line =
            |device: &str, fields: &str| format!("42 23 {device} / /sys/fs/bpf rw{fields} - bpf bpf rw");
        let (private, slave) = (line("0:99", ""), line("0:39", " master:12"));
        // PID 1 in sight: devices decide.
        let init = table(&[&line("0:39", " shared:12")]);
        assert_eq!(check(&[&slave], Some(&init)), Ok(()));
        assert!(check(&[&private], Some(&init)).unwrap_err().contains("belongs to this container"));
        // PID 1 is one of the pod's (`shareProcessNamespace`), which mounts no BPF file system: propagation decides.
        let pause = table(&["60 59 0:77 / / rw - overlay overlay rw"]);
        assert_eq!(check(&[&slave], Some(&pause)), Ok(()));
        assert!(check(&[&private], Some(&pause)).is_err());
        // PID 1 is the container's: propagation decides.
        assert_eq!(check(&[&slave], None), Ok(()));
        assert!(check(&[&private], None).is_err());
        // What covers the node's is what counts.
        assert!(check(&[&slave, &private], None).is_err());
        // Nothing mounted is for `ensure_bpffs` to tell.
        assert_eq!(check(&["23 1 0:21 / /sys rw - sysfs sysfs rw"], None), Ok(()));
    }
}
