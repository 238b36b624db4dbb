//! Programs of others at the hooks of our socket programs: they run beside ours, in the order of their attaching, unless
//! they were attached in a way that keeps others out.
//!
//! Links and `BPF_F_ALLOW_MULTI` share a hook. A program that was attached with other flags has it to itself: the kernel
//! refuses ours at the same cgroup, and below it, except that `BPF_F_ALLOW_OVERRIDE` lets a program below take its place
//! there (`hierarchy_allows_attach`, `compute_effective_progs`). Ours are links, and keep nobody out but those.

use std::path::{Path, PathBuf};

use aya::programs::loaded_programs;
use serde::Serialize;

use super::{hooks::HOOKS, links, service_proxies::ServiceProxy};
use crate::dataplane::{Error, bpf};

const ALLOW_OVERRIDE: u32 = 1;
const ALLOW_MULTI: u32 = 2;

/// What a program's way of being attached means for ours at the same hook.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Manners {
    /// Both run.
    Shares,
    /// The kernel does not let ours in.
    Excludes,
    /// It does not run for the processes that ours serve.
    GivesWay,
}

/// Of a program attached with these flags to our cgroup, or to one above it.
const fn manners(flags: u32, above: bool) -> Manners {
    if flags & ALLOW_MULTI != 0 {
        Manners::Shares
    } else if above && flags & ALLOW_OVERRIDE != 0 {
        Manners::GivesWay
    } else {
        Manners::Excludes
    }
}

/// A program of somebody else.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Neighbour {
    /// Our name of the hook.
    pub hook: &'static str,
    /// The cgroup that it is attached to: ours, or one above it.
    pub cgroup: PathBuf,
    /// The program's id.
    pub id: u32,
    /// Its name, as far as the kernel keeps it.
    pub name: String,
    /// What it means for ours.
    pub manners: Manners,
    /// The service proxy that it belongs to.
    pub service_proxy: Option<ServiceProxy>,
}

impl Neighbour {
    /// The program, in a few words.
    pub fn described(&self) -> String {
        let Self { hook, id, name, .. } = self;
        if name.is_empty() { format!("{hook}: program {id}") } else { format!("{hook}: `{name}` ({id})") }
    }

    /// Why ours cannot be attached, and what to do, if this program keeps it out.
    pub fn exclusion(&self) -> Option<String> {
        (self.manners == Manners::Excludes).then(|| {
            format!(
                "{} is attached exclusively at {}, so no other program can be attached at this hook: find its owner \
                 with `bpftool prog show id {}`, which must attach it by a link or with BPF_F_ALLOW_MULTI, or detach \
                 it with `bpftool cgroup detach {} {} id {}`",
                self.described(),
                self.cgroup.display(),
                self.id,
                self.cgroup.display(),
                bpftools_name(self.hook),
                self.id,
            )
        })
    }

    /// That ours takes this program's place, if it does.
    pub fn displacement(&self) -> Option<String> {
        (self.manners == Manners::GivesWay).then(|| {
            format!(
                "{} at {} does not run for the processes that Sidestep serves, as it was attached with \
                 BPF_F_ALLOW_OVERRIDE: its owner must attach it by a link or with BPF_F_ALLOW_MULTI",
                self.described(),
                self.cgroup.display(),
            )
        })
    }
}

/// The hook, as `bpftool cgroup` has it.
fn bpftools_name(hook: &str) -> &str {
    if hook == "release" { "sock_release" } else { hook }
}

/// The programs of others at our hooks, of `cgroup` and those above it. Programs behind links below `pin_dir` are ours.
pub(crate) fn neighbours(cgroup: &Path, pin_dir: &Path) -> Result<Vec<Neighbour>, Error> {
    let mut found = Vec::new();
    for directory in cgroup.ancestors().take_while(|directory| directory.join("cgroup.procs").exists()) {
        let above = directory != cgroup;
        for hook in &HOOKS {
            let ours = links::ours(pin_dir, hook);
            let attached = match bpf::programs_of_cgroup(directory, hook.attach_type as u32) {
                Ok(attached) => attached,
                // A part of the tree that is not this process's to look at.
                Err(_) if above => continue,
                Err(error) => return Err(error),
            };
            for id in attached.programs.into_iter().filter(|id| Some(*id) != ours) {
                found.push(Neighbour {
                    hook: hook.name,
                    cgroup: directory.to_owned(),
                    id,
                    name: String::new(),
                    manners: manners(attached.flags, above),
                    service_proxy: None,
                });
            }
        }
    }
    name(&mut found);
    Ok(found)
}

/// Adds the programs' names. A program may be gone meanwhile, and stays without.
fn name(found: &mut [Neighbour]) {
    if found.is_empty() {
        return;
    }
    for program in loaded_programs().filter_map(Result::ok) {
        for neighbour in found.iter_mut().filter(|neighbour| neighbour.id == program.id()) {
            program.name_as_str().unwrap_or_default().clone_into(&mut neighbour.name);
            neighbour.service_proxy = ServiceProxy::of_program(neighbour.hook, &neighbour.name);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_tell_who_shares_a_hook() {
        for (flags, at_ours, above) in [
            (ALLOW_MULTI, Manners::Shares, Manners::Shares),
            (ALLOW_MULTI | ALLOW_OVERRIDE, Manners::Shares, Manners::Shares),
            (ALLOW_OVERRIDE, Manners::Excludes, Manners::GivesWay),
            (0, Manners::Excludes, Manners::Excludes),
        ] {
            assert_eq!((manners(flags, false), manners(flags, true)), (at_ours, above), "{flags}");
        }
    }
}
