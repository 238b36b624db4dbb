//! `sidestep completions` and `sidestep man`, generated from the definition of the command line.

use std::{io, path::PathBuf, process::ExitCode};

use anyhow::Context as _;
use clap::{Args, CommandFactory as _};

use super::Cli;

/// Arguments of `completions`.
#[derive(Debug, Args)]
pub(super) struct Completions {
    /// The shell
    ///
    /// Completions go to standard output; each shell's documentation says where it looks for them.
    shell: clap_complete::Shell,
}

/// Arguments of `man`.
#[derive(Debug, Args)]
pub(super) struct Man {
    /// The directory for the pages
    ///
    /// One file for each command: sidestep.1, sidestep-run.1 and so on. Existing files are overwritten.
    directory: PathBuf,
}

pub(super) fn completions(arguments: &Completions) -> ExitCode {
    clap_complete::generate(arguments.shell, &mut Cli::command(), "sidestep", &mut io::stdout());
    ExitCode::SUCCESS
}

pub(super) fn man(arguments: &Man) -> anyhow::Result<ExitCode> {
    let directory = &arguments.directory;
    std::fs::create_dir_all(directory)
        .and_then(|()| clap_mangen::generate_to(Cli::command(), directory))
        .with_context(|| format!("cannot write man pages to {}", directory.display()))?;
    println!("man pages written to {}", directory.display());
    Ok(ExitCode::SUCCESS)
}
