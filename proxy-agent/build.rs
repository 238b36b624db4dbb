//! Tells the agent where the kernel programs are, so that they can be embedded.

use std::path::{Path, PathBuf};

fn main() {
    println!("cargo:rerun-if-env-changed=SIDESTEP_EBPF_OBJECT");
    // Read at run time: a checkout may have been copied together with its target folder.
    let here = std::env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets it");
    let default = || Path::new(&here).join("../target/ebpf/sidestep.bpf.o");
    let object = std::env::var_os("SIDESTEP_EBPF_OBJECT").map_or_else(default, PathBuf::from);
    println!("cargo:rerun-if-changed={}", object.display());
    let Ok(object) = object.canonicalize() else {
        panic!(
            "the kernel programs are not built ({} is missing): run `cargo xtask build`",
            object.display()
        );
    };
    println!("cargo:rustc-env=SIDESTEP_EBPF_OBJECT={}", object.display());
}
