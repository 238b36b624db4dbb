//! Bigger tables beside the present ones, and what becomes of them.
//!
//! A map has one length as long as it lives. So tables that are to grow are made anew, pinned as `next-<MAP>` beside the
//! present ones, programs are loaded on them, they are filled, and the programs behind all links are replaced. Nothing is
//! installed between the copy and the last link: whichever tables a program reads, it finds the same. At last the new
//! pins take the place of the old ones; the old tables go when the last program that reads them ends.
//!
//! | beside the pins | an agent was killed | so the next one |
//! |---|---|---|
//! | `next-<MAP>` | before all programs had moved | removes them; the present tables say the same |
//! | and the empty directory `ready` | after that | moves what is left of them to its place |
//!
//! One directory for all: landlock lets nobody move a file from one to another before Linux 5.19.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use crate::dataplane::Error;

/// How the names of tables begin that not all programs use.
const NEXT: &str = "next-";
/// Says that all do.
const READY: &str = "ready";

/// The pin of the table that is to follow this one.
pub(crate) fn next(dir: &Path, name: &str) -> PathBuf {
    dir.join(format!("{NEXT}{name}"))
}

/// Finishes or undoes what a killed agent had begun.
pub(crate) fn settle(dir: &Path) -> Result<(), Error> {
    if dir.join(READY).is_dir() { put_in_place(dir) } else { abandon(dir) }
}

/// Removes next tables that no program uses.
pub(crate) fn abandon(dir: &Path) -> Result<(), Error> {
    cleanup(dir).map(drop)
}

/// Makes the next tables the present ones: all programs use them.
pub(crate) fn commit(dir: &Path) -> Result<(), Error> {
    let ready = dir.join(READY);
    fs::create_dir(&ready).map_err(Error::system("mkdir", &ready))?;
    put_in_place(dir)
}

/// Removes everything of this, and returns what it removed.
pub(crate) fn cleanup(dir: &Path) -> Result<Vec<PathBuf>, Error> {
    let mut removed = Vec::new();
    for (pin, _) in pins(dir)? {
        fs::remove_file(&pin).map_err(Error::system("unlink", &pin))?;
        removed.push(pin);
    }
    removed.extend(forget(dir)?);
    Ok(removed)
}

fn put_in_place(dir: &Path) -> Result<(), Error> {
    for (pin, place) in pins(dir)? {
        fs::rename(&pin, dir.join(place)).map_err(Error::system("rename", &pin))?;
    }
    forget(dir).map(drop)
}

/// Removes the directory that says that they are ready.
fn forget(dir: &Path) -> Result<Option<PathBuf>, Error> {
    let ready = dir.join(READY);
    match fs::remove_dir(&ready) {
        Ok(()) => Ok(Some(ready)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Error::system("rmdir", ready)(error)),
    }
}

/// The pins of next tables, each with the name that it is to have.
fn pins(dir: &Path) -> Result<Vec<(PathBuf, String)>, Error> {
    let entries = match fs::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(Error::system("readdir", dir))?,
    };
    let mut pins = Vec::new();
    for entry in entries {
        let entry = entry.map_err(Error::system("readdir", dir))?;
        if let Some(name) = entry.file_name().to_str().and_then(|name| name.strip_prefix(NEXT)) {
            pins.push((entry.path(), name.to_owned()));
        }
    }
    Ok(pins)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Any file system will do.
    fn directory(files: &[(&str, &str)]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().expect("a directory");
        for (path, content) in files {
            fs::write(dir.path().join(path), content).expect("a file");
        }
        dir
    }

    fn content(dir: &Path) -> Vec<(String, String)> {
        let mut found: Vec<_> = fs::read_dir(dir)
            .expect("readable")
            .map(|entry| {
                let entry = entry.expect("an entry");
                let text = fs::read_to_string(entry.path()).unwrap_or_else(|_| "a directory".to_owned());
                (entry.file_name().to_string_lossy().into_owned(), text)
            })
            .collect();
        found.sort();
        found
    }

    fn pairs(expected: &[(&str, &str)]) -> Vec<(String, String)> {
        expected.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect()
    }

    #[test]
    fn what_not_all_programs_use_is_undone() {
        let dir = directory(&[("SERVICES", "old"), ("next-SERVICES", "new"), ("next-NAMES", "new")]);
        settle(dir.path()).expect("settled");
        assert_eq!(content(dir.path()), pairs(&[("SERVICES", "old")]));
    }

    #[test]
    fn what_all_programs_use_is_finished_wherever_it_was_cut_off() {
        // Killed after the first of two moves.
        let dir = directory(&[("NAMES", "new"), ("SERVICES", "old"), ("next-SERVICES", "new")]);
        fs::create_dir(dir.path().join(READY)).expect("ready");
        settle(dir.path()).expect("settled");
        assert_eq!(content(dir.path()), pairs(&[("NAMES", "new"), ("SERVICES", "new")]));
        settle(dir.path()).expect("nothing to do");
    }

    #[test]
    fn a_commit_replaces_only_what_grew() {
        let dir = directory(&[("SERVICES", "old"), ("TOTALS", "old")]);
        fs::write(next(dir.path(), "SERVICES"), "new").expect("a file");
        commit(dir.path()).expect("committed");
        assert_eq!(content(dir.path()), pairs(&[("SERVICES", "new"), ("TOTALS", "old")]));
    }
}
