//! Runs the emulated machine, within a limit of time.

use std::fs::File;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

use super::kernels::{Image, Kernel};
use crate::{process, progress, workspace};

/// The limit, well over the minutes that a machine needs even where others need the processors, too.
const LIMIT: Duration = Duration::from_mins(15);

/// The file that keeps a kernel's console.
pub(super) fn console_path(kernel: &str) -> PathBuf {
    workspace::target("vm").join(kernel).join("console.log")
}

/// Boots `kernel` and returns its console's output until it stops, or until the limit.
pub(super) fn boot(
    kernel: &Kernel,
    image: &Image,
    initramfs: &Path,
    cpus: u8,
    show: bool,
) -> Result<(String, Duration)> {
    let mut command = Command::new("qemu-system-x86_64");
    // Never KVM: guests hang where /dev/kvm exists but does not work.
    let processor = if image.needs_cmpxchg16b() { "max,la57=off" } else { "max,cx16=off,la57=off" };
    command.args(["-accel", "tcg", "-cpu", processor, "-m", "2048", "-smp", &cpus.to_string()]);
    command.args(["-nodefaults", "-no-user-config", "-display", "none", "-serial", "stdio", "-no-reboot"]);
    command.arg("-kernel").arg(&image.vmlinuz).arg("-initrd").arg(initramfs);
    // `panic=-1` reboots at once after a panic, and `-no-reboot` then ends the machine.
    command.args(["-append", "console=ttyS0 quiet panic=-1"]);
    command.stdin(Stdio::null()).stdout(Stdio::piped());
    progress::step(&format!("kernel {}: boot, {cpus} processor(s)", kernel.name), || {
        let start = Instant::now();
        let mut machine = Machine(command.spawn().with_context(|| process::line(&command))?);
        let output = machine.0.stdout.take().context("QEMU's output is a pipe")?;
        let log = File::create(console_path(kernel.name))?;
        let name = kernel.name;
        let reader = thread::spawn(move || keep(output, log, show.then_some(name)));
        if !machine.ended_within(LIMIT)? {
            eprintln!("kernel {}: stopped, as it did not finish within {} s", kernel.name, LIMIT.as_secs());
        }
        drop(machine);
        let console = reader.join().ok().context("the console's reader panicked")??;
        Ok((console, start.elapsed()))
    })
}

/// A running QEMU; it is killed when dropped.
struct Machine(Child);

impl Machine {
    fn ended_within(&mut self, limit: Duration) -> Result<bool> {
        let start = Instant::now();
        while start.elapsed() < limit {
            if self.0.try_wait()?.is_some() {
                return Ok(true);
            }
            thread::sleep(Duration::from_millis(50));
        }
        Ok(false)
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Copies the console to `log`, and to the terminal if requested.
fn keep(output: ChildStdout, mut log: File, show: Option<&str>) -> Result<String> {
    let mut text = String::new();
    for line in BufReader::new(output).split(b'\n') {
        let line = String::from_utf8_lossy(&line?).trim_end().to_owned();
        writeln!(log, "{line}")?;
        if let Some(kernel) = show {
            eprintln!("{kernel} | {line}");
        }
        text.push_str(&line);
        text.push('\n');
    }
    Ok(text)
}
