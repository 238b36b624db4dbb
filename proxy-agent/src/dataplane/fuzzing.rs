//! What fuzzers throw at the dataplane: what it reads of the kernel.

use std::path::{Path, PathBuf};

use proxy_common::ServiceName;

pub use super::node::netlink::fuzzing as netlink;
use super::{
    node::{host, kernel_types},
    tables::{layout::Types, names},
};
use crate::plan::ServicePortId;

/// A value of NAMES.
pub fn to_table(id: &ServicePortId) -> ServiceName {
    names::to_table(id)
}

/// How many members of structures the kernel's type information has; nothing if it is something else.
pub fn members(btf: &[u8]) -> Option<usize> {
    let mut members = 0;
    kernel_types::walk(btf, |_, _, _| members += 1)?;
    let types = Types::of(btf)?;
    (1..64).filter_map(|id| types.layout(id)).for_each(|layout| assert!(layout.fields() <= Types::MOST));
    Some(members)
}

/// Where the node's cgroups are, as `/proc/self/mountinfo` says; whether its BPF file system is the node's is asked, too.
pub fn mounts(text: &str) -> Option<PathBuf> {
    let mounts = host::parse(text.as_bytes()).ok()?;
    let reader = host::Reader { container: true, in_init_namespace: false };
    let _ = host::bpffs_is_nodes(&mounts, None, Path::new("/sys/fs/bpf/sidestep"));
    host::choose_cgroup(&mounts, reader, |_| false).ok()?
}
