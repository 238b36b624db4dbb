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

/// The limit, well over the half minute that a machine needs.
const LIMIT: Duration = Duration::from_mins(3);

/// The file that keeps a kernel's console.
pub(super) fn console_path(kernel: &str) -> PathBuf {
    workspace::target("vm").join(kernel).join("console.log")
}

/// Boots `kernel` and returns its console's output until it stops, or until the limit.
pub(super) fn boot(kernel: &Kernel, image: &Image, initramfs: &Path, cpus: u8, show: bool) -> Result<String> {
    let mut command = Command::new("qemu-system-x86_64");
    // Never KVM: guests hang where /dev/kvm exists but does not work.
    // QEMU 7.2 sometimes leaves garbage in the flags after cmpxchg16b, and the guest's kernel dies in its slab
    // allocator: in 8 of 35 boots, but in none of 38 on a processor without the instruction, which kernels do not need.
    command.args(["-accel", "tcg", "-cpu", "max,cx16=off,la57=off", "-m", "1024", "-smp", &cpus.to_string()]);
    command.args(["-nodefaults", "-no-user-config", "-display", "none", "-serial", "stdio", "-no-reboot"]);
    command.arg("-kernel").arg(&image.vmlinuz).arg("-initrd").arg(initramfs);
    // `panic=-1` reboots at once after a panic, and `-no-reboot` then ends the machine.
    command.args(["-append", "console=ttyS0 quiet panic=-1"]);
    command.stdin(Stdio::null()).stdout(Stdio::piped());
    progress::step(&format!("kernel {}: boot, {cpus} processor(s)", kernel.name), || {
        let mut machine = Machine(command.spawn().with_context(|| process::line(&command))?);
        let output = machine.0.stdout.take().context("QEMU's output is a pipe")?;
        let log = File::create(console_path(kernel.name))?;
        let reader = thread::spawn(move || keep(output, log, show));
        if !machine.ended_within(LIMIT)? {
            eprintln!("kernel {}: stopped, as it did not finish within {} s", kernel.name, LIMIT.as_secs());
        }
        drop(machine);
        reader.join().ok().context("the console's reader panicked")?
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
fn keep(output: ChildStdout, mut log: File, show: bool) -> Result<String> {
    let mut text = String::new();
    for line in BufReader::new(output).split(b'\n') {
        let line = String::from_utf8_lossy(&line?).trim_end().to_owned();
        writeln!(log, "{line}")?;
        if show {
            eprintln!("| {line}");
        }
        text.push_str(&line);
        text.push('\n');
    }
    Ok(text)
}
