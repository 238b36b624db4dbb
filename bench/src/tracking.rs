//! Conntrack in a network namespace: whether it tracks connections, and its timeouts.

use std::{fs, path::Path};

use anyhow::{Context as _, Result, ensure};
use sidestep_tests::namespace::Namespace;

use crate::switch;

/// How many connections the node tracks; none where connection tracking is not built in or not loaded.
pub(crate) fn tracked(node: &Namespace) -> Result<u64> {
    let file = Path::new("/proc/sys/net/netfilter/nf_conntrack_count");
    if !file.exists() {
        return Ok(0);
    }
    let text = node.run(|| fs::read_to_string(file))?.context("nf_conntrack_count")?;
    Ok(text.trim().parse()?)
}

/// An error if the node tracks connections.
pub(crate) fn ensure_none(node: &Namespace) -> Result<()> {
    let tracked = tracked(node)?;
    ensure!(tracked == 0, "a node without rules tracks {tracked} connections");
    Ok(())
}

/// Shortens conntrack's timeout of closed connections from ten seconds to one: a benchmark opens thousands a second,
/// and would measure a full table instead of the rules.
pub(crate) fn forget_closed_connections(node: &Namespace) -> Result<()> {
    switch::set(node, "net/netfilter/nf_conntrack_tcp_timeout_close", "1")
}
