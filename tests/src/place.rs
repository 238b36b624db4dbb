//! Where a process is: a network namespace and a cgroup, together a pod, or the node itself.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::Arc,
};

use anyhow::Result;

use crate::{
    cgroup::Cgroup,
    namespace::{Namespace, on_thread},
};

/// A pod, a node, or a second cgroup in the namespace of one.
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

    /// The same namespace in another cgroup, such as one that no program is attached to.
    #[must_use]
    pub fn in_cgroup(&self, cgroup: &Cgroup) -> Self {
        Self { cgroup: cgroup.clone(), ..self.clone() }
    }

    /// Moves the calling thread here, for good: call this on a thread of your own.
    pub fn enter(&self) -> Result<()> {
        self.cgroup.enter()?;
        self.namespace.enter()
    }

    /// Runs `work` here, on a thread of its own, and returns what it returns. A panic in it goes on in the caller.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        on_thread(&self.name, || {
            self.enter().expect("the thread enters its place");
            work()
        })
    }
}
