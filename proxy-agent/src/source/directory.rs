//! The manifest files of a directory, and how to notice that one has changed.

use std::{collections::BTreeMap, fs, io, os::unix::fs::MetadataExt, path::Path};

/// What a file looks like from outside; symbolic links are followed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
}

impl Stamp {
    /// Of what cannot be looked at.
    const UNKNOWN: Self = Self { device: 0, inode: 0, size: 0, modified: (0, 0) };

    /// Of whatever is there.
    pub(super) fn of(path: &Path) -> io::Result<Self> {
        fs::metadata(path).map(|metadata| Self::new(&metadata))
    }

    fn new(metadata: &fs::Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
        }
    }

    /// Whether this is the same file or directory, changed or not.
    pub(super) fn is_same_inode(&self, other: &Self) -> bool {
        (self.device, self.inode) == (other.device, other.inode)
    }
}

/// Whether a file of this name is read: YAML and JSON, but neither hidden files (which is also what
/// `ConfigMap` volumes call their inner workings) nor what editors leave behind.
pub(super) fn is_manifest(name: &str) -> bool {
    let extension = Path::new(name).extension().and_then(|extension| extension.to_str());
    !name.starts_with('.') && matches!(extension, Some("yaml" | "yml" | "json"))
}

/// Every manifest in the directory itself, by name.
pub(super) fn manifests(directory: &Path) -> io::Result<BTreeMap<String, Stamp>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let Some(name) = entry.file_name().to_str().filter(|name| is_manifest(name)).map(str::to_owned)
        else {
            continue;
        };
        match fs::metadata(entry.path()) {
            Ok(metadata) if metadata.is_file() => {
                found.insert(name, Stamp::new(&metadata));
            }
            Ok(_) => {}
            // A file may go between the two calls, and a link may lead nowhere.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            // It is there, but reading it will fail, too, and says why.
            Err(_) => {
                found.insert(name, Stamp::UNKNOWN);
            }
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hidden_files_and_leftovers_of_editors_are_not_read() {
        for name in ["web.yaml", "web.yml", "web.json", "a.b.yaml"] {
            assert!(is_manifest(name), "{name}");
        }
        for name in
            ["..data", ".web.yaml.swp", ".web.yaml", "web.yaml~", "#web.yaml#", "4913", "web.txt", "yaml"]
        {
            assert!(!is_manifest(name), "{name}");
        }
    }
}
