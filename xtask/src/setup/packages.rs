//! System packages, each with the file or program that shows that it is installed, and why it is needed.

use std::path::Path;

/// A package of the distribution.
#[derive(Clone, Copy)]
pub(crate) struct Package {
    /// Its name in Debian.
    pub(crate) name: &'static str,
    /// A program on the path, or an absolute path, that the package brings.
    pub(crate) brings: &'static str,
    /// What it is for.
    pub(crate) why: &'static str,
}

/// What the lab of network namespaces runs, and the commands that show its state.
pub(crate) const NETWORK: &[Package] = &[
    Package { name: "iproute2", brings: "ip", why: "builds the lab's network namespaces" },
    Package {
        name: "iptables",
        brings: "iptables",
        why: "shows that no Service is in iptables; the benchmark's comparison",
    },
    Package {
        name: "nftables",
        brings: "nft",
        why: "shows that no Service is in nftables; the benchmark's comparison",
    },
    Package { name: "conntrack", brings: "conntrack", why: "shows that no connection is tracked" },
    Package { name: "bpftool", brings: "bpftool", why: "prints the maps with their field names" },
    Package { name: "ethtool", brings: "ethtool", why: "switches offloads of virtual network devices" },
    Package { name: "strace", brings: "strace", why: "shows which system calls the agent makes" },
    Package { name: "procps", brings: "sysctl", why: "switches the kernel's own BPF statistics on" },
];

/// What booting another kernel needs.
pub(crate) const EMULATOR: &[Package] = &[
    Package { name: "qemu-system-x86", brings: "qemu-system-x86_64", why: "boots other kernels" },
    Package { name: "kmod", brings: "/usr/sbin/depmod", why: "finds the dependencies of kernel modules" },
];

/// What building the fuzzer needs.
pub(crate) const FUZZER: &[Package] =
    &[Package { name: "g++", brings: "c++", why: "compiles the fuzzer, LLVM's libFuzzer" }];

/// A compiler with library source, and the LLVM that bpf-linker is built on, from Debian itself.
pub(crate) const DEBIAN_COMPILER: &[Package] = &[
    Package { name: "rustc-web", brings: "/usr/bin/rustc", why: "compiles the kernel programs" },
    Package {
        name: "rust-web-src",
        brings: "/usr/lib/rustlib/src/rust/library/core/Cargo.toml",
        why: "the kernel's target has no prebuilt library, so it is built from source",
    },
    LLVM_22,
];

/// The LLVM that bpf-linker is built on.
pub(crate) const LLVM_22: Package = Package {
    name: "llvm-22-dev",
    brings: "/usr/lib/llvm-22/bin/llvm-config",
    why: "bpf-linker is built on it",
};

/// Those of `packages` that are not installed.
pub(crate) fn missing(packages: &[Package]) -> Vec<Package> {
    packages.iter().copied().filter(|package| !present(package)).collect()
}

/// Those of `packages` that are neither installed nor unpacked below `root`; each of them brings a program.
pub(super) fn missing_below(root: &Path, packages: &[Package]) -> Vec<Package> {
    let folders = ["usr/bin", "usr/sbin", "bin", "sbin"].map(|folder| root.join(folder));
    let unpacked = |package: &Package| {
        if let Some(file) = package.brings.strip_prefix('/') {
            return root.join(file).exists();
        }
        let path = std::env::join_paths(&folders).ok();
        which::which_in(package.brings, path, "/").is_ok()
    };
    missing(packages).into_iter().filter(|package| !unpacked(package)).collect()
}

fn present(package: &Package) -> bool {
    if package.brings.starts_with('/') {
        return Path::new(package.brings).exists();
    }
    // An ordinary user's PATH often lacks the administrator's folders.
    let path = std::env::var("PATH").unwrap_or_default() + ":/usr/local/sbin:/usr/sbin:/sbin";
    which::which_in(package.brings, Some(path), "/").is_ok()
}
