//! Keeps the lab of a failed test open for inspection: with [`KEEP`] in the environment, a panicking thread stops until
//! the user closes the lab. It does not unwind meanwhile, so the agent, servers and connections stay alive.
//!
//! `cargo xtask test --keep FILTER` sets the variable and disables the runner's timeout; docs/lab.md says how to enter
//! a lab.

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

/// What a user needs of a lab of this process to enter it.
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
    // The panicking thread may have held the lock.
    SITES.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Registers a lab; with [`KEEP`] set, also the panic hook that stops.
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

/// Unregisters a lab that is about to be removed.
pub(crate) fn dismiss(name: &str) {
    sites().retain(|site| site.name != name);
}

/// Prints how to enter every lab of this process, and returns when the user has closed all of them.
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
    /// The file that keeps the lab open.
    fn mark(&self) -> PathBuf {
        self.directory.join("open")
    }

    /// Writes the program `enter` and the mark into the lab's directory, and returns a message about both.
    fn open(&self) -> Result<String> {
        let enter = self.directory.join("enter");
        fs::write(&enter, self.enter(&cgroup::own_directory()?, &agent::binary()?))
            .with_context(|| format!("cannot write {}", enter.display()))?;
        fs::write(self.mark(), "").with_context(|| format!("cannot write {}", self.mark().display()))?;
        let (enter, directory) = (enter.display(), self.directory.display());
        Ok(format!(
            "--- the lab {} stays open\n\
             places:        {}\n\
             a shell there: sh {enter} node\n\
             or a command:  sh {enter} node sidestep status\n\
             its files:     {directory} (manifests, agent.log, run)\n\
             close it:      rm {}",
            self.name,
            self.places().join(" "),
            self.mark().display(),
        ))
    }

    /// The names of the lab's network namespaces, without the lab's name.
    fn places(&self) -> Vec<String> {
        let prefix = format!("{}-", self.name);
        let entries = fs::read_dir(namespace::DIRECTORY).into_iter().flatten().flatten();
        let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
        let mut places: Vec<String> =
            names.filter_map(|name| Some(name.strip_prefix(&prefix)?.to_owned())).collect();
        places.sort_unstable();
        places
    }

    /// The program that moves its caller to a place: into its network namespace, and into its cgroup, where the agent's
    /// programs see sockets. `ip netns exec` would mount a `/sys` of its own, which hides bpffs.
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
             # Places beside the node are in the cgroup without programs.\n\
             [ -d \"$cgroup\" ] || cgroup={outside}\n\
             # A thread can enter the lab's cgroups only from the cgroup of the process that made the lab.\n\
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
