//! The network namespaces of Pods that say what they want.

use std::{collections::HashMap, fs, os::unix::fs::MetadataExt as _, path::PathBuf};

use proxy_common::SocketWish;

use crate::{dataplane::node::pods::processes, plan::PodWishes};

/// What Pods say, by the inode of their network namespace. One without a process that is visible here is not among them.
pub(super) fn namespaces(pods: &PodWishes) -> HashMap<u64, SocketWish> {
    if pods.is_empty() {
        return HashMap::new();
    }
    let wish = |(uid, process): (String, PathBuf)| {
        let wish = pods.get(uid.as_str())?;
        Some((fs::metadata(process.join("ns/net")).ok()?.ino(), *wish))
    };
    processes().filter_map(wish).collect()
}
