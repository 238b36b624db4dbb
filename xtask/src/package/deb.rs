//! The format of Debian's packages, deb(5): an ar archive of the format's version, a control tar, and a tar of files.
//!
//! Nothing in it depends on when, where or by whom it was made.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use anyhow::Result;

use super::contents::{Contents, compressed};
use crate::tarball;

/// Debian's name of the machine that this was built for.
pub(super) const ARCHITECTURE: &str = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };

/// The version as Debian compares it: a tilde marks a pre-release.
pub(super) fn version() -> String {
    env!("CARGO_PKG_VERSION").replacen('-', "~", 1)
}

/// The package, as a file.
pub(super) fn build(contents: &Contents) -> Result<Vec<u8>> {
    let mut archive = ar::Builder::new(Vec::new());
    for (name, bytes) in [
        ("debian-binary", b"2.0\n".to_vec()),
        ("control.tar.gz", compressed(&control(contents)?)?),
        ("data.tar.gz", compressed(&data(contents)?)?),
    ] {
        let mut header = ar::Header::new(name.as_bytes().to_vec(), bytes.len() as u64);
        header.set_mode(0o100_644);
        archive.append(&header, &*bytes)?;
    }
    Ok(archive.into_inner()?)
}

fn control(contents: &Contents) -> Result<Vec<u8>> {
    let mut tar = tar::Builder::new(Vec::new());
    tarball::file(&mut tar, "control", 0o644, description(contents).as_bytes())?;
    let configuration = contents.files.iter().filter(|file| file.is_configuration);
    let configuration: Vec<String> = configuration.map(|file| format!("/{}\n", file.path)).collect();
    let configuration = configuration.concat();
    tarball::file(&mut tar, "conffiles", 0o644, configuration.as_bytes())?;
    for (name, script) in &contents.scripts {
        tarball::file(&mut tar, name, 0o755, script)?;
    }
    Ok(tar.into_inner()?)
}

fn description(contents: &Contents) -> String {
    let kibibytes: usize = contents.files.iter().map(|file| file.bytes.len().div_ceil(1024)).sum();
    let mut text = String::new();
    for (field, value) in [
        ("Package", "sidestep"),
        ("Version", &version()),
        ("Architecture", ARCHITECTURE),
        ("Maintainer", "The Sidestep maintainers <maintainers@sidestep-proxy.invalid>"),
        ("Installed-Size", &kibibytes.to_string()),
        ("Section", "net"),
        ("Priority", "optional"),
        ("Homepage", env!("CARGO_PKG_REPOSITORY")),
        ("Description", "Kubernetes service proxy in eBPF, in place of kube-proxy"),
    ] {
        // Writing to a string does not fail.
        let _ = writeln!(text, "{field}: {value}");
    }
    text + " Watches Services and EndpointSlices and keeps BPF maps right, in which programs at\n \
            sockets and network devices find the endpoint of each connection.\n .\n \
            For nodes that run the agent outside of pods. The binary is static and needs\n \
            Linux 5.10 with cgroup2 and a BPF file system.\n"
}

fn data(contents: &Contents) -> Result<Vec<u8>> {
    let mut tar = tar::Builder::new(Vec::new());
    let folders: BTreeSet<&str> = contents.files.iter().flat_map(|file| parents(&file.path)).collect();
    for folder in folders {
        tarball::folder(&mut tar, folder)?;
    }
    for file in &contents.files {
        tarball::file(&mut tar, &file.path, file.mode, &file.bytes)?;
    }
    Ok(tar.into_inner()?)
}

