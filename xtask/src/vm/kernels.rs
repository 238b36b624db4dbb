//! The kernels: the Debian suites that have them, and the files that a machine needs of their packages.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::setup::Archive;
use crate::{process, progress, workspace};

/// The package that depends on the newest kernel of its suite.
const META_PACKAGE: &str = "linux-image-cloud-amd64";

/// The values of `--kernel`.
#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Choice {
    /// The oldest supported kernel
    #[value(name = "5.10")]
    V5_10,
    /// The long-term kernel before the current one
    #[value(name = "6.1")]
    V6_1,
    /// A current long-term kernel
    #[value(name = "6.12")]
    V6_12,
    /// The newest kernel that Debian has
    Newest,
    /// The oldest and the newest
    Ends,
    /// Each of these
    All,
}

/// A kernel to boot.
#[derive(Debug)]
pub(crate) struct Kernel {
    /// Its version, such as `5.10`, or `newest`.
    pub(crate) name: &'static str,
    /// The suites that may have it.
    suites: Suites,
}

#[derive(Debug)]
enum Suites {
    /// The newest of their packages.
    Together(&'static [&'static str]),
    /// Of the first of these that the mirror has. Its index is asked each time.
    First(&'static [&'static str]),
}

static V5_10: Kernel = Kernel { name: "5.10", suites: Suites::Together(&["bullseye", "bullseye-security"]) };
static V6_1: Kernel = Kernel { name: "6.1", suites: Suites::Together(&["bookworm"]) };
static V6_12: Kernel = Kernel { name: "6.12", suites: Suites::Together(&["bookworm-backports"]) };
/// From the suite that gets kernels first to the one that gets them last.
static NEWEST: Kernel = Kernel {
    name: "newest",
    suites: Suites::First(&["sid", "forky", "trixie-backports", "bookworm-backports"]),
};

/// An unpacked kernel package.
pub(crate) struct Image {
    /// The compressed kernel.
    pub(crate) vmlinuz: PathBuf,
    /// The folder of its modules, with `modules.dep`.
    pub(crate) modules: PathBuf,
}

impl Image {
    /// QEMU 7.2 sometimes leaves garbage in the flags after cmpxchg16b, and the guest's kernel dies in its slab allocator: in
    /// 8 of 35 boots, but in none of 38 on a processor without the instruction. From 6.19 on the kernel has storage for
    /// sockets only with it (f484f4a3e058, `kmalloc_nolock`).
    pub(super) fn needs_cmpxchg16b(&self) -> bool {
        let release = self.modules.file_name().unwrap_or_default().to_string_lossy();
        let mut numbers = release.split('.').map_while(|number| number.parse::<u32>().ok());
        (numbers.next(), numbers.next()) >= (Some(6), Some(19))
    }
}

impl Choice {
    /// The kernels of this choice.
    pub(super) fn kernels(self) -> Vec<&'static Kernel> {
        match self {
            Self::V5_10 => vec![&V5_10],
            Self::V6_1 => vec![&V6_1],
            Self::V6_12 => vec![&V6_12],
            Self::Newest => vec![&NEWEST],
            Self::Ends => vec![&V5_10, &NEWEST],
            Self::All => vec![&V5_10, &V6_1, &V6_12, &NEWEST],
        }
    }
}

impl Kernel {
    /// The path of a file or folder for this kernel.
    pub(super) fn path(&self, name: &str) -> PathBuf {
        workspace::target("vm").join(self.name).join(name)
    }

    /// The kernel from an earlier run, else a download from the archive.
    pub(super) fn fetch(&self) -> Result<Image> {
        match self.suites {
            Suites::Together(suites) => {
                let unpacked = self.path("root");
                if let Ok(image) = image_in(&unpacked) {
                    return Ok(image);
                }
                let what = format!("fetch kernel {} from {}", self.name, suites.join(", "));
                progress::step(&what, || {
                    let archive = Archive::open(&self.path("apt"), suites)?;
                    let package = archive.dependency(META_PACKAGE, "linux-image-")?;
                    self.unpack(&archive, &package, &unpacked)
                })
            }
            Suites::First(suites) => self.first_of(suites),
        }
    }

