//! The watched directory.

use std::{
    fmt::Display,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};

/// A directory of manifests. Files appear and change atomically (by rename).
#[derive(Clone, Debug)]
pub struct Manifests {
    directory: PathBuf,
}

impl Manifests {
    /// The manifests in `directory`.
    pub const fn new(directory: PathBuf) -> Self {
        Self { directory }
    }

    /// The directory.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Writes a file of these objects, one YAML document each.
    pub fn write(&self, file: &str, objects: &[&dyn Display]) -> Result<()> {
        let documents: Vec<String> = objects.iter().map(ToString::to_string).collect();
        self.write_text(file, &documents.join("---\n"))
    }

    /// Writes a file of exactly this text.
    pub fn write_text(&self, file: &str, text: &str) -> Result<()> {
        // Without the suffix `.yaml`, the agent ignores the half-written file.
        let draft = self.directory.join(format!(".{file}.draft"));
        fs::write(&draft, text).with_context(|| draft.display().to_string())?;
        fs::rename(&draft, self.directory.join(file)).with_context(|| file.to_owned())
    }

    /// Removes a file.
    pub fn remove(&self, file: &str) -> Result<()> {
        fs::remove_file(self.directory.join(file)).with_context(|| file.to_owned())
    }

    /// Copies every manifest of another directory here.
    pub fn copy_from(&self, source: &Path) -> Result<()> {
        for entry in fs::read_dir(source).with_context(|| source.display().to_string())? {
            let path = entry?.path();
            if path.extension().is_some_and(|extension| extension == "yaml") {
                let name = path.file_name().and_then(|name| name.to_str()).context("a name in UTF-8")?;
                self.write_text(name, &fs::read_to_string(&path)?)?;
            }
        }
        Ok(())
    }
}
