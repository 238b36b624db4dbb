//! The programs that the scenarios in `tests/tests/programs` run, from the distribution's packages.
//!
//! Packages are unpacked below `target` instead of installed: no server starts, no other package changes, and no privileges
//! are needed. A test that does not find its program skips.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use super::packages::{self, Package};
use super::{apt, optional};
use crate::{progress, workspace};

/// Only what their names say: names are resolved, requests sent and answered.
const PROGRAMS: &[Package] = &[
    Package { name: "bind9-dnsutils", brings: "dig", why: "sends DNS queries" },
    Package { name: "busybox-static", brings: "busybox", why: "has a resolver of its own" },
    Package { name: "curl", brings: "curl", why: "sends HTTP requests" },
    Package { name: "dnsmasq-base", brings: "dnsmasq", why: "forwards DNS queries" },
    Package { name: "iperf3", brings: "iperf3", why: "sends TCP and UDP in both directions" },
    Package { name: "libfaketime", brings: FAKETIME, why: "sets the agent's clock" },
    Package { name: "musl-dev", brings: MUSL_GCC, why: "has Alpine's resolver, as a library" },
    Package { name: "nginx", brings: "nginx", why: "resolves its upstreams" },
    Package { name: "nodejs", brings: "node", why: "keeps UDP sockets" },
    Package { name: "python3", brings: "python3", why: "keeps UDP sockets" },
    Package { name: "redis-server", brings: "redis-server", why: "answers redis-cli" },
    Package { name: "redis-tools", brings: "redis-cli", why: "keeps a TCP connection" },
    Package { name: "unbound", brings: "unbound", why: "forwards DNS queries" },
];

/// The file of `musl-dev` that has no library in its path.
const MUSL_GCC: &str =
    if cfg!(target_arch = "aarch64") { "aarch64-linux-musl-gcc" } else { "x86_64-linux-musl-gcc" };

/// The library that tells a program with several threads another time.
const FAKETIME: &str = if cfg!(target_arch = "aarch64") {
    "/usr/lib/aarch64-linux-gnu/faketime/libfaketimeMT.so.1"
} else {
    "/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1"
};

/// The root of the unpacked packages; downloads those whose program is neither there nor installed.
pub(crate) fn find() -> PathBuf {
    let folder = workspace::target("setup/programs");
    let root = folder.join("root");
    let missing = || packages::missing_below(&root, PROGRAMS);
    if !missing().is_empty() {
        let names: Vec<&str> = missing().iter().map(|package| package.name).collect();
        let what = format!("download and unpack {}", names.join(" "));
        let unpacked = progress::step(&what, || unpack(&missing(), &folder, &root));
        for Package { name, brings, .. } in missing() {
            let reason = unpacked.as_ref().err().map_or_else(String::new, |error| format!(" ({error:#})"));
            eprintln!("no {brings} from package {name}: tests that need it will skip{reason}");
        }
    }
    root
}

fn unpack(packages: &[Package], folder: &Path, root: &Path) -> Result<()> {
    let downloaded = apt::download(packages, &folder.join("cache"))?;
    for package in &downloaded {
        optional::extract(package, root)?;
        fs::remove_file(package).with_context(|| format!("cannot remove {}", package.display()))?;
    }
    Ok(())
}
