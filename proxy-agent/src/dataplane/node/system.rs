//! The kernel's capabilities: network namespace cookies, helpers.

use std::{fs, io, net::IpAddr, os::fd::AsRawFd, path::Path, sync::LazyLock};

use aya::{
    programs::ProgramType,
    sys::{BpfHelper, is_helper_supported},
    util::KernelVersion,
};
use nix::{
    ifaddrs::InterfaceAddress,
    sched::{CloneFlags, setns},
};

use crate::dataplane::Error;

/// The cookie of this process's network namespace (`SO_NETNS_COOKIE`, 5.14); 0 where the kernel has none.
pub fn netns_cookie() -> Result<u64, Error> {
    let socket = std::net::UdpSocket::bind(("127.0.0.1", 0))
        .or_else(|_| std::net::UdpSocket::bind(("::1", 0)))
        .map_err(Error::system("bind", "loopback"))?;
    netns_cookie_of_socket(&socket)
}

/// The cookie of the network namespace that `socket` was made in; 0 if the kernel has no cookies (before 5.14).
///
/// By hand, for socket2 and rustix have no call for this option.
pub(crate) fn netns_cookie_of_socket(socket: &impl AsRawFd) -> Result<u64, Error> {
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

/// Whether the kernel tells the cookie of a network namespace (5.14).
pub(crate) fn has_netns_cookies() -> bool {
    netns_cookie().is_ok_and(|cookie| cookie != 0)
}

/// Why clients cannot be identified here, so that restricted LoadBalancer IPs cannot be served (ST-8), if so.
pub fn cannot_restrict() -> Result<Option<&'static str>, Error> {
    Ok(if netns_cookie()? == 0 {
        Some("this kernel has no network namespace cookies; upgrade it to 5.14 or later")
    } else if !super::host::sees_namespaces() {
        Some(
            "the agent cannot see the network namespaces of pods; set hostPID on its pod, or mount the node's \
             /run/netns",
        )
    } else {
        None
    })
}

/// Seconds of the clock that the kernel programs use, since boot (CLOCK_MONOTONIC).
pub fn uptime() -> u32 {
    nix::time::clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC)
        .map_or(0, |time| u32::try_from(time.tv_sec()).unwrap_or(u32::MAX))
}

/// Nanoseconds of the same clock.
pub fn monotonic_nanoseconds() -> u64 {
    nix::time::clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC)
        .map_or(0, |time| u64::try_from(std::time::Duration::from(time).as_nanos()).unwrap_or(u64::MAX))
}

/// Whether the kernel lets a connect program choose the caller's error (5.18).
pub fn has_set_retval() -> bool {
    is_helper_supported(ProgramType::CgroupSockAddr, BpfHelper::BPF_FUNC_set_retval).unwrap_or(false)
}

/// Whether socket programs may ask which process calls.
pub(crate) fn has_caller() -> bool {
    is_helper_supported(ProgramType::CgroupSockAddr, BpfHelper::BPF_FUNC_get_current_pid_tgid)
        .unwrap_or(false)
}

/// Whether the FIB lookup returns a source address: `BPF_FIB_LOOKUP_SRC` (6.7, dab4e1f06cab), by the kernel's version,
/// as only a packet program could probe it.
pub fn has_fib_source() -> bool {
    KernelVersion::current().is_ok_and(|version| version >= KernelVersion::new(6, 7, 0))
}

/// Whether the socket programs can ask for SO_REUSEPORT: `bpf_getsockopt` knows it since it shares its code with
/// getsockopt(2) (6.1, 65ddc82d3b96).
pub(crate) fn has_reuseport_option() -> bool {
    KernelVersion::current().is_ok_and(|version| version >= KernelVersion::new(6, 1, 0))
}

/// Whether a program that calls functions may be followed by another one (`bpf_tail_call`): with the JIT compiler of
/// x86-64 (5.10, ebf7d1f508a7), with that of arm64 since 6.0 (d4609a5d8c70).
pub(crate) fn has_tail_calls() -> bool {
    static KNOWN: LazyLock<bool> = LazyLock::new(|| {
        let is_new_enough = match std::env::consts::ARCH {
            "x86_64" => true,
            "aarch64" => KernelVersion::current().is_ok_and(|version| version >= KernelVersion::new(6, 0, 0)),
            _ => false,
        };
        // Only the initial network namespace shows it.
        let jit = fs::read_to_string("/proc/sys/net/core/bpf_jit_enable");
        is_new_enough && jit.map_or(true, |enabled| enabled.trim() != "0")
    });
    *KNOWN
}

/// The cookie of the network namespace at `path`, such as `/proc/1/ns/net`.
pub fn netns_cookie_of(path: &Path) -> Result<u64, Error> {
    in_namespace(path, CloneFlags::CLONE_NEWNET, netns_cookie)
}

/// What `work` does in the namespace at `path`, which is of this kind; threads that it begins are in it, too.
pub fn in_namespace<T: Send>(
    path: &Path,
    kind: CloneFlags,
    work: impl FnOnce() -> Result<T, Error> + Send,
) -> Result<T, Error> {
    let namespace = fs::File::open(path).map_err(Error::system("open", path))?;
    // A thread of its own enters the namespace, and ends there.
    std::thread::scope(|scope| {
        let inside = scope.spawn(|| {
            setns(&namespace, kind).map_err(|errno| Error::system("setns", path)(errno.into()))?;
            work()
        });
        inside.join().unwrap_or_else(|_| Err(Error::Missing(format!("cannot enter {}", path.display()))))
    })
}

/// The IP address of an interface, if it is one.
pub fn ip_of(interface: &InterfaceAddress) -> Option<IpAddr> {
    let address = interface.address.as_ref()?;
    let v4 = address.as_sockaddr_in().map(|found| IpAddr::V4(found.ip()));
    v4.or_else(|| address.as_sockaddr_in6().map(|found| IpAddr::V6(found.ip())))
}

/// Bytes that the tables may take: a sixteenth of the node's memory, and three quarters of what this process's cgroup
/// may have, which the kernel charges for them (5.11).
pub fn memory_for_tables() -> u64 {
    let node =
        fs::read_to_string("/proc/meminfo").ok().and_then(|text| total_memory(&text)).unwrap_or(u64::MAX);
    // A container sees its own cgroup here, and a node its root, which has no limit.
    let limits = ["/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"];
    let limits =
        limits.into_iter().filter_map(|path| fs::read_to_string(path).ok()?.trim().parse::<u64>().ok());
    limits.map(|limit| limit / 4 * 3).fold(node / 16, u64::min)
}

/// `MemTotal` of `/proc/meminfo`, in bytes.
fn total_memory(meminfo: &str) -> Option<u64> {
    let rest = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kibibytes: u64 = rest.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kibibytes << 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nodes_memory_is_read_in_bytes() {
        let text = "MemTotal:       24689568 kB\nMemFree:        11023804 kB\n";
        assert_eq!(total_memory(text), Some(24_689_568 << 10));
        assert_eq!(total_memory("MemFree: 1 kB\n"), None);
    }
}
