//! Alternative programs on the same maps, each in a cgroup of its own: they store the connected peer in other ways
//! (`proxy-ebpf`, feature `bench`), or not at all; and the shipped one without events.

use std::{fs::File, path::Path};

use anyhow::{Context as _, Result};
use aya::{
    Ebpf, EbpfLoader,
    programs::{CgroupAttachMode, CgroupSock, CgroupSockAddr},
};
use proxy_agent::dataplane::{Capacity, has_set_retval, netns_cookie};
use proxy_common::FrontendLine;
use sidestep_tests::cgroup::Cgroup;

use crate::{
    datapath::Datapath,
    programs::{self, Figures},
};

/// A connect program, its counterpart at the socket's end, and its title in tables.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Comparison {
    /// The connect program.
    pub(crate) connect: &'static str,
    /// The program at the socket's end, if there is one.
    pub(crate) release: Option<&'static str>,
    /// The title.
    pub(crate) title: &'static str,
}

impl Comparison {
    /// Whether it translates connections to a VIP.
    pub(crate) fn translates(&self) -> bool {
        self.connect != EMPTY
    }
}

/// The program that shows the cost of measuring.
const EMPTY: &str = "empty4";

/// The shipped program, but for what it tells listeners.
pub(crate) const UNTOLD: &str = "untold4";

/// All of them.
pub(crate) const COMPARISONS: [Comparison; 6] = [
    Comparison { connect: EMPTY, release: None, title: "a program that does nothing" },
    Comparison { connect: "decide4", release: None, title: "nothing remembered" },
    Comparison { connect: "small4", release: None, title: "24 bytes of socket storage" },
    Comparison { connect: "cookie4", release: Some("cookie_release"), title: "hash by cookie" },
    Comparison { connect: "storage4", release: None, title: "48 bytes of socket storage" },
    Comparison { connect: UNTOLD, release: Some("release"), title: "shipped, without events" },
];

/// The programs, loaded and attached.
pub(crate) struct Comparisons {
    ebpf: Ebpf,
    cgroups: Vec<(Comparison, Cgroup)>,
}

impl Comparisons {
    /// Loads the programs of `object` on the tables of `datapath`.
    pub(crate) fn new(object: &Path, datapath: &Datapath, parent: &Cgroup) -> Result<Self> {
        let (cookie, set_retval) = (netns_cookie()?, u8::from(has_set_retval()));
        let Capacity { services, frontends, .. } = Capacity::default();
        let lines = FrontendLine::lines(frontends);
        let mut loader = EbpfLoader::new();
        for (name, pin) in datapath.tables() {
            loader.map_pin_path(name, pin);
        }
        let mut ebpf = loader
            .override_global("NODE_NETNS", &cookie, true)
            .override_global("HAS_SET_RETVAL", &set_retval, true)
            .override_global("SERVICES_LEN", &services, true)
            .override_global("FRONTEND_LINES_LEN", &lines, true)
            .load_file(object)
            .with_context(|| format!("loading {}", object.display()))?;
        let mut cgroups = Vec::new();
        for comparison in COMPARISONS {
            let cgroup = parent.child(comparison.connect)?;
            let directory = File::open(cgroup.path())?;
            let program: &mut CgroupSockAddr =
                ebpf.program_mut(comparison.connect).context(comparison.connect)?.try_into()?;
            program.load().context(comparison.connect)?;
            program.attach(&directory, CgroupAttachMode::Single)?;
            if let Some(name) = comparison.release {
                let program: &mut CgroupSock = ebpf.program_mut(name).context(name)?.try_into()?;
                program.load().context(name)?;
                program.attach(&directory, CgroupAttachMode::Single)?;
            }
            cgroups.push((comparison, cgroup));
        }
        Ok(Self { ebpf, cgroups })
    }

    /// The programs, each with its cgroup.
    pub(crate) fn cgroups(&self) -> &[(Comparison, Cgroup)] {
        &self.cgroups
    }

    /// The kernel's statistics of a program.
    pub(crate) fn figures(&mut self, program: &str) -> Result<Figures> {
        programs::figures(&mut self.ebpf, program)
    }
}
