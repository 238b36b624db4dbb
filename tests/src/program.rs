//! Programs of the distribution that tests run: installed ones, or those of packages that set-up has unpacked.

use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result};

/// The variable that names the root below which set-up has unpacked packages; `cargo xtask test` sets it.
pub const ROOT: &str = "SIDESTEP_PROGRAMS";

/// Variables of this machine's HTTP proxy, which a lab cannot reach.
const PROXIES: [&str; 3] = ["http_proxy", "https_proxy", "all_proxy"];

/// A program, and the folders of the libraries that were unpacked with it.
#[derive(Clone, Debug)]
pub struct Program {
    path: PathBuf,
    libraries: Option<String>,
}

impl Program {
    /// Finds a program by name; an installed one comes first.
    pub fn find(name: &str) -> Result<Self> {
        let path = env::var("PATH").unwrap_or_default() + ":/usr/sbin:/sbin";
        let installed = env::split_paths(&path).map(|folder| folder.join(name)).find(|path| path.is_file());
        if let Some(path) = installed {
            return Ok(Self { path, libraries: None });
        }
        let absent = || absent(name);
        let root = root().with_context(absent)?;
        let folders = ["usr/bin", "usr/sbin", "bin", "sbin"];
        let path = folders.map(|folder| root.join(folder).join(name)).into_iter().find(|path| path.is_file());
        Ok(Self { path: path.with_context(absent)?, libraries: Some(libraries(&root)) })
    }

    /// A program that a test has compiled.
    pub const fn at(path: PathBuf) -> Self {
        Self { path, libraries: None }
    }

    /// The program with these arguments.
    pub fn command<T: AsRef<std::ffi::OsStr>>(&self, arguments: impl IntoIterator<Item = T>) -> Command {
        let mut command = Command::new(&self.path);
        command.args(arguments);
        for variable in PROXIES {
            command.env_remove(variable).env_remove(variable.to_uppercase());
        }
        if let Some(libraries) = &self.libraries {
            command.env("LD_LIBRARY_PATH", libraries);
        }
        command
    }
}

/// The reason to skip a test without this program or library.
pub fn absent(what: &str) -> String {
    format!("{what} is neither installed nor in the packages that `cargo xtask test` unpacks")
}

/// The root below which packages are unpacked, if there is one.
pub fn root() -> Option<PathBuf> {
    env::var_os(ROOT).map(PathBuf::from)
}

/// The folders in which Debian's packages have libraries, as `LD_LIBRARY_PATH`.
fn libraries(root: &Path) -> String {
    let folders = ["usr/lib", "lib"].map(|folder| root.join(folder));
    let folders =
        folders.iter().map(|folder| format!("{}/{}-linux-gnu", folder.display(), env::consts::ARCH));
    folders.collect::<Vec<_>>().join(":")
}

/// A [`Program`], or a skipped test where there is none.
#[macro_export]
macro_rules! program {
    ($name:expr) => {
        match $crate::program::Program::find($name) {
            Ok(program) => program,
            Err(error) => $crate::skip!("{error:#}"),
        }
    };
}
