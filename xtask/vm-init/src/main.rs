//! The first process of the virtual machines that `cargo xtask vm` boots.
//!
//! It makes a node out of a bare kernel, starts the agent on two Services, connects to their addresses, and runs the lab's
//! scenarios. It prints one line `VM CHECK <name> ok|FAIL|skipped <detail>` for each check (separated by tabs), then
//! `VM RESULT ok|FAIL`, and always powers the machine off.

mod agent;
mod checks;
mod echo;
mod loopback;
mod modules;
mod mounts;
mod programs;
mod ranges;
mod scenarios;

use std::fs;
use std::net::Ipv4Addr;

use anyhow::Result;
use nix::sys::reboot::{RebootMode, reboot};

/// The endpoint's address, on the loopback device.
const ENDPOINT: Ipv4Addr = Ipv4Addr::new(10, 244, 0, 10);

fn main() {
    if std::process::id() != 1 {
        eprintln!("vm-init is the first process of a virtual machine; see `cargo xtask vm`");
        std::process::exit(2);
    }
    match node().and_then(|()| checks::run()) {
        Ok(true) => println!("VM RESULT ok"),
        Ok(false) => println!("VM RESULT FAIL"),
        Err(error) => println!("VM RESULT FAIL {error:#}"),
    }
    // Returning from here would be a kernel panic, which ends the machine as well.
    let _ = reboot(RebootMode::RB_POWER_OFF);
    let _ = reboot(RebootMode::RB_AUTOBOOT);
}

/// Makes a node out of a bare kernel.
fn node() -> Result<()> {
    mounts::mount_all()?;
    println!("VM KERNEL {}", fs::read_to_string("/proc/sys/kernel/osrelease")?.trim());
    modules::load_all()?;
    loopback::up()?;
    loopback::add(ENDPOINT)?;
    echo::serve(ENDPOINT)
}
