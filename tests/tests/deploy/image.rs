//! The image that `cargo xtask image` writes, used as a container runtime does: unpacked by its manifest, and run in a
//! root of its own.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::Value;
use sidestep_tests::skip;

/// The variable with the path of the archive; `cargo xtask test` sets it.
const IMAGE: &str = "SIDESTEP_IMAGE";

fn archive() -> Option<PathBuf> {
    std::env::var_os(IMAGE).map(PathBuf::from).filter(|path| path.exists())
}

/// Unpacks the archive and then its layers, and returns the image's configuration.
fn unpack(archive: &Path, folder: &Path) -> (PathBuf, Value) {
    let layout = folder.join("layout");
    tar::Archive::new(File::open(archive).expect("the archive")).unpack(&layout).expect("a tar");
    let json =
        |path: PathBuf| -> Value { serde_json::from_slice(&fs::read(path).expect("a file")).expect("JSON") };
    let blob = |descriptor: &Value| {
        let digest = descriptor["digest"]
            .as_str()
            .and_then(|digest| digest.strip_prefix("sha256:"))
            .expect("a digest");
        let path = layout.join("blobs/sha256").join(digest);
        let sum = Command::new("sha256sum").arg(&path).output().expect("sha256sum");
        assert!(String::from_utf8_lossy(&sum.stdout).starts_with(digest), "{}", path.display());
        path
    };
    let manifest = json(blob(&json(layout.join("index.json"))["manifests"][0]));
    let root = folder.join("root");
    for layer in manifest["layers"].as_array().expect("layers") {
        tar::Archive::new(File::open(blob(layer)).expect("a layer")).unpack(&root).expect("a tar");
    }
    (root, json(blob(&manifest["config"])))
}

/// Runs the image's entry point in its root, with only the mounts that a runtime makes.
fn doctor(root: &Path, config: &Value) -> std::process::Output {
    let program = config["config"]["Entrypoint"][0].as_str().expect("an entry point");
    let cgroup = sidestep_tests::cgroup::own_directory().expect("a cgroup");
    // The mounts are in the child's own namespace, and end with it.
    let script = r#"for i in dev proc sys; do mount --rbind /$i "$1/$i" || exit; done;
        exec chroot "$1" "$2" doctor --output json --cgroup-root "$3""#;
    let mut command = Command::new("unshare");
    command.args(["--mount", "--propagation", "slave", "sh", "-c", script, "sh"]).arg(root).arg(program);
    command.arg(cgroup).output().expect("unshare")
}

#[test]
fn doctor_passes_in_a_root_with_nothing_but_the_image() {
    if let Some(reason) = skip::missing() {
        skip!("{reason}");
    }
    let Some(archive) = archive() else { skip!("no image: `cargo xtask image` writes one") };
    let folder = tempfile::tempdir().expect("a folder");
    let (root, config) = unpack(&archive, folder.path());
    let output = doctor(&root, &config);
    let (text, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{text}\n{errors}");
    let checks: Vec<Value> = serde_json::from_str(&text).expect("checks");
    assert!(
        checks.iter().any(|check| check["name"] == "programs attach" && check["outcome"] == "ok"),
        "{text}"
    );
}
