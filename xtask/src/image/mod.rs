//! `cargo xtask image`: the agent as a container image, in one file and without a container engine.

mod archive;
mod layer;

use std::fs;
use std::path::PathBuf;

use anyhow::{Context as _, Result};

use crate::build::{agent::Profile, freestanding, kernel};
use crate::setup::{self, Need};
use crate::{progress, workspace};

/// The image's name, as `deploy/base` has it.
const NAME: &str = concat!("ghcr.io/sidestep-proxy/sidestep:", env!("CARGO_PKG_VERSION"));

/// Where the image goes, and its name.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Name and tag of the image
    ///
    /// The default is the name in deploy/base; overlays and clusters with a registry of their own need another one.
    #[arg(long, default_value = NAME)]
    name: String,
    /// File to write [default: target/image/sidestep.tar]
    ///
    /// An OCI archive, which containerd, Docker and kind load without a registry.
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
}

/// Builds the static agent, writes the image, and prints the commands that load it.
pub(crate) fn run(args: &Args) -> Result<()> {
    setup::ensure(&[Need::KernelBuild])?;
    kernel::build()?;
    let binary = freestanding::build(&["proxy-agent"], Profile::Release)?.join("sidestep");
    let bytes = fs::read(&binary).with_context(|| format!("cannot read {}", binary.display()))?;
    let path = args.output.clone().unwrap_or_else(default_path);
    let digest = progress::step("write the image", || {
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
        }
        let image = archive::Image::new(&args.name, layer::build(&bytes)?)?;
        fs::write(&path, image.archive()?).with_context(|| format!("cannot write {}", path.display()))?;
        Ok(image.digest().to_string())
    })?;
    let file = path.display();
    println!("{}\n{digest}\n{file}: {} MB", args.name, fs::metadata(&path)?.len() / 1_000_000);
    println!("containerd, k3s  ctr --namespace k8s.io images import {file}   (on each node; k3s: `k3s ctr`)");
    println!("kind             kind load image-archive {file}");
    println!("docker           docker load --input {file}");
    println!("a registry       skopeo copy oci-archive:{file} docker://REGISTRY/NAME:TAG");
    Ok(())
}

/// The default path, where tests look for the image, too.
pub(crate) fn default_path() -> PathBuf {
    workspace::target("image/sidestep.tar")
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_daemon_set_runs_the_image_that_is_built() {
        let manifest = crate::workspace::path("deploy/base/daemonset.yaml");
        let text = std::fs::read_to_string(&manifest).unwrap();
        let images: Vec<&str> = text.lines().filter_map(|line| line.trim().strip_prefix("image: ")).collect();
        assert!(!images.is_empty() && images.iter().all(|image| *image == super::NAME), "{images:?}");
    }

    #[test]
    fn the_chart_has_the_version_that_is_built() {
        let chart =
            std::fs::read_to_string(crate::workspace::path("deploy/helm/sidestep/Chart.yaml")).unwrap();
        for field in ["version", "appVersion"] {
            let line = format!("{field}: {}", env!("CARGO_PKG_VERSION"));
            assert!(chart.lines().any(|found| found == line), "no `{line}` in Chart.yaml");
        }
    }
}
