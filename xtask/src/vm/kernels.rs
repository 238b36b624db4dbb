//! The kernels: the Debian suites that have them, and the files that a machine needs of their packages.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::setup::Archive;
use crate::{process, progress, workspace};

/// The package that depends on the newest kernel of its suite.
const META_PACKAGE: &str = "linux-image-cloud-amd64";

/// The values of `--kernel`.
#[derive(Clone, Copy, clap::ValueEnum)]
pub(crate) enum Choice {
    /// The oldest supported kernel
    #[value(name = "5.10")]
    V5_10,
    /// A current long-term kernel
    #[value(name = "6.12")]
    V6_12,
    /// Each of these in turn
    All,
}

/// A kernel to boot.
pub(crate) struct Kernel {
    /// Its version, such as `5.10`.
    pub(crate) name: &'static str,
    /// The suites that have it; the newest of their packages is used.
    suites: &'static [&'static str],
}

static V5_10: Kernel = Kernel { name: "5.10", suites: &["bullseye", "bullseye-security"] };
static V6_12: Kernel = Kernel { name: "6.12", suites: &["bookworm-backports"] };

/// An unpacked kernel package.
pub(crate) struct Image {
    /// The compressed kernel.
    pub(crate) vmlinuz: PathBuf,
    /// The folder of its modules, with `modules.dep`.
    pub(crate) modules: PathBuf,
}

impl Choice {
    /// The kernels of this choice.
    pub(super) fn kernels(self) -> Vec<&'static Kernel> {
        match self {
            Self::V5_10 => vec![&V5_10],
            Self::V6_12 => vec![&V6_12],
            Self::All => vec![&V5_10, &V6_12],
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
        let unpacked = self.path("root");
        if let Ok(image) = image_in(&unpacked) {
            return Ok(image);
        }
        let what = format!("fetch kernel {} from {}", self.name, self.suites.join(", "));
        progress::step(&what, || {
            let archive = Archive::open(&self.path("apt"), self.suites)?;
            let package = archive.dependency(META_PACKAGE, "linux-image-")?;
            let deb = archive.download(&package, &self.path("debs"))?;
            // Renamed into place when complete, so that an interrupted run leaves no partial kernel behind.
            let partial = self.path("root.partial");
            process::output(Command::new("dpkg-deb").arg("-x").arg(&deb).arg(&partial))?;
            fs::rename(&partial, &unpacked)
                .with_context(|| format!("cannot rename {} to {}", partial.display(), unpacked.display()))?;
            image_in(&unpacked)
        })
    }
}

fn image_in(root: &Path) -> Result<Image> {
    let boot = root.join("boot");
    let vmlinuz = entry(&boot, "vmlinuz-")?;
    let version = vmlinuz.file_name().unwrap_or_default().to_string_lossy().replacen("vmlinuz-", "", 1);
    let modules = root.join("lib/modules").join(&version);
    let merged = root.join("usr/lib/modules").join(&version);
    Ok(Image { vmlinuz, modules: if merged.exists() { merged } else { modules } })
}

/// The entry of `folder` whose name begins with `prefix`.
fn entry(folder: &Path, prefix: &str) -> Result<PathBuf> {
    let mut entries =
        fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))?.flatten();
    let found = entries.find(|entry| entry.file_name().to_string_lossy().starts_with(prefix));
    found.map(|entry| entry.path()).with_context(|| format!("{} contains no {prefix}*", folder.display()))
}
