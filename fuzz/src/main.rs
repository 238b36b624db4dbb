//! The fuzzer: LLVM's libFuzzer with one of the targets, which `SIDESTEP_FUZZ_TARGET` names. `cargo xtask fuzz` builds and
//! runs it.
#![no_main]

use std::sync::OnceLock;

use libfuzzer_sys::fuzz_target;
use sidestep_fuzz::{TARGETS, Target};

static TARGET: OnceLock<&Target> = OnceLock::new();

fuzz_target!(
    init: {
        let name = std::env::var("SIDESTEP_FUZZ_TARGET").unwrap_or_default();
        let target = Target::named(&name).unwrap_or_else(|| {
            panic!("SIDESTEP_FUZZ_TARGET is `{name}`, not one of {}", TARGETS.map(|target| target.name).join(", "))
        });
        TARGET.get_or_init(|| target);
    },
    |bytes: &[u8]| {
        if let Some(target) = TARGET.get() {
            target.run(bytes);
        }
    }
);
