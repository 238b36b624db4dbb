//! Tables beside the present ones that are to follow them, and what becomes of them.
//!
//! A map has one length and one layout as long as it lives. So tables that are to grow or to shrink are made anew, pinned as `next-<MAP>`
//! beside the present ones, programs are loaded on them, they are filled, and the programs behind all links are replaced. Nothing
//! is installed between the copy and the last link: whichever tables a program reads, it finds the same. At last the new
//! pins take the place of the old ones; the old tables go when the last program that reads them ends.
//!
//! Tables of another version are followed before the programs are replaced: from then on only the new ones count. What the
//! other version's programs note until the last of them is replaced is in the old ones, which are `former-<MAP>` until it has
//! been taken over (`upgrade`).
//!
//! | beside the pins | an agent was killed | so the next one |
//! |---|---|---|
//! | `next-<MAP>`, perhaps `former-<MAP>` | before the new tables count | removes them; the present tables say the same |
//! | and the empty directory `ready` | after that | moves what is left of them to its place |
//! | `former-<MAP>` alone | before all was taken over | takes it over |
//!
//! One directory for all: landlock lets nobody move a file from one to another before Linux 5.19.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use super::crash;
use crate::dataplane::Error;

/// How the names of tables begin that not all programs use.
const NEXT: &str = "next-";
/// How the names of tables begin that programs of another version may still use.
const FORMER: &str = "former-";
/// Says that the next ones count.
const READY: &str = "ready";

/// The pin of the table that is to follow this one.
pub(crate) fn next(dir: &Path, name: &str) -> PathBuf {
    dir.join(format!("{NEXT}{name}"))
}

/// The pin of the table that this one has followed.
pub(crate) fn former(dir: &Path, name: &str) -> PathBuf {
    dir.join(format!("{FORMER}{name}"))
}

/// Finishes or undoes what a killed agent had begun, but for what is still to be taken over from former tables.
pub(crate) fn settle(dir: &Path) -> Result<(), Error> {
    if dir.join(READY).is_dir() {
        put_in_place(dir)
    } else if pins(dir, NEXT)?.is_empty() {
        Ok(())
    } else {
        abandon(dir)
    }
}

/// Keeps the pins of tables that others are about to follow, until [`forget_former`].
pub(crate) fn keep_former(dir: &Path, names: &[&str]) -> Result<(), Error> {
    for name in names {
        crash::point();
        let kept = former(dir, name);
        fs::hard_link(dir.join(name), &kept).map_err(Error::system("link", kept))?;
    }
    Ok(())
}

/// Lets former tables go: everything has been taken over.
pub(crate) fn forget_former(dir: &Path) -> Result<(), Error> {
    remove(dir, FORMER).map(drop)
}

/// Removes next tables that no program uses.
pub(crate) fn abandon(dir: &Path) -> Result<(), Error> {
    cleanup(dir).map(drop)
}

/// Makes the next tables the present ones: all programs use them.
pub(crate) fn commit(dir: &Path) -> Result<(), Error> {
    crash::point();
    let ready = dir.join(READY);
    fs::create_dir(&ready).map_err(Error::system("mkdir", &ready))?;
    put_in_place(dir)
}

/// Removes everything of this, and returns what it removed.
pub(crate) fn cleanup(dir: &Path) -> Result<Vec<PathBuf>, Error> {
    // Former tables alone would be taken over.
    let mut removed = remove(dir, FORMER)?;
    removed.extend(remove(dir, NEXT)?);
    removed.extend(forget(dir)?);
    Ok(removed)
}

/// Removes the pins whose names begin so, and returns them.
fn remove(dir: &Path, beginning: &str) -> Result<Vec<PathBuf>, Error> {
    let mut removed = Vec::new();
    for (pin, _) in pins(dir, beginning)? {
        crash::point();
        fs::remove_file(&pin).map_err(Error::system("unlink", &pin))?;
        removed.push(pin);
    }
    Ok(removed)
}

fn put_in_place(dir: &Path) -> Result<(), Error> {
    for (pin, place) in pins(dir, NEXT)? {
        crash::point();
        fs::rename(&pin, dir.join(place)).map_err(Error::system("rename", &pin))?;
    }
    forget(dir).map(drop)
}

/// Removes the directory that says that they are ready.
fn forget(dir: &Path) -> Result<Option<PathBuf>, Error> {
    crash::point();
    let ready = dir.join(READY);
    match fs::remove_dir(&ready) {
        Ok(()) => Ok(Some(ready)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Error::system("rmdir", ready)(error)),
    }
}

/// The pins whose names begin so, each with the name of its table.
fn pins(dir: &Path, beginning: &str) -> Result<Vec<(PathBuf, String)>, Error> {
    let entries = match fs::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(Error::system("readdir", dir))?,
    };
    let mut pins = Vec::new();
    for entry in entries {
        let entry = entry.map_err(Error::system("readdir", dir))?;
        if let Some(name) = entry.file_name().to_str().and_then(|name| name.strip_prefix(beginning)) {
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
    fn former_tables_stay_until_they_are_forgotten() {
        let dir = directory(&[("SOCKETS", "old"), ("next-SOCKETS", "new")]);
        keep_former(dir.path(), &["SOCKETS"]).expect("linked");
        let half = content(dir.path());
        assert_eq!(half, pairs(&[("SOCKETS", "old"), ("former-SOCKETS", "old"), ("next-SOCKETS", "new")]));
        settle(dir.path()).expect("undone");
        assert_eq!(content(dir.path()), pairs(&[("SOCKETS", "old")]));

        fs::write(next(dir.path(), "SOCKETS"), "new").expect("a file");
        keep_former(dir.path(), &["SOCKETS"]).expect("linked");
        commit(dir.path()).expect("committed");
        settle(dir.path()).expect("nothing to do");
        assert_eq!(content(dir.path()), pairs(&[("SOCKETS", "new"), ("former-SOCKETS", "old")]));
        forget_former(dir.path()).expect("forgotten");
        assert_eq!(content(dir.path()), pairs(&[("SOCKETS", "new")]));
    }

    #[test]
    fn a_commit_replaces_only_what_grew() {
        let dir = directory(&[("SERVICES", "old"), ("TOTALS", "old")]);
        fs::write(next(dir.path(), "SERVICES"), "new").expect("a file");
        commit(dir.path()).expect("committed");
        assert_eq!(content(dir.path()), pairs(&[("SERVICES", "new"), ("TOTALS", "old")]));
    }
}
