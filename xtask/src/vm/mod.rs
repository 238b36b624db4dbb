//! `cargo xtask vm`: the agent on other kernels, in emulated machines.
//!
//! Such a machine consists of a Debian kernel package and an initramfs of our own (a static agent, and `vm-init` as the
//! first process). QEMU emulates it without KVM, which hangs on some hosts, so it runs anywhere and changes nothing on
//! the host.

mod guest;
mod initramfs;
mod kernels;
mod modules;
mod qemu;
mod report;

use anyhow::{Result, bail};

use crate::build::kernel;
use crate::setup::{self, Need};

/// Which kernels to boot, and how.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Kernel to boot
    ///
    /// By default each one in turn; the packages come from Debian's archive.
    #[arg(long, value_enum, default_value = "all")]
    kernel: kernels::Choice,
    /// Processors of the machine
    ///
    /// The default of one finds faults that only nodes with one processor have.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=8))]
    cpus: u8,
    /// Show the machine's console as it runs
    ///
    /// It is kept in a file in any case, whose end is printed for a machine that fails.
    ///
    /// It is kept in a file in any case, whose end is printed for a machine that fails.
    #[arg(long)]
    console: bool,
}

/// Boots each kernel, and prints which checks passed on which.
pub(crate) fn run(args: &Args) -> Result<()> {
    setup::ensure(&[Need::KernelBuild, Need::Emulator])?;
    kernel::build()?;
    let guest = guest::build()?;
    let mut reports = Vec::new();
    for kernel in args.kernel.kernels() {
        let image = kernel.fetch()?;
        let initramfs = initramfs::write(kernel, &image, &guest)?;
        let console = qemu::boot(kernel, &image, &initramfs, args.cpus, args.console)?;
        reports.push(report::Report::read(kernel.name, &console));
    }
    println!("{}", report::table(&reports));
    let failed: Vec<&str> = reports.iter().filter(|report| !report.ok).map(|report| report.kernel).collect();
    if failed.is_empty() {
        println!("{} kernels ok", reports.len());
        return Ok(());
    }
    for report in reports.iter().filter(|report| !report.ok) {
        eprintln!("{}", report.failures());
    }
    bail!(
        "checks failed on {}; each console is in {}",
        failed.join(", "),
        qemu::console_path("KERNEL").display()
    )
}
