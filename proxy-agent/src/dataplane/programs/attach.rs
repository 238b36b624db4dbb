//! Attaches the socket programs to a cgroup, replaces programs behind their links, and detaches them.
//!
//! Links are pinned, so the datapath outlives the agent. A restarted agent replaces the programs behind the existing
//! links: nothing is ever detached.

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
};

use aya::{
    Ebpf,
    programs::{CgroupAttachMode, Program, ProgramError, links::FdLink},
};

use super::{
    hooks::{HOOKS, Hook},
    links::link_pin,
    load::program,
    neighbours::{Neighbour, neighbours},
    options::Options,
};
use crate::dataplane::{Error, bpf, tables::crash};

/// Attaches every program to the cgroup, or replaces the program behind its pinned link.
pub fn attach(ebpf: &mut Ebpf, options: &Options) -> Result<(), Error> {
    let cgroup_root = &options.cgroup_root;
    let cgroup = File::open(cgroup_root).map_err(Error::system("open", cgroup_root))?;
    admitted(cgroup_root, &options.pin_dir)?;
    for hook in &HOOKS {
        let pin = link_pin(&options.pin_dir, hook);
        let program = program(ebpf, hook.name)?;
        crash::point();
        if pin.exists() {
            match bpf::replace_program(&pin, program) {
                Ok(()) => {
                    in_place(program, hook, options)?;
                    continue;
                }
                // Its cgroup is gone, and with it what the link attached: begin anew.
                Err(Error::System { error, .. }) if error.raw_os_error() == Some(libc::ENOLINK) => {
                    fs::remove_file(&pin).map_err(Error::system("unlink", &pin))?;
                }
                Err(error) => return Err(error),
            }
        }
        let link = link(program, &cgroup).map_err(|error| exclusive(error, cgroup_root, hook))?;
        link.pin(&pin).map_err(|error| Error::System {
            call: "BPF_OBJ_PIN",
            path: pin.display().to_string(),
            error: io::Error::other(error),
        })?;
    }
    Ok(())
}

/// Checks that no program of others keeps ours out, before the first of ours is attached: some hooks without the others
/// would serve nobody.
fn admitted(cgroup: &Path, pin_dir: &Path) -> Result<(), Error> {
    let excluding: Vec<String> =
        neighbours(cgroup, pin_dir)?.iter().filter_map(Neighbour::exclusion).collect();
    if excluding.is_empty() { Ok(()) } else { Err(Error::Missing(excluding.join("; "))) }
}

/// Detaches every program from its cgroup, in the opposite order (connect first), and returns the pins that it removed.
pub(crate) fn detach(pin_dir: &Path) -> Result<Vec<PathBuf>, Error> {
    let mut removed = Vec::new();
    for hook in HOOKS.iter().rev() {
        let pin = link_pin(pin_dir, hook);
        if bpf::detach(&pin)? {
            removed.push(pin);
        }
    }
    Ok(removed)
}

/// Checks that a pinned link attaches our program where the options say.
fn in_place(program: &Program, hook: &Hook, options: &Options) -> Result<(), Error> {
    let info =
        program.info().map_err(|source| Error::Program { action: "ask for", program: hook.name, source })?;
    if attached_programs(&options.cgroup_root, hook)?.contains(&info.id()) {
        return Ok(());
    }
    Err(Error::Missing(format!(
        "the links under {} are attached to a cgroup other than {}: start with the same --cgroup-root as the \
         agent before, or run `sidestep cleanup` first",
        options.pin_dir.display(),
        options.cgroup_root.display(),
    )))
}

/// Attaches a program; the link is the caller's.
fn link(program: &mut Program, cgroup: &File) -> Result<FdLink, ProgramError> {
    // For links the mode is the link's flags, which must be 0; links always share the hook.
    const MODE: CgroupAttachMode = CgroupAttachMode::Single;
    let no_links = |_| ProgramError::UnexpectedProgramType;
    match program {
        Program::CgroupSockAddr(program) => {
            let id = program.attach(cgroup, MODE)?;
            program.take_link(id)?.try_into().map_err(no_links)
        }
        Program::CgroupSock(program) => {
            let id = program.attach(cgroup, MODE)?;
            program.take_link(id)?.try_into().map_err(no_links)
        }
        _ => Err(ProgramError::UnexpectedProgramType),
    }
}

/// EPERM from attaching means that another program claims the hook exclusively.
fn exclusive(error: ProgramError, cgroup: &Path, hook: &Hook) -> Error {
    if let ProgramError::SyscallError(call) = &error
        && call.io_error.raw_os_error() == Some(libc::EPERM)
    {
        return Error::Missing(format!(
            "another program is attached exclusively at {} of {} or a parent: find it with `bpftool cgroup show \
             {}`; its owner must attach it with BPF_F_ALLOW_MULTI",
            hook.name,
            cgroup.display(),
            cgroup.display(),
        ));
    }
    Error::Program { action: "attach", program: hook.name, source: error }
}

/// Whether the link of `hook` is pinned and attached to a cgroup. One whose cgroup was removed stays pinned.
pub fn is_attached(pin_dir: &Path, hook: &Hook) -> bool {
    bpf::cgroup_link(&link_pin(pin_dir, hook)).is_ok_and(|link| link.cgroup != 0)
}

/// Whether the link of `hook` is pinned, attached or not.
pub fn is_pinned(pin_dir: &Path, hook: &Hook) -> bool {
    link_pin(pin_dir, hook).exists()
}

/// The ids of all programs attached to `cgroup` at `hook`, ours included, in the order in which they run.
pub fn attached_programs(cgroup: &Path, hook: &Hook) -> Result<Vec<u32>, Error> {
    bpf::programs_of_cgroup(cgroup, hook.attach_type as u32).map(|found| found.programs)
}
