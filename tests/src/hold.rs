//! A failed lab that stays open, for a person to look into: with [`KEEP`] in the environment, a thread that panics goes
//! no further until somebody says so. Nothing is unwound meanwhile: the agent, servers and connections live on.
//!
//! `cargo xtask test --keep FILTER` sets the variable, and has the runner wait; docs/lab.md says how to look around.

use std::{
    fs, panic,
    path::{Path, PathBuf},
    sync::{
        Mutex, MutexGuard, Once, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::sleep,
    time::Duration,
};

use anyhow::{Context, Result};

use crate::{agent, cgroup, lab::Lab, namespace};

/// The variable that keeps failed labs open.
pub const KEEP: &str = "SIDESTEP_KEEP_LAB";

/// A lab of this process, as far as somebody needs it who enters it.
#[derive(Clone, Debug)]
struct Site {
    name: String,
    directory: PathBuf,
    root: PathBuf,
    outside: PathBuf,
    pins: PathBuf,
}

static SITES: Mutex<Vec<Site>> = Mutex::new(Vec::new());

fn sites() -> MutexGuard<'static, Vec<Site>> {
    // Whoever panics may have held it.
    SITES.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Notes a lab, and sees to it that a panic stops if that is asked for.
pub(crate) fn enrol(lab: &Lab, directory: &Path) {
    static HOOKED: Once = Once::new();
    sites().push(Site {
        name: lab.name().to_owned(),
        directory: directory.to_owned(),
        root: lab.root().path().to_owned(),
        outside: lab.outside().path().to_owned(),
        pins: lab.pin_directory().to_owned(),
    });
    if std::env::var_os(KEEP).is_some() {
        HOOKED.call_once(|| {
            let report = panic::take_hook();
            panic::set_hook(Box::new(move |what| {
                report(what);
                hold_all();
            }));
        });
    }
}

/// Forgets a lab, which is about to go.
pub(crate) fn dismiss(name: &str) {
    sites().retain(|site| site.name != name);
}

/// Says how to enter every lab of this process, and returns when somebody has said for each that it may go.
pub fn hold_all() {
    static TOLD: AtomicBool = AtomicBool::new(false);
    let sites = sites().clone();
    if !TOLD.swap(true, Ordering::Relaxed) {
        for site in &sites {
            match site.open() {
                Ok(text) => eprintln!("{text}"),
                Err(error) => eprintln!("lab {}: {error:#}", site.name),
            }
        }
    }
    for site in sites {
        while site.mark().exists() {
            sleep(Duration::from_millis(100));
        }
    }
}

impl Site {
    /// The file that keeps it open.
    fn mark(&self) -> PathBuf {
        self.directory.join("open")
    }

    /// Leaves the program `enter` and the mark in the lab's directory, and tells about both.
    fn open(&self) -> Result<String> {
        let enter = self.directory.join("enter");
        fs::write(&enter, self.enter(&cgroup::own_directory()?, &agent::binary()?))
            .with_context(|| enter.display().to_string())?;
        fs::write(self.mark(), "").with_context(|| self.mark().display().to_string())?;
        let (enter, directory) = (enter.display(), self.directory.display());
        Ok(format!(
            "--- the lab {} stays open\n\
             places:        {}\n\
             a shell there: sh {enter} node\n\
             or a command:  sh {enter} node sidestep status\n\
             its files:     {directory} (manifests, agent.log, run)\n\
             let it go:     rm {}",
            self.name,
            self.places().join(" "),
            self.mark().display(),
        ))
    }

    /// The names of its network namespaces, without its own.
    fn places(&self) -> Vec<String> {
        let prefix = format!("{}-", self.name);
        let entries = fs::read_dir(namespace::DIRECTORY).into_iter().flatten().flatten();
        let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
        let mut places: Vec<String> =
            names.filter_map(|name| Some(name.strip_prefix(&prefix)?.to_owned())).collect();
        places.sort_unstable();
        places
    }

    /// The program that takes its caller to a place: to its network namespace, and to its cgroup, without which a socket
    /// is none of the agent's. Not `ip netns exec`, which would hide the BPF file system behind a `/sys` of its own.
    fn enter(&self, own: &Path, binary: &Path) -> String {
        let Self { name, directory, root, outside, pins } = self;
        format!(
            "#!/bin/sh\n\
             # Runs a command, or a shell, in a place of the lab {name}.\n\
             place=${{1:?usage: enter PLACE [COMMAND]}}\n\
             shift\n\
             case $place in\n\
             node) cgroup={root}/host ;;\n\
             *) cgroup={root}/$place ;;\n\
             esac\n\
             # What is not on the node is in the cgroup that no program sees.\n\
             [ -d \"$cgroup\" ] || cgroup={outside}\n\
             # Only from the cgroup of the process that made the lab may a thread go on to one of its own.\n\
             echo $$ > {own}/cgroup.procs && echo $$ > \"$cgroup/cgroup.threads\" || exit 1\n\
             export SIDESTEP_PIN_DIR={pins} SIDESTEP_RUN_DIR={directory}/run SIDESTEP_CGROUP_ROOT={root}\n\
             export PATH={binaries}:$PATH\n\
             [ $# -gt 0 ] || set -- \"${{SHELL:-/bin/sh}}\"\n\
             exec nsenter --net={namespaces}/{name}-\"$place\" \"$@\"\n",
            root = root.display(),
            outside = outside.display(),
            own = own.display(),
            pins = pins.display(),
            directory = directory.display(),
            binaries = binary.parent().unwrap_or(Path::new("/")).display(),
            namespaces = namespace::DIRECTORY,
        )
    }
}
