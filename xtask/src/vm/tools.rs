//! The programs of this machine that the lab runs, with the libraries that they are linked with.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::process;

/// The programs. iptables is the one that writes nftables' rules.
const PROGRAMS: &[&str] =
    &["ip", "bridge", "tc", "nft", "conntrack", "ethtool", "bpftool", "xtables-nft-multi"];
/// Names under which the last one is called.
const IPTABLES: &[&str] =
    &["iptables", "iptables-restore", "iptables-save", "ip6tables", "ip6tables-restore", "ip6tables-save"];
/// Where iptables looks for its matches and targets, below the folder of libraries.
const EXTENSIONS: &str = "xtables";

/// A file of this machine, at the path where the emulated one has it.
pub(super) struct Tool {
    /// The path, without the first slash.
    pub(super) path: String,
    /// Its content; of a link its target.
    pub(super) file: File,
}

/// What it is.
pub(super) enum File {
    /// A program or a library.
    Copy(PathBuf),
    /// A symbolic link.
    Link(PathBuf),
}

/// All files.
pub(super) fn files() -> Result<Vec<Tool>> {
    let (mut programs, mut libraries) = (Vec::new(), BTreeSet::new());
    for name in PROGRAMS {
        let folders = "/usr/sbin:/sbin:/usr/bin:/bin";
        let program = which::which_in(name, Some(folders), "/")
            .with_context(|| format!("{name} is not installed (`cargo xtask setup`)"))?;
        libraries.extend(linked_with(&program)?);
        programs.push(Tool { path: format!("usr/sbin/{name}"), file: File::Copy(program) });
    }
    let extensions = libraries.iter().filter_map(|library| Some(library.parent()?.join(EXTENSIONS)));
    let extensions = extensions.chain([PathBuf::from("/usr/lib/xtables")]).find(|folder| folder.is_dir());
    for entry in extensions.iter().flat_map(fs::read_dir).flatten().flatten() {
        libraries.insert(entry.path());
    }
    let links = IPTABLES
        .iter()
        .map(|name| Tool { path: format!("usr/sbin/{name}"), file: File::Link("xtables-nft-multi".into()) });
    programs.extend(links);
    // Where `/lib` is a link, programs look for libraries by either path.
    for name in ["lib", "lib64"] {
        if let Ok(target) = fs::read_link(Path::new("/").join(name)) {
            programs.push(Tool { path: name.to_owned(), file: File::Link(target) });
        }
    }
    for library in libraries {
        let (Some(folder), Some(name)) = (library.parent(), library.file_name()) else { continue };
        let path = fs::canonicalize(folder).with_context(|| folder.display().to_string())?.join(name);
        let path = path.to_string_lossy().trim_start_matches('/').to_owned();
        programs.push(Tool { path, file: File::Copy(library) });
    }
    programs.sort_by(|a, b| a.path.cmp(&b.path));
    programs.dedup_by(|a, b| a.path == b.path);
    Ok(programs)
}

/// The libraries of a program, and its loader, as `ldd` prints them.
fn linked_with(program: &Path) -> Result<Vec<PathBuf>> {
    let printed = process::output(Command::new("ldd").arg(program))?;
    Ok(paths(&printed))
}

fn paths(printed: &str) -> Vec<PathBuf> {
    let words = printed.lines().filter_map(|line| line.split_whitespace().find(|word| word.starts_with('/')));
    words.map(PathBuf::from).collect()
}

#[cfg(test)]
mod tests {
    use super::paths;

    #[test]
    fn libraries_and_the_loader_are_found() {
        let printed = "\tlinux-vdso.so.1 (0x00007ffc)\n\tlibc.so.6 => /lib/x/libc.so.6 (0x00007f)\n\t/lib64/ld.so.2 (0x7f)\n";
        assert_eq!(paths(printed), ["/lib/x/libc.so.6", "/lib64/ld.so.2"].map(std::path::PathBuf::from));
    }
}
