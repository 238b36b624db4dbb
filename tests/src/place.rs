//! Where a process runs: a network namespace with a cgroup, which make a pod or the node itself.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::Arc,
};

use anyhow::{Context, Result};
use nix::sys::signal::{SigSet, Signal};

use crate::{
    cgroup::Cgroup,
    namespace::{Namespace, on_thread},
};

/// A pod or a node, or its namespace with another cgroup.
#[derive(Clone, Debug)]
pub struct Place {
    pub(crate) name: String,
    pub(crate) namespace: Arc<Namespace>,
    pub(crate) cgroup: Cgroup,
    /// Its address in IPv4.
    pub v4: Ipv4Addr,
    /// Its address in IPv6.
    pub v6: Ipv6Addr,
}

impl Place {
    /// The pod's or node's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The network namespace.
    pub fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    /// The cgroup.
    pub fn cgroup(&self) -> &Cgroup {
        &self.cgroup
    }

    /// Both addresses.
    pub fn addresses(&self) -> [IpAddr; 2] {
        [self.v4.into(), self.v6.into()]
    }

    /// The same namespace with another cgroup, such as one without programs.
    #[must_use]
    pub fn in_cgroup(&self, cgroup: &Cgroup) -> Self {
        Self { cgroup: cgroup.clone(), ..self.clone() }
    }

    /// Moves the calling thread here permanently; call this on a thread of your own.
    ///
    /// The end of one of the test's processes does not interrupt it: while the thread that starts the next one blocks
    /// all signals, the kernel gives SIGCHLD to any other, whose `connect` with a timeout then fails with EINTR.
    pub fn enter(&self) -> Result<()> {
        SigSet::from(Signal::SIGCHLD).thread_block().context("SIGCHLD cannot be blocked")?;
        self.cgroup.enter()?;
        self.namespace.enter()
    }

    /// Runs `work` here, on a thread of its own, and returns its result. A panic in it resumes in the caller.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        on_thread(&self.name, || {
            self.enter().expect("the thread enters its place");
            work()
        })
    }
}
