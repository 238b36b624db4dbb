//! Kernel modules that the machine needs, and their dependencies.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

/// What the agent uses and Debian's cloud kernels have as modules. One that a kernel has built in, or lacks, is left
/// out; if it is needed and lacking, a check fails.
const WANTED: &[&str] = &[
    // What the agent asks, and attaches to.
    "inet_diag",
    "tcp_diag",
    "udp_diag",
    "sch_ingress",
    "cls_bpf",
    // The lab's devices, and a filter of somebody else's.
    "veth",
    "bridge",
    "dummy",
    "vxlan",
    "cls_u32",
    // netfilter, for rules in the shape of kube-proxy's and of CNI plugins, and for takeovers.
    "nf_tables",
    "nf_conntrack",
    "nf_conntrack_netlink",
    "nf_nat",
    "nft_chain_nat",
    "nft_ct",
    "nft_nat",
    "nft_masq",
    "nft_numgen",
    "nft_counter",
    "nft_fib_inet",
    "nft_fib_ipv4",
    "nft_fib_ipv6",
    "nft_compat",
    "nft_reject_inet",
    "xt_conntrack",
    "xt_mark",
    "xt_addrtype",
    "xt_nat",
    "xt_MASQUERADE",
    "xt_tcpudp",
    "xt_comment",
    "ipt_REJECT",
    "ip6t_REJECT",
];

/// A module, ready to be loaded.
pub(super) struct Module {
    /// Its file name, without the suffix of its compression.
    pub(super) name: String,
    /// The module, uncompressed: older kernels load no others.
    pub(super) bytes: Vec<u8>,
}

/// The wanted modules of the kernel in `folder`, each after its dependencies.
pub(super) fn read(folder: &Path) -> Result<Vec<Module>> {
    let dependencies = folder.join("modules.dep");
    let text = match fs::read_to_string(&dependencies) {
        Ok(text) => text,
        // Kernel packages contain no modules.dep: depmod writes it on installation.
        Err(_) => depmod(folder)?,
    };
    let mut order: Vec<&str> = Vec::new();
    for name in WANTED {
        for path in closure(&text, name) {
            if !order.contains(&path) {
                order.push(path);
            }
        }
    }
    order.into_iter().map(|path| load(&folder.join(path))).collect()
}

/// `modules.dep` of the kernel in `folder`, written by depmod.
fn depmod(folder: &Path) -> Result<String> {
    let version = folder
        .file_name()
        .with_context(|| format!("{} is not named after a kernel's version", folder.display()))?;
    let base = folder
        .ancestors()
        .nth(3)
        .with_context(|| format!("{} is not below lib/modules", folder.display()))?;
    let mut command = std::process::Command::new("/usr/sbin/depmod");
    crate::process::output(command.arg("-b").arg(base).arg(version))?;
    Ok(fs::read_to_string(folder.join("modules.dep"))?)
}

/// The paths of the module and its dependencies, in loading order.
fn closure<'a>(text: &'a str, name: &str) -> Vec<&'a str> {
    let line = text.lines().filter_map(|line| line.split_once(':')).find(|(path, _)| {
        let file = path.rsplit('/').next().unwrap_or(path);
        file.split('.').next().is_some_and(|stem| stem.replace('-', "_") == name)
    });
    // depmod lists direct dependencies first, and the deepest last.
    line.map(|(path, needs)| needs.split_whitespace().rev().chain([path]).collect()).unwrap_or_default()
}

fn load(path: &PathBuf) -> Result<Module> {
    let raw = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let Some(name) = name.strip_suffix(".xz").map(str::to_owned) else {
        return Ok(Module { name, bytes: raw });
    };
    let mut bytes = Vec::new();
    lzma_rs::xz_decompress(&mut raw.as_slice(), &mut bytes)
        .map_err(|error| anyhow::anyhow!("cannot decompress {}: {error:?}", path.display()))?;
    Ok(Module { name, bytes })
}

#[cfg(test)]
mod tests {
    use super::closure;

    #[test]
    fn a_module_comes_after_what_it_needs() {
        let text = "kernel/net/a.ko.xz: kernel/net/b.ko.xz kernel/net/c.ko.xz\nkernel/net/c-d.ko:\n";
        assert_eq!(closure(text, "a"), ["kernel/net/c.ko.xz", "kernel/net/b.ko.xz", "kernel/net/a.ko.xz"]);
        assert_eq!(closure(text, "c_d"), ["kernel/net/c-d.ko"]);
        assert!(closure(text, "built_in").is_empty());
    }
}
