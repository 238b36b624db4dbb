//! The Debian package that `cargo xtask package` writes, unpacked as dpkg does it: the binary runs, and its manual,
//! completions and settings are complete.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use sidestep_tests::skip;

/// The variable with the path of the package; `cargo xtask test` sets it.
const PACKAGE: &str = "SIDESTEP_PACKAGE";

/// Unpacks the package; an error says why it cannot.
fn unpack(folder: &Path) -> Result<(), String> {
    let package = std::env::var_os(PACKAGE).map(PathBuf::from).filter(|path| path.exists());
    let package = package.ok_or("no package: `cargo xtask package` writes one")?;
    let status = Command::new("dpkg-deb").arg("--extract").arg(package).arg(folder).status();
    let status = status.map_err(|error| format!("dpkg-deb is needed: {error}"))?;
    assert!(status.success());
    Ok(())
}

#[test]
fn the_package_has_the_binary_with_its_manual_and_completions() {
    let folder = tempfile::tempdir().expect("a folder");
    let root = folder.path();
    if let Err(reason) = unpack(root) {
        skip!("{reason}");
    }
    let run = |arguments: &[&str]| {
        let output = Command::new(root.join("usr/bin/sidestep")).args(arguments).output().expect("it runs");
        assert!(output.status.success(), "{output:?}");
        output.stdout
    };
    // The package has every page that the binary writes, with the same content.
    let pages = root.join("pages");
    run(&["man", pages.to_str().expect("a path")]);
    let names = |folder: &Path| {
        let entries = fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
        let mut names: Vec<String> = entries
            .map(|entry| entry.expect("an entry").file_name().into_string().expect("a name"))
            .collect();
        names.sort();
        names
    };
    let packed: Vec<String> = names(&pages).iter().map(|name| format!("{name}.gz")).collect();
    assert!(packed.iter().any(|name| name == "sidestep-run.1.gz"));
    assert_eq!(names(&root.join("usr/share/man/man1")), packed);
    for (shell, path) in [
        ("bash", "usr/share/bash-completion/completions/sidestep"),
        ("fish", "usr/share/fish/vendor_completions.d/sidestep.fish"),
        ("zsh", "usr/share/zsh/vendor-completions/_sidestep"),
    ] {
        assert!(fs::read(root.join(path)).expect("a file") == run(&["completions", shell]), "{path}");
    }
    // Every flag in the settings is a flag of `run`.
    let settings = fs::read_to_string(root.join("etc/default/sidestep")).expect("settings");
    let help = String::from_utf8(run(&["run", "--help"])).expect("text");
    let flags: Vec<&str> = settings.split([' ', '"', '=']).filter(|word| word.starts_with("--")).collect();
    assert_eq!(flags, ["--kubeconfig", "--take-over"]);
    for flag in flags.into_iter().chain(["SIDESTEP_SERVER", "NODE_NAME", "SIDESTEP_LOG"]) {
        assert!(help.contains(flag) && settings.contains(flag), "{flag}");
    }
}
