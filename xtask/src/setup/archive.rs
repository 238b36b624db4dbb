//! Packages of other suites than the machine's, from the machine's own mirror, verified by apt.
//!
//! apt runs with a private configuration below `target`: it leaves the machine's lists and settings alone, and needs
//! no privileges.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::process;

/// Debian's keys, including those of past releases.
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// apt with a state of its own.
pub(crate) struct Archive {
    folder: PathBuf,
}

impl Archive {
    /// Fetches and verifies the lists of `suites`.
    pub(crate) fn open(folder: &Path, suites: &[&str]) -> Result<Self> {
        for part in ["lists/partial", "cache/archives/partial"] {
            fs::create_dir_all(folder.join(part))
                .with_context(|| format!("cannot create {}", folder.display()))?;
        }
        fs::write(folder.join("status"), "")?;
        let archive = Self { folder: folder.to_owned() };
        let mut sources = String::new();
        for suite in suites {
            let mirror = mirror_for(suite, &archive)?;
            // The `Valid-Until` of suites without updates has passed; their signature is still verified.
            sources +=
                &["deb [signed-by=", KEYRING, " check-valid-until=no] ", &mirror, " ", suite, " main\n"]
                    .concat();
        }
        fs::write(folder.join("sources.list"), sources)?;
        process::output(archive.tool("apt-get").arg("update")).with_context(|| {
            format!("cannot fetch the package lists of {} from this machine's mirror", suites.join(", "))
        })?;
        Ok(archive)
    }

    /// The package whose name begins with `prefix` on which `package` depends.
    pub(crate) fn dependency(&self, package: &str, prefix: &str) -> Result<String> {
        let shown = process::output(self.tool("apt-cache").args(["show", "--no-all-versions", package]))?;
        let depends = shown.lines().find_map(|line| line.strip_prefix("Depends: "));
        let names = depends
            .unwrap_or_default()
            .split(',')
            .filter_map(|dependency| dependency.split_whitespace().next());
        let mut matching = names.filter(|name| name.starts_with(prefix));
        matching.next().map(str::to_owned).with_context(|| format!("{package} has no dependency {prefix}*"))
    }

    /// Downloads `package` into `to` and returns the file.
    pub(crate) fn download(&self, package: &str, to: &Path) -> Result<PathBuf> {
        fs::create_dir_all(to).with_context(|| format!("cannot create {}", to.display()))?;
        process::output(self.tool("apt-get").args(["download", package]).current_dir(to))?;
        let prefix = format!("{package}_");
        let mut files = fs::read_dir(to)?.flatten();
        let file = files.find(|file| file.file_name().to_string_lossy().starts_with(&prefix));
        file.map(|file| file.path())
            .with_context(|| format!("`apt-get download {package}` left no {prefix}* in {}", to.display()))
    }

    /// One of apt's programs on this state.
    fn tool(&self, program: &str) -> Command {
        let mut command = self.machine_tool(program);
        let sources = self.folder.join("sources.list");
        command.arg("-o").arg(format!("Dir::Etc::sourcelist={}", sources.display()));
        command.args(["-o", "Dir::Etc::sourceparts=-"]);
        command
    }

    /// One of apt's programs on this state, with the machine's own sources.
    fn machine_tool(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        for (option, place) in [
            ("Dir::State", ""),
            ("Dir::State::status", "status"),
            ("Dir::State::lists", "lists"),
            ("Dir::Cache", "cache"),
        ] {
            command.arg("-o").arg(format!("{option}={}", self.folder.join(place).display()));
        }
        // The caller owns the folder, so apt's download user (_apt) could not write there.
        command.args(["-q", "-o", "APT::Sandbox::User="]);
        command
    }
}

/// The machine's own mirror for `suite`: the one of its security suite for another security suite.
fn mirror_for(suite: &str, archive: &Archive) -> Result<String> {
    let list = |command: &mut Command| {
        let format = ["indextargets", "--format", "$(REPO_URI) $(RELEASE)", "Created-By: Packages"];
        process::output(command.args(format))
    };
    let mut targets = list(&mut Command::new("apt-get"))?;
    if targets.trim().is_empty() {
        // This machine has never fetched its lists.
        process::output(archive.machine_tool("apt-get").arg("update"))?;
        targets = list(&mut archive.machine_tool("apt-get"))?;
    }
    let security = suite.ends_with("-security");
    let mirrors = targets.lines().filter_map(|line| line.split_once(' '));
    for (mirror, release) in mirrors {
        let debian = ["bullseye", "bookworm", "trixie", "forky", "sid", "stable", "oldstable", "testing"];
        let known = debian.iter().any(|name| release == *name || release.starts_with(&format!("{name}-")));
        if known && release.ends_with("-security") == security {
            return Ok(mirror.to_owned());
        }
    }
    bail!(
        "apt's sources name no Debian mirror for {suite}; run this on a Debian machine, or add one to its sources"
    )
}