/// The folders above a path, each with its slash.
fn parents(path: &str) -> impl Iterator<Item = &str> {
    path.match_indices('/').map(|(at, _)| &path[..=at])
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::path::Path;
    use std::process::{Command, Output};

    use sidestep_tests::skip;

    use super::super::manuals::Manuals;
    use super::*;

    fn example() -> Contents {
        let page = |name: &str| (name.to_owned(), b".TH sidestep 1\n.SH NAME\nsidestep\n".to_vec());
        let manuals = Manuals {
            pages: BTreeMap::from([page("sidestep.1"), page("sidestep-run.1")]),
            completions: vec![("usr/share/bash-completion/completions/sidestep", b"complete".to_vec())],
        };
        Contents::new(b"#!/bin/sh\nexit 0\n".to_vec(), manuals).unwrap()
    }

    fn run(program: &str, arguments: &[&str]) -> Option<Output> {
        let output = Command::new(program).args(arguments).output().ok()?;
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{program} {arguments:?}: {said}");
        Some(output)
    }

    #[test]
    fn the_same_contents_make_the_same_package() {
        let first = build(&example()).unwrap();
        assert_eq!(build(&example()).unwrap(), first);
        let mut archive = ar::Archive::new(&*first);
        let mut names = Vec::new();
        while let Some(entry) = archive.next_entry() {
            names.push(String::from_utf8(entry.unwrap().header().identifier().to_vec()).unwrap());
        }
        assert_eq!(names, ["debian-binary", "control.tar.gz", "data.tar.gz"]);
    }

    /// dpkg reads the package, and finds each file where it belongs, with its rights.
    #[test]
    fn dpkg_unpacks_what_was_packed() {
        let folder = tempfile::tempdir().unwrap();
        let deb = folder.path().join("sidestep.deb");
        std::fs::write(&deb, build(&example()).unwrap()).unwrap();
        let (deb, root) = (deb.to_str().unwrap(), folder.path().join("root"));
        let Some(listed) = run("dpkg-deb", &["--contents", deb]) else { skip!("dpkg-deb is needed") };
        let listed = String::from_utf8(listed.stdout).unwrap();
        let words = |line: &str| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        let files: Vec<_> = listed.lines().map(words).filter(|words| words[0].starts_with('-')).collect();
        let files: Vec<_> =
            files.iter().map(|words| (&*words[0], words[5].trim_start_matches("./"))).collect();
        let (plain, program) = ("-rw-r--r--", "-rwxr-xr-x");
        let expected = [
            (plain, "etc/default/sidestep"),
            (program, "usr/bin/sidestep"),
            (plain, "usr/lib/systemd/system/sidestep.service"),
            (plain, "usr/share/bash-completion/completions/sidestep"),
            (plain, "usr/share/doc/sidestep/changelog.gz"),
            (plain, "usr/share/doc/sidestep/copyright"),
            (plain, "usr/share/man/man1/sidestep-run.1.gz"),
            (plain, "usr/share/man/man1/sidestep.1.gz"),
        ];
        assert_eq!(files, expected, "{listed}");
        run("dpkg-deb", &["--extract", deb, root.to_str().unwrap()]);
        assert!(root.join("usr/bin/sidestep").exists());

        let control = folder.path().join("control");
        run("dpkg-deb", &["--control", deb, control.to_str().unwrap()]);
        let read = |name: &str| std::fs::read_to_string(control.join(name)).unwrap();
        assert_eq!(read("conffiles"), "/etc/default/sidestep\n");
        for script in ["postinst", "postrm", "prerm"] {
            // `sh -n` checks the scripts' syntax.
            run("sh", &["-n", control.join(script).to_str().unwrap()]);
        }
        let field = |name| run("dpkg-deb", &["--field", deb, name]).unwrap().stdout;
        assert_eq!(String::from_utf8(field("Version")).unwrap().trim(), version());
        unit(&root);
    }

    /// systemd accepts the unit as installed.
    fn unit(root: &Path) {
        let root = format!("--root={}", root.display());
        // The units that it depends on are not in this root.
        let Ok(output) = Command::new("systemd-analyze")
            .args(["verify", "--man=no", "--recursive-errors=no", &root, "sidestep.service"])
            .output()
        else {
            skip!("systemd-analyze is needed")
        };
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && said.is_empty(), "{said}");
    }

    /// The unit has the same capabilities as the container.
    #[test]
    fn the_unit_has_the_capabilities_of_the_daemon_set() {
        let read = |path: &str| std::fs::read_to_string(crate::workspace::path(path)).unwrap();
        let (manifest, unit) = (read("deploy/base/daemonset.yaml"), read("deploy/debian/sidestep.service"));
        let added = manifest.lines().find_map(|line| line.trim().strip_prefix("add: ["));
        let added = added.and_then(|line| line.strip_suffix(']')).expect("a list");
        let given =
            unit.lines().find_map(|line| line.strip_prefix("CapabilityBoundingSet=")).expect("a line");
        let added: Vec<String> = added.split(", ").map(|name| format!("CAP_{name}")).collect();
        assert_eq!(given.split(' ').collect::<Vec<_>>(), added);
    }
}
