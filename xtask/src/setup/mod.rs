//! Automatic set-up: finds what a command needs and installs what is missing, with the reason.
//!
//! Checks are cheap (a few files and child processes), so a complete machine loses no time; the package manager runs
//! only for what a check did not find. Without root or apt, one error lists everything to install.

mod apt;
mod archive;
mod compiler;
pub(crate) mod helm;
pub(crate) mod kubectl;
mod linker;
mod nextest;
mod optional;
mod packages;
mod probe;
pub(crate) mod programs;
pub(crate) mod promtool;

use anyhow::Result;

pub(crate) use archive::Archive;
pub(crate) use compiler::Compiler;
pub(crate) use packages::Package;

use crate::progress;

/// Something that a command needs.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Need {
    /// A Rust compiler with its library source, and bpf-linker, which build the kernel programs.
    KernelBuild,
    /// The network tools that the lab, the demo and the tests run.
    Network,
    /// cargo-nextest, which runs each test in its own process, so that namespaces do not leak between tests.
    Nextest,
    /// QEMU, for booting other kernels.
    Emulator,
    /// A compiler for C++, in which the fuzzer is written.
    Fuzzer,
}

/// `cargo xtask setup`: all needs but the emulator, which only `vm` has, and the fuzzer.
pub(crate) fn run() -> Result<()> {
    ensure(&[Need::KernelBuild, Need::Network, Need::Nextest])?;
    let toolchain = kernel_toolchain()?;
    eprintln!("kernel programs: {}, {}", toolchain.compiler, toolchain.linker.display());
    eprintln!("nothing is missing");
    Ok(())
}

/// Installs whatever of `needs` is missing.
pub(crate) fn ensure(needs: &[Need]) -> Result<()> {
    let mut missing: Vec<Package> = Vec::new();
    if needs.contains(&Need::Network) {
        missing.extend(packages::missing(packages::NETWORK));
    }
    if needs.contains(&Need::Emulator) {
        missing.extend(packages::missing(packages::EMULATOR));
    }
    if needs.contains(&Need::Fuzzer) {
        missing.extend(packages::missing(packages::FUZZER));
    }
    if needs.contains(&Need::KernelBuild) {
        missing.extend(kernel_packages()?);
    }
    apt::install(&missing)?;
    if needs.contains(&Need::KernelBuild) {
        linker::ensure(&compiler::find()?)?;
    }
    if needs.contains(&Need::Nextest) {
        nextest::ensure()?;
    }
    Ok(())
}

/// The tools that build the kernel programs, once [`Need::KernelBuild`] is met.
pub(crate) struct KernelToolchain {
    /// The compiler, with its library source.
    pub(crate) compiler: Compiler,
    /// A bpf-linker that reads this compiler's bitcode.
    pub(crate) linker: std::path::PathBuf,
}

/// Finds the compiler and the linker that [`ensure`] found or installed.
pub(crate) fn kernel_toolchain() -> Result<KernelToolchain> {
    let compiler = compiler::find()?;
    let linker = linker::find(&compiler)?;
    Ok(KernelToolchain { compiler, linker })
}

/// The packages that a compiler or a linker needs.
fn kernel_packages() -> Result<Vec<Package>> {
    let found = match compiler::find() {
        Ok(compiler) => Ok(compiler),
        Err(_) if compiler::rustup_may_add_source() => {
            let what = "rustup component add rust-src (the kernel's target has no prebuilt library)";
            // A failure is not an error: the distribution's compiler is the alternative.
            progress::step(what, || compiler::add_source_with_rustup().and_then(|()| compiler::find()))
        }
        Err(error) => Err(error),
    };
    match found {
        Ok(compiler) => linker::packages(&compiler),
        Err(_) => Ok(packages::missing(packages::DEBIAN_COMPILER)),
    }
}

/// The cargo that runs this task: cargo names itself to its children.
pub(crate) fn cargo() -> std::path::PathBuf {
    std::env::var_os("CARGO").map_or_else(|| "cargo".into(), Into::into)
}
