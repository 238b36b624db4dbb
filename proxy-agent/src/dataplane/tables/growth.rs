//! Bigger tables beside the present ones, and what becomes of them.
//!
//! A map has one length as long as it lives. So tables that are to grow are made anew in `next/` beside the pins of the
//! present ones, programs are loaded on them, they are filled, and the programs behind all links are replaced. Nothing
//! is installed between the copy and the last link: whichever tables a program reads, it finds the same. At last the
//! new pins take the place of the old ones; the old tables go when the last program that reads them ends.
//!
//! | below the pins | an agent was killed | so the next one |
//! |---|---|---|
//! | `next/` | before all programs had moved | removes it; the present tables say the same |
//! | `ready/` | after that | moves what is left in it to its place |

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use crate::dataplane::Error;

/// Tables that not all programs use.
const NEXT: &str = "next";
/// Tables that all programs use, on their way to their places.
const READY: &str = "ready";

/// Where the pins of the next tables are.
pub(super) fn next(dir: &Path) -> PathBuf {
    dir.join(NEXT)
}

/// Finishes or undoes what a killed agent had begun.
pub(crate) fn settle(dir: &Path) -> Result<(), Error> {
    put_in_place(dir)?;
    abandon(dir)
}

/// Makes the place for the pins of the next tables.
pub(crate) fn begin(dir: &Path) -> Result<PathBuf, Error> {
    settle(dir)?;
    let next = next(dir);
    fs::create_dir(&next).map_err(Error::system("mkdir", &next))?;
    Ok(next)
}

/// Removes next tables that no program uses.
pub(crate) fn abandon(dir: &Path) -> Result<(), Error> {
    remove(&next(dir)).map(drop)
}

/// Makes the next tables the present ones: all programs use them.
pub(crate) fn commit(dir: &Path) -> Result<(), Error> {
    let next = next(dir);
    fs::rename(&next, dir.join(READY)).map_err(Error::system("rename", &next))?;
    put_in_place(dir)
}

/// Removes everything, and returns what it removed.
pub(crate) fn cleanup(dir: &Path) -> Result<Vec<PathBuf>, Error> {
    let mut removed = remove(&next(dir))?;
    removed.extend(remove(&dir.join(READY))?);
    Ok(removed)
}

fn put_in_place(dir: &Path) -> Result<(), Error> {
    let ready = dir.join(READY);
    for pin in pins(&ready)? {
        let Some(name) = pin.file_name() else { continue };
        fs::rename(&pin, dir.join(name)).map_err(Error::system("rename", &pin))?;
    }
    remove(&ready).map(drop)
}

/// Removes a directory of pins.
fn remove(directory: &Path) -> Result<Vec<PathBuf>, Error> {
    let mut removed = pins(directory)?;
    for pin in &removed {
        fs::remove_file(pin).map_err(Error::system("unlink", pin))?;
    }
    match fs::remove_dir(directory) {
        Ok(()) => removed.push(directory.to_owned()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(Error::system("rmdir", directory)(error)),
    }
    Ok(removed)
}

fn pins(directory: &Path) -> Result<Vec<PathBuf>, Error> {
    match fs::read_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        entries => {
            let entries = entries.map_err(Error::system("readdir", directory))?;
            let paths = entries.map(|entry| entry.map(|entry| entry.path()));
            paths.collect::<Result<_, _>>().map_err(Error::system("readdir", directory))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Any file system will do.
    fn directory(files: &[(&str, &str)]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().expect("a directory");
        for (path, content) in files {
            let path = dir.path().join(path);
            fs::create_dir_all(path.parent().expect("a parent")).expect("mkdir");
            fs::write(path, content).expect("a file");
        }
        dir
    }

    fn content(dir: &Path) -> Vec<(String, String)> {
        let mut found: Vec<_> = pins(dir)
            .expect("readable")
            .into_iter()
            .map(|path| {
                let name = path.file_name().expect("a name").to_string_lossy().into_owned();
                (name, fs::read_to_string(&path).unwrap_or_else(|_| "a directory".to_owned()))
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
        let dir = directory(&[("SERVICES", "old"), ("next/SERVICES", "new"), ("next/NAMES", "new")]);
        settle(dir.path()).expect("settled");
        assert_eq!(content(dir.path()), pairs(&[("SERVICES", "old")]));
    }

    #[test]
    fn what_all_programs_use_is_finished_wherever_it_was_cut_off() {
        // Killed after the first of two moves.
        let dir = directory(&[("NAMES", "new"), ("SERVICES", "old"), ("ready/SERVICES", "new")]);
        settle(dir.path()).expect("settled");
        assert_eq!(content(dir.path()), pairs(&[("NAMES", "new"), ("SERVICES", "new")]));
        settle(dir.path()).expect("nothing to do");
    }

    #[test]
    fn a_commit_replaces_only_what_grew() {
        let dir = directory(&[("SERVICES", "old"), ("TOTALS", "old")]);
        let next = begin(dir.path()).expect("begun");
        fs::write(next.join("SERVICES"), "new").expect("a file");
        commit(dir.path()).expect("committed");
        assert_eq!(content(dir.path()), pairs(&[("SERVICES", "new"), ("TOTALS", "old")]));
    }
}
