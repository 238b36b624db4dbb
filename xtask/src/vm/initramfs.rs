//! The machine's root file system: a cpio archive that the kernel unpacks into memory.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use cpio::newc::{Builder, trailer};

use super::guest::Guest;
use super::kernels::{Image, Kernel};
use super::tools::{self, File as Content};
use super::{modules, scenarios};

/// Types of file in `st_mode`.
const FOLDER: u32 = 0o04_0755;
const PROGRAM: u32 = 0o10_0755;
const PLAIN: u32 = 0o10_0644;
const CHARACTER_DEVICE: u32 = 0o02_0600;
const LINK: u32 = 0o12_0777;
/// A folder whose files everybody may remove, but only their own.
const SHARED_FOLDER: u32 = 0o04_1777;

/// Writes the archive for `kernel` and returns its path.
pub(super) fn write(kernel: &Kernel, image: &Image, guest: &Guest, quick: bool) -> Result<PathBuf> {
    let path = kernel.path("initramfs");
    let file = File::create(&path).with_context(|| format!("cannot write {}", path.display()))?;
    let mut archive = Archive { writer: BufWriter::new(file), inode: 0 };
    for folder in ["dev", "proc", "sys", "run", "modules", "manifests", "tests"] {
        archive.add(folder, FOLDER, &[])?;
    }
    archive.add("tmp", SHARED_FOLDER, &[])?;
    // The kernel opens /dev/console for the first process, which has not mounted devtmpfs yet.
    archive.add("dev/console", CHARACTER_DEVICE, &[])?;
    archive.add("init", PROGRAM, &read(&guest.init)?)?;
    archive.add("sidestep", PROGRAM, &read(&guest.agent)?)?;
    for entry in fs::read_dir(&guest.manifests)? {
        let entry = entry?;
        let name = format!("manifests/{}", entry.file_name().to_string_lossy());
        archive.add(&name, PLAIN, &read(&entry.path())?)?;
    }
    for (name, binary) in &guest.tests {
        archive.add(&format!("tests/{name}"), PROGRAM, &read(binary)?)?;
    }
    archive.add("scenarios", PLAIN, scenarios::list(quick).as_bytes())?;
    let tools = tools::files()?;
    let folders: BTreeSet<&Path> =
        tools.iter().flat_map(|tool| Path::new(&tool.path).ancestors().skip(1)).collect();
    // In order, so that each comes after the one that it is in.
    for folder in folders.into_iter().filter_map(Path::to_str).filter(|folder| !folder.is_empty()) {
        archive.add(folder, FOLDER, &[])?;
    }
    for tool in &tools {
        match &tool.file {
            Content::Copy(file) => archive.add(&tool.path, PROGRAM, &read(file)?)?,
            Content::Link(target) => {
                archive.add(&tool.path, LINK, target.as_os_str().as_encoded_bytes())?;
            }
        }
    }
    let mut list = String::new();
    for module in modules::read(&image.modules)? {
        let name = format!("modules/{}", module.name);
        archive.add(&name, PLAIN, &module.bytes)?;
        list += &["/", &name, "\n"].concat();
    }
    archive.add("modules.list", PLAIN, list.as_bytes())?;
    trailer(archive.writer)?.flush()?;
    Ok(path)
}

struct Archive<W: Write> {
    writer: W,
    inode: u32,
}

impl<W: Write> Archive<W> {
    fn add(&mut self, name: &str, mode: u32, bytes: &[u8]) -> Result<()> {
        self.inode += 1;
        let mut entry = Builder::new(name).ino(self.inode).mode(mode).nlink(1);
        if mode == CHARACTER_DEVICE {
            // The console's device numbers, from devices.txt.
            entry = entry.rdev_major(5).rdev_minor(1);
        }
        let size = u32::try_from(bytes.len()).with_context(|| format!("{name} is too large"))?;
        let mut writer = entry.write(&mut self.writer, size);
        writer.write_all(bytes).with_context(|| format!("cannot add {name}"))?;
        writer.finish()?;
        Ok(())
    }
}

fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).with_context(|| format!("cannot read {}", path.display()))
}
