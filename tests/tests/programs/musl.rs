//! musl, the C library of Alpine: its resolver sends each query to all name servers at once, from one unconnected UDP socket.
//!
//! No package of Debian has a program that is linked with it, so the tests compile one with Debian's `musl-dev`.

use std::{
    env::consts::ARCH,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, ensure};
use sidestep_tests::{
    container::Container,
    program::{self, Program},
    skip,
};

use crate::lookup;

/// The folders of musl's library and headers.
struct Musl {
    library: PathBuf,
    headers: PathBuf,
}

impl Musl {
    fn find() -> Result<Self> {
        let roots = program::root().into_iter().chain([Path::new("/").to_owned()]);
        let mut found = roots.map(|root| {
            let folder = |kind: &str| root.join(format!("usr/{kind}/{ARCH}-linux-musl"));
            Self { library: folder("lib"), headers: folder("include") }
        });
        let found = found.find(|musl| musl.library.join("libc.a").is_file());
        found.with_context(|| program::absent("musl's library (package musl-dev)"))
    }

    /// Runs the program with a name; compiles it first if the container does not have it yet.
    fn lookup(&self, container: &Container, name: &str) -> Result<String> {
        let program = container.folder().join("lookup");
        if !program.exists() {
            self.compile(container, &program)?;
        }
        container.output(Program::at(program).command([name]))
    }

    fn compile(&self, container: &Container, program: &Path) -> Result<()> {
        let source = container.write("lookup.c", include_str!("sources/lookup.c"))?;
        let mut command = Command::new("cc");
        command.args(["-static", "-nostdinc", "-nostdlib", "-nostartfiles", "-isystem"]).arg(&self.headers);
        command.arg("-o").arg(program).arg(self.library.join("crt1.o")).arg(source);
        command.arg(self.library.join("libc.a")).arg("-lgcc");
        let output = command.output().context("cannot run cc")?;
        ensure!(output.status.success(), "cc failed: {}", String::from_utf8_lossy(&output.stderr));
        Ok(())
    }
}

/// The library, or a skipped test without it.
macro_rules! musl {
    () => {
        match Musl::find() {
            Ok(musl) => musl,
            Err(error) => skip!("{error:#}"),
        }
    };
}

#[test]
fn musl_outlives_its_endpoint_and_the_agent() {
    let musl = musl!();
    lookup::survives(&|container, name| musl.lookup(container, name));
}

#[test]
fn musl_skips_a_name_server_without_endpoints() {
    let musl = musl!();
    lookup::skips_a_name_server_without_endpoints(&|container, name| musl.lookup(container, name));
}

#[test]
fn musl_prefers_ipv4_in_a_pod_without_ipv6() {
    let musl = musl!();
    lookup::prefers_ipv4_in_a_pod_without_ipv6(&|container, name| musl.lookup(container, name));
}
