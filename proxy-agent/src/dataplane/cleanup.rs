//! Removes everything that Sidestep pinned: links first, then maps.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use super::{
    Error,
    node::interfaces,
    programs::hooks::HOOKS,
    tables::maps::{MAPS, abi_dir},
};

/// Detaches and unpins everything of ours below `pin_dir`, and returns what it removed. Touches nothing else.
pub fn cleanup(pin_dir: &Path) -> Result<Vec<PathBuf>, Error> {
    let dir = abi_dir(pin_dir);
    let links = dir.join("links");
    // Packet programs before the maps that they use.
    let mut removed = interfaces::cleanup(pin_dir)?;
    // In the opposite order of attaching: connect first.
    let pins =
        HOOKS.iter().rev().map(|hook| links.join(hook.name)).chain(MAPS.iter().map(|map| dir.join(map.name)));
    for pin in pins {
        match fs::remove_file(&pin) {
            Ok(()) => removed.push(pin),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(Error::system("unlink", &pin)(error)),
        }
    }
    for directory in [links.join("tc").as_path(), links.as_path(), dir.as_path(), pin_dir] {
        match fs::remove_dir(directory) {
            Ok(()) => removed.push(directory.to_owned()),
            // The directory does not exist, or has foreign files in it.
            Err(error)
                if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::DirectoryNotEmpty) => {}
            Err(error) => return Err(Error::system("rmdir", directory)(error)),
        }
    }
    Ok(removed)
}
