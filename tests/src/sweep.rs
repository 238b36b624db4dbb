//! Removes leftovers of labs whose process was killed before it could clean up.
//!
//! It touches only names of labs ([`Identity::is_leftover`]) whose process has ended. Processes need no sweeping: they
//! end with the one that started them ([`crate::kept`]).

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Once,
};

use crate::{cgroup, identity::Identity, namespace, pins};

/// Sweeps once in a process; every later call returns at once.
pub fn leftovers() {
    static SWEPT: Once = Once::new();
    SWEPT.call_once(|| {
        for directory in named(&std::env::temp_dir()) {
            report(&directory, fs::remove_dir_all(&directory));
        }
        for directory in named(Path::new(pins::BPFFS)) {
            report(&directory, pins::remove(&directory));
        }
        for path in named(Path::new(namespace::DIRECTORY)) {
            if let Some(name) = path.file_name().and_then(|name| name.to_str()) {
                report(&path, namespace::delete(name));
            }
        }
        for path in cgroup::own_directory().map(|own| named(&own)).unwrap_or_default() {
            report(&path, remove_cgroups(&path));
        }
    });
}

/// The entries of `directory` that belong to labs of dead processes.
fn named(directory: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(directory) else { return Vec::new() };
    entries
        .filter_map(Result::ok)
        .filter(|entry| entry.file_name().to_str().is_some_and(Identity::is_leftover))
        .map(|entry| entry.path())
        .collect()
}

fn remove_cgroups(path: &Path) -> std::io::Result<()> {
    for entry in fs::read_dir(path)?.filter_map(Result::ok) {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_cgroups(&entry.path())?;
        }
    }
    cgroup::remove(path)
}

/// Another process may sweep concurrently, so a missing entry is not an error.
fn report<E: std::fmt::Display>(path: &Path, result: Result<(), E>) {
    if let Err(error) = result
        && path.exists()
    {
        eprintln!("cannot remove the leftover {}: {error}", path.display());
    }
}
