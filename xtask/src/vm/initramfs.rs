//! The machine's root file system: a cpio archive that the kernel unpacks into memory.

use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use cpio::newc::{Builder, trailer};

use super::guest::Guest;
use super::kernels::{Image, Kernel};
use super::modules;

/// Types of file in `st_mode`.
const FOLDER: u32 = 0o04_0755;
const PROGRAM: u32 = 0o10_0755;
const PLAIN: u32 = 0o10_0644;
const CHARACTER_DEVICE: u32 = 0o02_0600;

/// Writes the archive for `kernel` and returns its path.
pub(super) fn write(kernel: &Kernel, image: &Image, guest: &Guest) -> Result<PathBuf> {
    let path = kernel.path("initramfs");
    let file = File::create(&path).with_context(|| format!("cannot write {}", path.display()))?;
    let mut archive = Archive { writer: BufWriter::new(file), inode: 0 };
    for folder in ["dev", "proc", "sys", "run", "tmp", "modules", "manifests"] {
        archive.add(folder, FOLDER, &[])?;
    }
    // The kernel opens /dev/console for the first process, which has not mounted devtmpfs yet.
    archive.add("dev/console", CHARACTER_DEVICE, &[])?;
    archive.add("init", PROGRAM, &read(&guest.init)?)?;
    archive.add("sidestep", PROGRAM, &read(&guest.agent)?)?;
    for entry in fs::read_dir(&guest.manifests)? {
        let entry = entry?;
        let name = format!("manifests/{}", entry.file_name().to_string_lossy());
        archive.add(&name, PLAIN, &read(&entry.path())?)?;
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
