//! Removes everything that Sidestep pinned: links first, then maps.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use super::{
    Error,
    node::interfaces,
    programs::attach,
    tables::{
        growth,
        maps::{MAPS, abi_dir},
    },
};

/// Detaches and unpins everything of ours below `pin_dir`, and returns what it removed. Touches nothing else. When it
/// returns, no program of ours is attached.
pub fn cleanup(pin_dir: &Path) -> Result<Vec<PathBuf>, Error> {
    let dir = abi_dir(pin_dir);
    let links = dir.join("links");
    // Packet programs before the maps that they use.
    let mut removed = interfaces::cleanup(pin_dir)?;
    removed.extend(attach::detach(pin_dir)?);
    removed.extend(growth::cleanup(&dir)?);
    for pin in MAPS.iter().map(|map| dir.join(map.name)) {
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
