//! `cargo xtask vm`: the agent on other kernels, in emulated machines.
//!
//! Such a machine consists of a Debian kernel package and an initramfs of our own: a static agent, `vm-init` as the first
//! process, the lab's scenarios, and the few programs that these run. QEMU emulates it without KVM, which hangs on some
//! hosts, so it runs anywhere and changes nothing on the host.

mod guest;
mod initramfs;
mod kernels;
mod modules;
mod qemu;
mod report;
mod scenarios;
mod tools;

use std::sync::Mutex;
use std::thread;

use anyhow::{Result, bail};

use self::{guest::Guest, kernels::Kernel, report::Report};
use crate::build::kernel;
use crate::setup::{self, Need};

/// Which kernels to boot, and how.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Kernel to boot
    ///
    /// By default all of them; the packages come from Debian's archive. `newest` is looked up in the package index each time.
    #[arg(long, value_enum, default_value = "all")]
    kernel: kernels::Choice,
    /// Processors of the machine
    ///
    /// The default of one finds faults that only nodes with one processor have.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=8))]
    cpus: u8,
    /// How many machines run at once
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u8).range(1..=8))]
    jobs: u8,
    /// Leave the lab's scenarios out
    ///
    /// What remains is a minute for each kernel: load, attach, doctor, sockets, refusals, source ranges, cleanup.
    #[arg(long)]
    quick: bool,
    /// Show the machine's console as it runs
    ///
    /// It is kept in a file in any case, whose end is printed for a machine that fails.
    #[arg(long)]
    console: bool,
}

/// Boots the kernels, and prints which checks passed on which. One that fails does not keep the others from their checks.
pub(crate) fn run(args: &Args) -> Result<()> {
    setup::ensure(&[Need::KernelBuild, Need::Emulator, Need::Network])?;
    kernel::build()?;
    let guest = guest::build()?;
    let kernels = args.kernel.kernels();
    let (waiting, done) = (Mutex::new(kernels.iter()), Mutex::new(Vec::new()));
    thread::scope(|scope| {
        for _ in 0..args.jobs {
            scope.spawn(|| {
                // The lock is not held while a machine runs.
                while let Some(kernel) = { waiting.lock().ok().and_then(|mut waiting| waiting.next()) } {
                    let report = test(kernel, &guest, args)
                        .unwrap_or_else(|error| Report::never_booted(kernel.name, &error));
                    if let Ok(mut done) = done.lock() {
                        done.push(report);
                    }
                }
            });
        }
    });
    let mut reports = done.into_inner().unwrap_or_default();
    reports.sort_by_key(|report: &Report| kernels.iter().position(|kernel| kernel.name == report.kernel));
    for table in report::tables(&reports) {
        println!("{table}\n");
    }
    let failed: Vec<&Report> = reports.iter().filter(|report| !report.ok).collect();
    if failed.is_empty() {
        println!("{} kernels ok", reports.len());
        return Ok(());
    }
    for report in &failed {
        eprintln!("{}", report.failures());
    }
    bail!(
        "checks failed on {}; each console is in {}",
        failed.iter().map(|report| report.kernel).collect::<Vec<_>>().join(", "),
        qemu::console_path("KERNEL").display()
    )
}

fn test(kernel: &'static Kernel, guest: &Guest, args: &Args) -> Result<Report> {
    let image = kernel.fetch()?;
    let initramfs = initramfs::write(kernel, &image, guest, args.quick)?;
    let (console, took) = qemu::boot(kernel, &image, &initramfs, args.cpus, args.console)?;
    Ok(Report::read(kernel.name, &console, took))
}
