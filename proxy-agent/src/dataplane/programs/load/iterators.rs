//! The iterators over sockets: loaded for whoever reads them, on the pinned maps.

use std::{io::Read as _, path::Path};

use aya::{Btf, Ebpf, EbpfLoader, programs::Iter};
use proxy_common::HeldSocket;

use super::{OBJECT, missing};
use crate::dataplane::{
    Error,
    node::kernel_types,
    tables::maps::{MAPS, abi_dir},
};

/// The loaded iterators.
#[derive(Debug)]
pub(crate) struct Iterators {
    ebpf: Ebpf,
}

/// Each program and what it walks, as the kernel calls it.
const PROGRAMS: [(&str, &str); 2] = [(HELD, "task_file"), (UDP, "udp")];
const HELD: &str = "held_sockets";
const UDP: &str = "udp_sockets";

impl Iterators {
    /// Loads them on the maps below `pin_dir`.
    ///
    /// # Errors
    /// On kernels that lack what they need: BTF, socket storage and cookies in iterators (5.12).
    pub(crate) fn load(pin_dir: &Path) -> Result<Self, Error> {
        let [thread_pid, group_leader, level, numbers] = kernel_types::offsets([
            ("task_struct", "thread_pid"),
            ("task_struct", "group_leader"),
            ("pid", "level"),
            ("pid", "numbers"),
        ])?;
        let dir = abi_dir(pin_dir);
        let mut loader = EbpfLoader::new();
        for map in &MAPS {
            loader.map_pin_path(map.name, dir.join(map.name));
        }
        let mut ebpf = loader
            .override_global("TASK_THREAD_PID", &thread_pid, true)
            .override_global("TASK_GROUP_LEADER", &group_leader, true)
            .override_global("PID_LEVEL", &level, true)
            .override_global("PID_NUMBERS", &numbers, true)
            .load(OBJECT)?;
        let btf = Btf::from_sys_fs().map_err(|error| Error::Missing(format!("the kernel's BTF: {error}")))?;
        for (name, kind) in PROGRAMS {
            let load = |source| Error::Program { action: "load", program: name, source };
            iterator(&mut ebpf, name)?.load(kind, &btf).map_err(load)?;
        }
        Ok(Self { ebpf })
    }

    /// The sockets with a translation that any process or thread of the agent's process namespace holds; one for each
    /// descriptor.
    pub(crate) fn held(&mut self) -> Result<Vec<HeldSocket>, Error> {
        self.read(HELD)
    }

    /// The UDP sockets with a translation in the network namespace of the calling thread, held or not.
    pub(crate) fn in_namespace(&mut self) -> Result<Vec<HeldSocket>, Error> {
        self.read(UDP)
    }

    fn read(&mut self, program: &'static str) -> Result<Vec<HeldSocket>, Error> {
        let failed = |source| Error::Program { action: "attach", program, source };
        let iterator = iterator(&mut self.ebpf, program)?;
        let link = iterator.attach().and_then(|id| iterator.take_link(id)).map_err(failed)?;
        let mut file =
            link.into_file().map_err(|error| Error::Missing(format!("the iterator {program}: {error}")))?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).map_err(Error::system("read", program))?;
        let sockets = bytes.chunks_exact(size_of::<HeldSocket>());
        Ok(sockets.map(bytemuck::pod_read_unaligned).collect())
    }
}

fn iterator<'a>(ebpf: &'a mut Ebpf, name: &'static str) -> Result<&'a mut Iter, Error> {
    let program = ebpf.program_mut(name).ok_or_else(|| missing(name))?;
    program.try_into().map_err(|source| Error::Program { action: "load", program: name, source })
}
