//! The limit of locked memory (`RLIMIT_MEMLOCK`). Before Linux 5.11 the kernel counts tables and programs against it;
//! since then it charges them to the cgroup (`memcg-based memory accounting`), and the limit says nothing.

use aya::util::KernelVersion;
use nix::sys::resource::{RLIM_INFINITY, Resource, getrlimit, setrlimit};

/// Whether this kernel counts tables against the limit.
pub(crate) fn counts() -> bool {
    KernelVersion::current().is_ok_and(|version| version < KernelVersion::new(5, 11, 0))
}

/// Raises the limit for good, where the kernel counts. Afterwards the agent does without the
/// capability for it.
pub(crate) fn raise() {
    if counts() && setrlimit(Resource::RLIMIT_MEMLOCK, RLIM_INFINITY, RLIM_INFINITY).is_err() {
        // Without the capability: as far as it goes.
        if let Ok((_, hard)) = getrlimit(Resource::RLIMIT_MEMLOCK) {
            let _ = setrlimit(Resource::RLIMIT_MEMLOCK, hard, hard);
        }
    }
}

/// Why tables may not fit, and what to do, if the limit is too low to be sure.
pub(crate) fn too_low() -> Option<String> {
    let (_, hard) = getrlimit(Resource::RLIMIT_MEMLOCK).ok()?;
    (counts() && hard != RLIM_INFINITY).then(|| {
        format!(
            "this kernel (before 5.11) counts tables against RLIMIT_MEMLOCK, which is {} KiB here: give the \
             container SYS_RESOURCE (deploy/components/before-linux-5.11, or the chart's `lockedMemory: true`), or \
             start it with a higher limit",
            hard >> 10
        )
    })
}
