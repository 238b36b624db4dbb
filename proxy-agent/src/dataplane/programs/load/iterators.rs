//! The iterators over sockets: loaded for whoever reads them, on the pinned maps.

use std::{io::Read as _, path::Path};

use aya::{Btf, Ebpf, EbpfLoader, programs::Iter};
use bytemuck::Pod;
#[cfg(doc)]
use proxy_common::HeldSocket;

use super::{OBJECT, missing};
use crate::{
    dataplane::{
        Error,
        node::kernel_types,
        tables::maps::{MAPS, abi_dir},
    },
    memory,
};

/// The loaded iterators.
#[derive(Debug)]
pub(crate) struct Iterators {
    ebpf: Ebpf,
}

/// A program, and what it walks in the kernel's words.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Iterator {
    program: &'static str,
    walks: &'static str,
}

/// The sockets with a translation that any process or thread of the agent's process namespace holds, one for each
/// descriptor: of [`HeldSocket`].
pub(crate) const HELD_SOCKETS: Iterator = Iterator { program: "held_sockets", walks: "task_file" };
/// The UDP sockets with a translation in the network namespace of the calling thread, held or not: of [`HeldSocket`].
pub(crate) const UDP_SOCKETS: Iterator = Iterator { program: "udp_sockets", walks: "udp" };
/// The cookies of sockets that own an element of PEERS and that a process or thread holds.
pub(crate) const HELD_PEERS: Iterator = Iterator { program: "held_peers", walks: "task_file" };
/// The cookies of TCP sockets that own an element of PEERS, in the network namespace of the calling thread.
pub(crate) const TCP_PEERS: Iterator = Iterator { program: "tcp_peers", walks: "tcp" };

impl Iterators {
    /// Loads these on the maps below `pin_dir`.
    ///
    /// # Errors
    /// On kernels that lack what they need: BTF, socket storage and cookies in iterators (5.12).
    pub(crate) fn load(pin_dir: &Path, iterators: &[Iterator]) -> Result<Self, Error> {
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
        for Iterator { program, walks } in iterators {
            let load = |source| Error::Program { action: "load", program, source };
            iterator(&mut ebpf, program)?.load(walks, &btf).map_err(load)?;
        }
        drop(btf);
        // The programs hold theirs; the others may grow, and are not to stay for us.
        for map in &MAPS {
            drop(ebpf.take_map(map.name));
        }
        memory::give_back();
        Ok(Self { ebpf })
    }

    /// Everything that a loaded iterator reports.
    pub(crate) fn read<T: Pod>(&mut self, Iterator { program, .. }: Iterator) -> Result<Vec<T>, Error> {
        let failed = |source| Error::Program { action: "attach", program, source };
        let iterator = iterator(&mut self.ebpf, program)?;
        let link = iterator.attach().and_then(|id| iterator.take_link(id)).map_err(failed)?;
        let mut file =
            link.into_file().map_err(|error| Error::Missing(format!("the iterator {program}: {error}")))?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).map_err(Error::system("read", program))?;
        Ok(bytes.chunks_exact(size_of::<T>()).map(bytemuck::pod_read_unaligned).collect())
    }
}

fn iterator<'a>(ebpf: &'a mut Ebpf, name: &'static str) -> Result<&'a mut Iter, Error> {
    let program = ebpf.program_mut(name).ok_or_else(|| missing(name))?;
    program.try_into().map_err(|source| Error::Program { action: "load", program: name, source })
}