    /// The newest kernel of the first suite that can be had; without an archive, that of an earlier run.
    fn first_of(&self, suites: &[&str]) -> Result<Image> {
        for suite in suites {
            let found = progress::step(&format!("look for the newest kernel in {suite}"), || {
                let archive = Archive::open(&self.path(suite), &[suite])?;
                let package = archive.dependency(META_PACKAGE, "linux-image-")?;
                Ok((archive, package))
            });
            match found {
                Ok((archive, package)) => {
                    eprintln!("       {suite} has {package}");
                    let unpacked = self.path(&package);
                    if let Ok(image) = image_in(&unpacked) {
                        return Ok(image);
                    }
                    return progress::step(&format!("fetch {package}"), || {
                        self.unpack(&archive, &package, &unpacked)
                    });
                }
                Err(error) => {
                    eprintln!("       {suite} is not to be had, going on with the next suite: {error:#}");
                }
            }
        }
        let mut earlier: Vec<PathBuf> = fs::read_dir(self.path(""))
            .into_iter()
            .flatten()
            .flatten()
            .map(|entry| entry.path())
            .filter(|path| image_in(path).is_ok())
            .collect();
        earlier.sort_by_key(|path| path.metadata().and_then(|data| data.modified()).ok());
        let Some(latest) = earlier.last() else { bail!("none of {} is to be had", suites.join(", ")) };
        eprintln!("       going on with {}, of an earlier run", latest.display());
        image_in(latest)
    }

    fn unpack(&self, archive: &Archive, package: &str, to: &Path) -> Result<Image> {
        let mut debs = vec![archive.download(package, &self.path("debs"))?];
        // From 7.x on the package consists of others.
        for part in ["linux-binary-", "linux-modules-"] {
            if let Ok(part) = archive.dependency(package, part) {
                debs.push(archive.download(&part, &self.path("debs"))?);
            }
        }
        // Renamed into place when complete, so that an interrupted run leaves no partial kernel behind.
        let partial = self.path("root.partial");
        if partial.exists() {
            fs::remove_dir_all(&partial).with_context(|| format!("cannot remove {}", partial.display()))?;
        }
        for deb in &debs {
            process::output(Command::new("dpkg-deb").arg("-x").arg(deb).arg(&partial))?;
        }
        fs::rename(&partial, to)
            .with_context(|| format!("cannot rename {} to {}", partial.display(), to.display()))?;
        image_in(to)
    }
}

fn image_in(root: &Path) -> Result<Image> {
    // From 7.x on the kernel is among its modules.
    for folder in ["usr/lib/modules", "lib/modules"] {
        if let Ok(modules) = entry(&root.join(folder), "") {
            let vmlinuz = modules.join("vmlinuz");
            let vmlinuz = if vmlinuz.exists() { vmlinuz } else { entry(&root.join("boot"), "vmlinuz-")? };
            return Ok(Image { vmlinuz, modules });
        }
    }
    bail!("{} has no modules of a kernel", root.display())
}

/// The entry of `folder` whose name begins with `prefix`.
fn entry(folder: &Path, prefix: &str) -> Result<PathBuf> {
    let mut entries =
        fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))?.flatten();
    let found = entries.find(|entry| entry.file_name().to_string_lossy().starts_with(prefix));
    found.map(|entry| entry.path()).with_context(|| format!("{} contains no {prefix}*", folder.display()))
}

#[cfg(test)]
mod tests {
    use super::Image;

    #[test]
    fn kernels_from_6_19_on_need_the_instruction() {
        let needs = |release: &str| {
            Image { vmlinuz: "vmlinuz".into(), modules: ["lib/modules", release].iter().collect() }
                .needs_cmpxchg16b()
        };
        let all = [
            "5.10.0-39-cloud-amd64",
            "6.1.0-1",
            "6.18.2+deb14-amd64",
            "6.19.1",
            "7.0.0",
            "7.2.13+deb14-cloud-amd64",
        ];
        assert_eq!(all.map(needs), [false, false, false, true, true, true]);
    }
}
