//! Checks the machine's requirements, and warns about limitations.

use aya::util::KernelVersion;

use super::{Check, Outcome};
use crate::{
    commands::Paths,
    dataplane::{bpffs_mounted, can_reserve_ports, has_set_retval, netns_cookie, sees_namespaces},
    privileges::{capabilities, memory},
};

pub(super) fn check(paths: &Paths) -> Vec<Check> {
    let mut checks = vec![kernel(), privileges()];
    checks.extend(locked_memory());
    checks.push(Check::of("cgroup2", paths.cgroup_root(), |path| path.display().to_string()));
    let mounted = paths.check_bpffs().and_then(|()| bpffs_mounted(&paths.pin_dir));
    checks.push(match mounted {
        Ok(true) => Check::new("bpffs", Outcome::Ok, paths.pin_dir.display().to_string()),
        Ok(false) => Check::new(
            "bpffs",
            Outcome::Warning,
            "not mounted; outside of containers `sidestep run` mounts it at /sys/fs/bpf".to_owned(),
        ),
        Err(error) => Check::new("bpffs", Outcome::Failed, error.to_string()),
    });
    checks.push(if has_set_retval() {
        Check::new("bpf_set_retval (5.18)", Outcome::Ok, "refused calls get ECONNREFUSED")
    } else {
        Check::new(
            "bpf_set_retval (5.18)",
            Outcome::Warning,
            "missing: connect() is refused by a detour to loopback port 0, datagrams get EPERM",
        )
    });
    checks.push(match netns_cookie() {
        Ok(0) => Check::new(
            "network namespace cookie (5.14)",
            Outcome::Warning,
            "missing: the initial network namespace counts as the node's, and connections to LoadBalancer IPs \
             with source ranges go to the load balancer",
        ),
        result => Check::of("network namespace cookie (5.14)", result, |cookie| cookie.to_string()),
    });
    checks.push(if sees_namespaces() {
        Check::new("network namespaces of pods", Outcome::Ok, "visible")
    } else {
        Check::new(
            "network namespaces of pods",
            Outcome::Warning,
            "not visible, so connections to LoadBalancer IPs with source ranges go to the load balancer; set \
             hostPID, or mount the node's /run/netns",
        )
    });
    checks.push(reserved_ports());
    checks.push(network_file_systems());
    checks
}

fn kernel() -> Check {
    const OLDEST: KernelVersion = KernelVersion::new(5, 10, 0);
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default().trim().to_owned();
    match KernelVersion::current() {
        Ok(version) if version >= OLDEST => Check::new("kernel", Outcome::Ok, release),
        Ok(_) => {
            Check::new("kernel", Outcome::Failed, format!("{release}: too old; Sidestep needs 5.10 or later"))
        }
        Err(error) => Check::new("kernel", Outcome::Failed, error.to_string()),
    }
}

fn privileges() -> Check {
    const NAME: &str = "privileges";
    let missing = match capabilities::missing() {
        Ok(missing) => missing,
        Err(error) => {
            return Check::new(NAME, Outcome::Failed, format!("cannot ask for capabilities: {error}"));
        }
    };
    if missing.is_empty() {
        return Check::new(NAME, Outcome::Ok, "all capabilities that the agent needs");
    }
    let described: Vec<String> = missing.iter().map(|one| format!("{} ({})", one.name, one.why)).collect();
    Check::new(
        NAME,
        Outcome::Failed,
        format!("run as root, or with the capabilities {}", described.join(", ")),
    )
}

/// Before Linux 5.11, whether tables of any size can be made.
fn locked_memory() -> Option<Check> {
    memory::counts().then(|| {
        memory::raise();
        match memory::too_low() {
            Some(why) => Check::new("locked memory", Outcome::Warning, why),
            None => Check::new("locked memory", Outcome::Ok, "no limit"),
        }
    })
}

/// ST-7.
fn reserved_ports() -> Check {
    const NAME: &str = "reserved source ports";
    match can_reserve_ports() {
        Ok(path) => Check::new(NAME, Outcome::Ok, format!("{} can be written", path.display())),
        Err(error) => Check::new(
            NAME,
            Outcome::Warning,
            format!(
                "{error}: the agent cannot reserve source ports, so a connection of the node's own may collide \
                 with a masqueraded one; mount the node's file into the container, or set the sysctl on the node"
            ),
        ),
    }
}

/// The kernel's own clients run the connect programs, too. Before 0bdf399342c5 and 86a7e0b69bd5 (both in 6.6) the
/// translated address was written back into their mount options.
fn network_file_systems() -> Check {
    const NAME: &str = "network file systems";
    let known = std::fs::read_to_string("/proc/filesystems").unwrap_or_default();
    let clients: Vec<&str> = ["nfs", "nfs4", "cifs", "smb3", "ceph"]
        .into_iter()
        .filter(|name| known.lines().any(|line| line.split_whitespace().last() == Some(name)))
        .collect();
    if clients.is_empty()
        || KernelVersion::current().is_ok_and(|version| version >= KernelVersion::new(6, 6, 0))
    {
        return Check::new(NAME, Outcome::Ok, "mounts through a Service can reconnect");
    }
    Check::new(
        NAME,
        Outcome::Warning,
        format!(
            "on this kernel a mount ({}) through a Service keeps its first endpoint's address for good; upgrade \
             to 6.6, or mount by a pod's address",
            clients.join(", ")
        ),
    )
}
