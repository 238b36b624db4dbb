//! The capabilities that the agent needs while it runs, each with its reason. This is the one list: the manifests in
//! `deploy` ask for the same (a test compares them), and the agent drops all others.

use std::io;

use rustix::thread::{
    CapabilitySet, CapabilitySets, capabilities, capability_is_in_bounding_set, clear_ambient_capability_set,
    remove_capability_from_bounding_set, set_capabilities, set_no_new_privs,
};

/// A capability, and what fails without it.
#[derive(Debug)]
pub(crate) struct Needed {
    /// Its name, without `CAP_`.
    pub(crate) name: &'static str,
    set: CapabilitySet,
    /// What needs it.
    pub(crate) why: &'static str,
}

/// All that the agent needs after its start: devices, sockets and pods come at any time.
pub(crate) const NEEDED: [Needed; 6] = [
    Needed { name: "BPF", set: CapabilitySet::BPF, why: "making tables, loading programs" },
    Needed {
        name: "DAC_READ_SEARCH",
        set: CapabilitySet::DAC_READ_SEARCH,
        why: "finding the process that holds a socket, where it is another user's (before Linux 5.12)",
    },
    Needed {
        name: "NET_ADMIN",
        set: CapabilitySet::NET_ADMIN,
        why: "programs that change addresses of sockets and packets, attaching them, conntrack entries",
    },
    Needed {
        name: "PERFMON",
        set: CapabilitySet::PERFMON,
        why: "programs that the verifier takes only from who may read kernel memory",
    },
    Needed {
        name: "SYS_ADMIN",
        set: CapabilitySet::SYS_ADMIN,
        why: "entering pods' network namespaces, asking for programs of others",
    },
    Needed {
        name: "SYS_PTRACE",
        set: CapabilitySet::SYS_PTRACE,
        why: "asking other processes for a socket (pidfd_getfd) and for their network namespace",
    },
];

/// Those that this thread lacks.
pub(crate) fn missing() -> io::Result<Vec<&'static Needed>> {
    let effective = capabilities(None)?.effective;
    Ok(NEEDED.iter().filter(|needed| !effective.contains(needed.set)).collect())
}

/// Drops all others from this thread and those that it starts from now on; no program that it may execute gets them
/// back. `low_ports` keeps the one that listening below port 1024 needs, if it has it.
pub(crate) fn drop_others(low_ports: bool) -> io::Result<()> {
    set_no_new_privs(true)?;
    let mut keep = NEEDED.iter().fold(CapabilitySet::empty(), |all, needed| all | needed.set);
    keep.set(CapabilitySet::NET_BIND_SERVICE, low_ports);
    // Before Linux 4.3 there are none.
    let _ = clear_ambient_capability_set();
    for number in 0..u64::BITS {
        let one = CapabilitySet::from_bits_retain(1 << number);
        match capability_is_in_bounding_set(one) {
            // Without SETPCAP the set stays as the container's runtime made it.
            Ok(true) if !keep.contains(one) => drop(remove_capability_from_bounding_set(one)),
            Ok(_) => {}
            // More than the kernel knows.
            Err(_) => break,
        }
    }
    let permitted = capabilities(None)?.permitted & keep;
    set_capabilities(
        None,
        CapabilitySets { effective: permitted, permitted, inheritable: CapabilitySet::empty() },
    )?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path, thread};

    use rustix::thread::no_new_privs;

    use super::*;

    /// The sets of the calling thread, as `/proc` shows them.
    fn shown(name: &str) -> u64 {
        let status = fs::read_to_string("/proc/thread-self/status").expect("procfs");
        let line = status.lines().find_map(|line| line.strip_prefix(name)).expect("the set");
        u64::from_str_radix(line.trim_start_matches(':').trim(), 16).expect("a number")
    }

    #[test]
    fn nothing_but_what_is_needed_is_left_and_a_thread_inherits_that() {
        let (before, after, inherited) = thread::spawn(|| {
            let before = shown("CapPrm");
            drop_others(false).expect("dropped");
            assert!(no_new_privs().expect("prctl"));
            let sets = || ["CapPrm", "CapEff", "CapInh", "CapAmb"].map(shown);
            (before, sets(), thread::spawn(sets).join().expect("a thread"))
        })
        .join()
        .expect("a thread");
        let needed = NEEDED.iter().fold(0, |all, needed| all | needed.set.bits());
        assert_eq!(after, [before & needed, before & needed, 0, 0]);
        assert_eq!(inherited, after);
    }

    /// The manifests ask for these capabilities and no others.
    #[test]
    fn the_manifests_ask_for_what_is_needed() {
        let deploy = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy");
        let names: Vec<&str> = NEEDED.iter().map(|needed| needed.name).collect();
        let added = format!("add: [{}]", names.join(", "));
        let bounded: Vec<String> = names.iter().map(|name| format!("CAP_{name}")).collect();
        let bounded = format!("CapabilityBoundingSet={}\n", bounded.join(" "));
        for (file, line) in [
            ("base/daemonset.yaml", added.as_str()),
            ("helm/sidestep/templates/daemonset.yaml", added.as_str()),
            ("debian/sidestep.service", bounded.as_str()),
        ] {
            let text = fs::read_to_string(deploy.join(file)).expect(file);
            assert!(text.contains(line), "{file} lacks `{line}`");
        }
    }
}
