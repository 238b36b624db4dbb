//! The BPF programs in the kernel: nobody but the agent loads any here.

use anyhow::{Context as _, Result};
use aya::programs::loaded_programs;

/// Their names.
pub(crate) fn names() -> Result<Vec<String>> {
    let mut names = Vec::new();
    for program in loaded_programs() {
        let program = program.context("cannot list programs")?;
        names.push(program.name_as_str().unwrap_or("(no name)").to_owned());
    }
    Ok(names)
}

/// How many instructions the verifier walked for each; nothing before 5.16, which does not say.
pub(crate) fn verified() -> Result<Vec<(String, u32)>> {
    let mut verified = Vec::new();
    for program in loaded_programs() {
        let program = program.context("cannot list programs")?;
        if let (Some(name), Some(count)) = (program.name_as_str(), program.verified_instruction_count()) {
            verified.push((name.to_owned(), count));
        }
    }
    Ok(verified)
}
