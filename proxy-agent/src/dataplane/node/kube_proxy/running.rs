//! Whether kube-proxy runs: as a process of its own, or inside another one that listens at its ports, as k3s does.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
};

use procfs::{
    net::{TcpNetEntry, TcpState},
    process::Process,
};

/// kube-proxy's `healthzBindAddress` and `metricsBindAddress`.
const PORTS: [u16; 2] = [10_256, 10_249];
/// The name of its process.
const NAME: &str = "kube-proxy";

/// What runs here that is kube-proxy, or may be.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Running {
    /// Processes of its name in this network namespace.
    pub processes: Vec<String>,
    /// Others that listen at its ports.
    pub listeners: Vec<String>,
}

impl Running {
    /// All of them, such as `process 4711 (kube-proxy)`.
    pub fn all(&self) -> Vec<String> {
        self.processes.iter().chain(&self.listeners).cloned().collect()
    }
}

/// Looks for kube-proxy. Listeners of the process `agent` are ours.
pub fn running(agent: u32) -> Running {
    let mut found = Running::default();
    let own: BTreeSet<u64> = sockets(agent).collect();
    let mut others = listeners();
    others.retain(|_, inode| !own.contains(inode));
    for process in procfs::process::all_processes().into_iter().flatten().filter_map(Result::ok) {
        let Ok(stat) = process.stat() else { continue };
        let called = format!("process {} ({})", stat.pid, stat.comm);
        // A zombie has ended.
        let is_one = stat.comm == NAME && stat.state != 'Z' && is_here(stat.pid);
        if is_one {
            found.processes.push(called.clone());
        }
        if others.is_empty() {
            continue;
        }
        let of_process: BTreeSet<u64> = sockets(process.pid().unsigned_abs()).collect();
        others.retain(|port, inode| {
            let is_its = of_process.contains(inode);
            if is_its && !is_one {
                found.listeners.push(format!("{called}, which listens on port {port}"));
            }
            !is_its
        });
    }
    // Of processes that are out of sight.
    found.listeners.extend(others.into_keys().map(|port| format!("a process that listens on port {port}")));
    found
}

/// Whether a process is in our network namespace, as one on the node's network is.
fn is_here(process: i32) -> bool {
    let namespace = |process: &str| fs::read_link(format!("/proc/{process}/ns/net")).ok();
    namespace(&process.to_string()).is_some_and(|its| namespace("thread-self").as_ref() == Some(&its))
}

/// The ports of kube-proxy's that somebody listens on, with the socket.
fn listeners() -> BTreeMap<u16, u64> {
    let of = |all: procfs::ProcResult<Vec<TcpNetEntry>>| {
        let all = all.unwrap_or_default().into_iter().filter(|entry| entry.state == TcpState::Listen);
        all.map(|entry| (entry.local_address.port(), entry.inode)).filter(|(port, _)| PORTS.contains(port))
    };
    of(procfs::net::tcp()).chain(of(procfs::net::tcp6())).collect()
}

/// The sockets that a process has.
fn sockets(process: u32) -> impl Iterator<Item = u64> {
    let descriptors = i32::try_from(process).ok().and_then(|process| Process::new(process).ok()?.fd().ok());
    descriptors.into_iter().flatten().filter_map(|descriptor| match descriptor.ok()?.target {
        procfs::process::FDTarget::Socket(inode) => Some(inode),
        _ => None,
    })
}
