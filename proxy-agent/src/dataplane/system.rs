//! What the dataplane needs from the machine: cgroup2, bpffs, the node's network namespace, helpers.

use std::{
    io,
    os::fd::AsRawFd,
    path::{Path, PathBuf},
};

use aya::{
    programs::ProgramType,
    sys::{BpfHelper, is_helper_supported},
};
use procfs::process::Process;

use super::Error;

/// Where cgroup2 is mounted, and how much of the hierarchy the mount shows.
#[derive(Clone, Debug)]
pub struct Cgroup2 {
    /// The mount point.
    pub path: PathBuf,
    /// The cgroup that the mount shows as its root; `/` on a node.
    pub root: String,
}

/// Finds cgroup2 in `/proc/self/mountinfo`: `/sys/fs/cgroup` on most machines, below it on hybrid ones.
pub fn cgroup2_mount() -> Result<Cgroup2, Error> {
    let mounts = mounts()?;
    mounts
        .into_iter()
        .find(|mount| mount.fs_type == "cgroup2")
        .map(|mount| Cgroup2 { path: mount.mount_point, root: mount.root })
        .ok_or_else(|| {
            Error::Missing(
                "cgroup2 is not mounted: mount it with `mount -t cgroup2 none /sys/fs/cgroup/unified`, \
                 or boot with systemd.unified_cgroup_hierarchy=1"
                    .to_owned(),
            )
        })
}

/// Whether `path` is on a mounted BPF file system.
pub fn bpffs_mounted(path: &Path) -> Result<bool, Error> {
    let mounts = mounts()?;
    let longest = mounts
        .iter()
        .filter(|mount| path.starts_with(&mount.mount_point))
        .max_by_key(|mount| mount.mount_point.as_os_str().len());
    Ok(longest.is_some_and(|mount| mount.fs_type == "bpf"))
}

/// Makes sure that `pin_dir` is on a BPF file system, mounting one at `/sys/fs/bpf` where it is missing.
///
/// Not inside a container: a mount made there dies with the pod, and with it every pin.
pub fn ensure_bpffs(pin_dir: &Path) -> Result<(), Error> {
    let standard = Path::new("/sys/fs/bpf");
    if bpffs_mounted(pin_dir)? {
        return Ok(());
    }
    if !pin_dir.starts_with(standard) {
        return Err(Error::Missing(format!(
            "{} is not on a BPF file system (mount -t bpf)",
            pin_dir.display()
        )));
    }
    if in_container() {
        return Err(Error::Missing(
            "the node's BPF file system is not mounted into this container: \
             add a hostPath volume for /sys/fs/bpf"
                .to_owned(),
        ));
    }
    nix::mount::mount(Some("bpf"), standard, Some("bpf"), nix::mount::MsFlags::empty(), None::<&str>)
        .map_err(|errno| Error::system("mount -t bpf", standard)(errno.into()))?;
    tracing::info!(path = %standard.display(), "mounted the BPF file system");
    Ok(())
}

/// Whether this process lives in another mount namespace than PID 1, or PID 1 is not the machine's.
fn in_container() -> bool {
    let own = std::fs::read_link("/proc/self/ns/mnt").ok();
    let init = std::fs::read_link("/proc/1/ns/mnt").ok();
    std::env::var_os("KUBERNETES_SERVICE_HOST").is_some() || (own.is_some() && init.is_some() && own != init)
}

pub(super) fn mounts() -> Result<Vec<procfs::process::MountInfo>, Error> {
    Process::myself().and_then(|process| process.mountinfo()).map(|mounts| mounts.0).map_err(|error| {
        Error::System {
            call: "reading",
            path: "/proc/self/mountinfo".to_owned(),
            source: io::Error::other(error),
        }
    })
}

/// The cookie of this process's network namespace (`SO_NETNS_COOKIE`, 5.14); 0 where the kernel has none.
pub fn netns_cookie() -> Result<u64, Error> {
    let socket = std::net::UdpSocket::bind(("127.0.0.1", 0))
        .or_else(|_| std::net::UdpSocket::bind(("::1", 0)))
        .map_err(Error::system("bind", "loopback"))?;
    netns_cookie_of_socket(&socket)
}

/// The cookie of the network namespace that `socket` was made in; 0 where the kernel does not tell (5.14).
pub(super) fn netns_cookie_of_socket(socket: &impl AsRawFd) -> Result<u64, Error> {
    let mut cookie = 0_u64;
    let mut length = libc::socklen_t::try_from(size_of::<u64>()).unwrap_or_default();
    // SAFETY: the option writes at most `length` bytes to `cookie`, which outlives the call.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_NETNS_COOKIE,
            (&raw mut cookie).cast(),
            &raw mut length,
        )
    };
    if result == 0 {
        return Ok(cookie);
    }
    match io::Error::last_os_error() {
        error if error.raw_os_error() == Some(libc::ENOPROTOOPT) => Ok(0),
        error => Err(Error::system("getsockopt(SO_NETNS_COOKIE)", "socket")(error)),
    }
}

/// Whether the kernel lets a connect hook name the error that the caller gets (5.18).
pub fn has_set_retval() -> bool {
    is_helper_supported(ProgramType::CgroupSockAddr, BpfHelper::BPF_FUNC_set_retval).unwrap_or(false)
}

/// The cookie of the network namespace at `path`, such as `/proc/1/ns/net`.
pub fn netns_cookie_of(path: &Path) -> Result<u64, Error> {
    let namespace = std::fs::File::open(path).map_err(Error::system("open", path))?;
    // A thread of its own enters the namespace, and ends there.
    std::thread::scope(|scope| {
        let inside = scope.spawn(|| {
            nix::sched::setns(&namespace, nix::sched::CloneFlags::CLONE_NEWNET)
                .map_err(|errno| Error::system("setns", path)(errno.into()))?;
            netns_cookie()
        });
        inside
            .join()
            .unwrap_or_else(|_| Err(Error::Missing(format!("looking into {} failed", path.display()))))
    })
}
