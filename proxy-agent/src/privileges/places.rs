//! The places where the agent may change files, by landlock (5.13): the kernel refuses to write, create, remove, rename
//! and execute files anywhere else, whatever their permissions say. Files that are open already stay writable.
//!
//! - It holds for the calling thread and those that it starts afterwards, not for the dataplane's followers: landlock keeps
//!   a thread from looking into processes outside of it, which is what they are for. So it comes after them.
//! - Reading is free: what the agent reads is named by its configuration and by the C library's (name services), never by
//!   what arrives from the network, and a refusal there would look like a fault of the node.

use std::path::Path;

use landlock::{
    ABI, AccessFs, BitFlags, CompatLevel, Compatible as _, PathBeneath, PathFd, Ruleset, RulesetAttr as _,
    RulesetCreatedAttr as _, RulesetError, RulesetStatus,
};

/// The newest version of landlock whose rights are known here; an older kernel takes those that it knows.
const KNOWN: ABI = ABI::V5;

/// What pins need: they are made and removed, never written as files.
const PINNING: &[AccessFs] =
    &[AccessFs::MakeReg, AccessFs::MakeDir, AccessFs::RemoveFile, AccessFs::RemoveDir, AccessFs::Refer];

/// Confines the calling thread: it may change `writable`, and make and remove files and directories in `pins`, where
/// a BPF file system may be mounted. Returns whether the kernel does so, at least in part.
pub(crate) fn confine(writable: &[&Path], pins: Option<&Path>) -> Result<bool, RulesetError> {
    let changing: BitFlags<AccessFs> = AccessFs::from_write(KNOWN) | AccessFs::Execute;
    let mut rules = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(changing)?
        .create()?
        .no_new_privs(true);
    let pinning = PINNING.iter().copied().collect();
    let writable = writable.iter().map(|place| (*place, AccessFs::from_write(KNOWN)));
    for (place, rights) in writable.chain(pins.map(|place| (place, pinning))) {
        // A place that is not there cannot be written to either.
        if let Ok(place) = PathFd::new(place) {
            rules = rules.add_rule(PathBeneath::new(place, rights))?;
        }
    }
    Ok(rules.restrict_self()?.ruleset != RulesetStatus::NotEnforced)
}

#[cfg(test)]
mod tests {
    use std::{fs, io::ErrorKind, process::Command, thread};

    use sidestep_tests::skip;

    use super::*;

    #[test]
    fn only_the_named_places_can_be_changed() {
        let [own, pins, other] = [(), (), ()].map(|()| tempfile::tempdir().expect("a folder"));
        fs::write(other.path().join("there"), "text").expect("a file");
        let open = fs::OpenOptions::new().append(true).open(other.path().join("there")).expect("a file");
        let is_confined = thread::scope(|scope| {
            let confined = || {
                if !confine(&[own.path(), Path::new("/nowhere")], Some(pins.path())).expect("rules") {
                    return false;
                }
                let refused = |result: std::io::Result<()>| {
                    assert_eq!(result.map_err(|error| error.kind()), Err(ErrorKind::PermissionDenied));
                };
                fs::write(own.path().join("new"), "text").expect("written");
                fs::rename(own.path().join("new"), own.path().join("newer")).expect("renamed");
                fs::remove_file(own.path().join("newer")).expect("removed");
                fs::create_dir(own.path().join("folder")).expect("made");
                fs::create_dir(pins.path().join("links")).expect("made");
                fs::remove_dir(pins.path().join("links")).expect("removed");
                refused(fs::write(pins.path().join("new"), "text"));
                for path in [other.path().join("there"), other.path().join("new"), "/dev/null".into()] {
                    refused(fs::write(path, "text"));
                }
                refused(fs::create_dir(other.path().join("folder")));
                refused(fs::remove_file(other.path().join("there")));
                refused(Command::new("/bin/true").status().map(drop));
                // What is open, and reading.
                std::io::Write::write_all(&mut &open, b" and more").expect("written");
                assert_eq!(fs::read_to_string(other.path().join("there")).expect("read"), "text and more");
                thread::scope(|scope| {
                    scope.spawn(|| refused(fs::write(other.path().join("new"), "text")));
                });
                true
            };
            scope.spawn(confined).join().expect("a thread")
        });
        fs::write(other.path().join("new"), "text").expect("other threads are free");
        if !is_confined {
            skip!("this kernel has no landlock (5.13)");
        }
    }
}
