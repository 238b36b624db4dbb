//! Creating maps and programs, pinning them, attaching, and replacing programs behind their links.
//!
//! The verifier takes most of the time that an agent needs to start, and holds no lock for those who may load anything
//! (`bpf_check`): programs are loaded side by side, and those of packets only when a device needs them.
//!
//! Maps and links are pinned, so the datapath outlives the agent. A restarted agent loads its own programs
//! on the maps that are there and puts them behind the links that are there: nothing is ever detached.

use std::{
    fs::{self, File},
    hash::{BuildHasher as _, RandomState},
    io, panic,
    path::{Path, PathBuf},
    thread,
};

use aya::{
    Ebpf, EbpfLoader,
    maps::MapInfo,
    programs::{CgroupAttachMode, Program, ProgramError, links::FdLink},
};
use nix::fcntl::{Flock, FlockArg};
use proxy_common::{
    connection::buckets::{REGION, SLOTS},
    counters::SHARDS,
};

use crate::dataplane::{
    Error, FlowOptions, MAPS, abi_dir, ensure_bpffs, has_fib_source, has_set_retval, netns_cookie,
    node::interfaces,
    tables::{bpf, pinned::mapped},
};

#[cfg(test)]
mod stack;

static OBJECT: &[u8] = aya::include_bytes_aligned!(env!("SIDESTEP_EBPF_OBJECT"));

/// One kernel program and where it is attached.
#[derive(Debug)]
pub struct Hook {
    /// The program's name, and its link's.
    pub name: &'static str,
    /// `enum bpf_attach_type`.
    pub attach_type: AttachType,
}

/// The values of `enum bpf_attach_type` that are used here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum AttachType {
    Inet4Connect = 10,
    Inet6Connect = 11,
    Udp4Sendmsg = 14,
    Udp6Sendmsg = 15,
    Udp4Recvmsg = 19,
    Udp6Recvmsg = 20,
    Inet4Getpeername = 29,
    Inet6Getpeername = 30,
    InetSockRelease = 34,
}

/// The hooks in the order in which they are attached: what undoes a translation stands before what makes
/// one, so that no program ever sees a peer that it did not ask for.
pub const HOOKS: [Hook; 9] = [
    Hook { name: "release", attach_type: AttachType::InetSockRelease },
    Hook { name: "recvmsg4", attach_type: AttachType::Udp4Recvmsg },
    Hook { name: "recvmsg6", attach_type: AttachType::Udp6Recvmsg },
    Hook { name: "getpeername4", attach_type: AttachType::Inet4Getpeername },
    Hook { name: "getpeername6", attach_type: AttachType::Inet6Getpeername },
    Hook { name: "sendmsg4", attach_type: AttachType::Udp4Sendmsg },
    Hook { name: "sendmsg6", attach_type: AttachType::Udp6Sendmsg },
    Hook { name: "connect4", attach_type: AttachType::Inet4Connect },
    Hook { name: "connect6", attach_type: AttachType::Inet6Connect },
];

/// How much the tables hold. Tables that are there already keep their size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capacity {
    /// Service ports in all families.
    pub services: u32,
    /// Addresses that lead to them, each with its port.
    pub frontends: u32,
    /// Endpoints, counting those that an update replaces until it is over.
    pub endpoints: u32,
    /// Connections and UDP flows from outside.
    pub flows: u32,
}

impl Capacity {
    /// Regions of FLOWS, which it consists of.
    fn regions(&self) -> u32 {
        // As many buckets as a place can name.
        self.flows.div_ceil(REGION * SLOTS).clamp(1, (1 << 24) / REGION)
    }

    /// Buckets of FLOWS.
    fn buckets(&self) -> u32 {
        self.regions() * REGION
    }
}

impl Default for Capacity {
    fn default() -> Self {
        Self { services: 1 << 17, frontends: 1 << 18, endpoints: 1 << 18, flows: 1 << 16 }
    }
}

/// Where a datapath lives.
#[derive(Clone, Debug)]
pub struct Options {
    /// Directory on a BPF file system for maps and links.
    pub pin_dir: PathBuf,
    /// The cgroup whose processes are served; the node's root.
    pub cgroup_root: PathBuf,
    /// Sizes for tables that are made new.
    pub capacity: Capacity,
    /// Whether the programs tell every decision (`aya_log`), for debugging. Switched off, the verifier
    /// removes it.
    pub program_log: bool,
    /// What is done with flows from outside.
    pub flows: FlowOptions,
}

/// Loads the programs of sockets on pinned maps, made new where they are missing. Attaches nothing. Those of packets are
/// loaded when a device needs them (`interfaces`).
pub fn load(options: &Options) -> Result<Ebpf, Error> {
    ensure_bpffs(&options.pin_dir)?;
    let dir = abi_dir(&options.pin_dir);
    let links = dir.join("links");
    fs::create_dir_all(&links).map_err(Error::system("mkdir", &links))?;

    let mut loader = EbpfLoader::new();
    for map in &MAPS {
        let path = dir.join(map.name);
        if path.exists() {
            map.check(&path)?;
        }
        loader.map_pin_path(map.name, path);
    }
    let capacity = existing_capacity(&dir, options.capacity)?;
    let Capacity { services, frontends, endpoints, flows: _ } = capacity;
    let FlowOptions { source_ports, timeouts, through_stack } = options.flows;
    let seed = flow_seed(&dir)?;
    let node_netns = netns_cookie()?;
    let log_level = if options.program_log { aya_log::Level::Debug as u8 } else { 0 };
    let set_retval = u8::from(has_set_retval());
    let fib_source = u8::from(has_fib_source());
    let fast_path = u8::from(!through_stack);
    let mut ebpf = loader
        .map_max_entries("SERVICES", services)
        .map_max_entries("NAMES", services)
        .map_max_entries("COUNTERS", services.saturating_mul(SHARDS))
        .map_max_entries("REFUSALS", services)
        .map_max_entries("FRONTENDS", frontends)
        .map_max_entries("ADDRESSES", frontends)
        .map_max_entries("FLOWS", capacity.buckets() * SLOTS)
        .map_max_entries("FLOW_TAGS", capacity.buckets())
        .map_max_entries("FLOW_USES", capacity.buckets())
        .map_max_entries("ENDPOINTS", endpoints)
        .map_max_entries("ENDPOINT_STATE", endpoints)
        .override_global("NODE_NETNS", &node_netns, true)
        .override_global("HAS_SET_RETVAL", &set_retval, true)
        .override_global("HAS_FIB_SOURCE", &fib_source, true)
        .override_global("FAST_PATH", &fast_path, true)
        .override_global("SERVICES_LEN", &services, true)
        .override_global("FLOW_REGIONS", &capacity.regions(), true)
        .override_global("FLOW_HASH_SEED", &seed, true)
        .override_global("SOURCE_PORT_FIRST", &source_ports.first(), true)
        .override_global("SOURCE_PORT_COUNT", &source_ports.count(), true)
        .override_global("UDP_TIMEOUT_SECONDS", &timeouts.udp_seconds(), true)
        .override_global(aya_log::LEVEL, &log_level, true)
        .load(OBJECT)?;
    // Nothing is attached yet, or it was there before.
    mapped::<u64>(&dir, "FLOW_SEED")?.store(0, &seed);
    all_loaded(&mut ebpf, HOOKS.iter().map(|hook| hook.name))?;
    Ok(ebpf)
}

/// The same with the programs of packets, for those who do not ask which devices there are.
pub fn load_all(options: &Options) -> Result<Ebpf, Error> {
    let mut ebpf = load(options)?;
    load_packet_programs(&mut ebpf)?;
    Ok(ebpf)
}

/// Loads all programs of packets, whatever devices there are.
pub fn load_packet_programs(ebpf: &mut Ebpf) -> Result<(), Error> {
    all_loaded(ebpf, interfaces::PROGRAMS)
}

fn all_loaded(ebpf: &mut Ebpf, names: impl IntoIterator<Item = &'static str>) -> Result<(), Error> {
    match load_programs(ebpf, names).into_iter().next() {
        Some((_, error)) => Err(error),
        None => Ok(()),
    }
}

/// Loads programs side by side, as far as they are not loaded; returns those that cannot be, and why.
pub(crate) fn load_programs(
    ebpf: &mut Ebpf,
    names: impl IntoIterator<Item = &'static str>,
) -> Vec<(&'static str, Error)> {
    let mut wanted: Vec<&'static str> = names.into_iter().collect();
    let mut failed = thread::scope(|scope| {
        let mut threads = Vec::with_capacity(wanted.len());
        for (found, program) in ebpf.programs_mut() {
            if let Some(place) = wanted.iter().position(|name| *name == found) {
                let name = wanted.swap_remove(place);
                threads.push((name, scope.spawn(move || load_program(program))));
            }
        }
        let joined = threads.into_iter().map(|(name, thread)| {
            (name, thread.join().unwrap_or_else(|payload| panic::resume_unwind(payload)))
        });
        let refused = |(name, result): (_, Result<(), ProgramError>)| {
            let source = result.err()?;
            Some((name, Error::Program { action: "load", program: name, source }))
        };
        joined.filter_map(refused).collect::<Vec<_>>()
    });
    failed.extend(wanted.into_iter().map(|name| (name, missing(name))));
    failed
}

/// The sizes of tables that are pinned already, else those that are wanted.
fn existing_capacity(dir: &Path, wanted: Capacity) -> Result<Capacity, Error> {
    let length = |name: &'static str| -> Result<Option<u32>, Error> {
        let path = dir.join(name);
        if !path.exists() {
            return Ok(None);
        }
        Ok(Some(MapInfo::from_pin(&path).map_err(Error::map(name))?.max_entries()))
    };
    let (services, frontends, endpoints) = (length("SERVICES")?, length("FRONTENDS")?, length("ENDPOINTS")?);
    Ok(match (services, frontends, endpoints) {
        (Some(services), Some(frontends), Some(endpoints)) => {
            let flows = length("FLOWS")?.unwrap_or(wanted.flows);
            Capacity { services, frontends, endpoints, flows }
        }
        _ => wanted,
    })
}

/// What decides where in FLOWS a flow is; drawn once, and the same as long as the table is.
fn flow_seed(dir: &Path) -> Result<u64, Error> {
    let known = if dir.join("FLOW_SEED").exists() {
        mapped::<u64>(dir, "FLOW_SEED")?.load(0).filter(|seed| *seed != 0)
    } else {
        None
    };
    // The standard library's hashers begin with what the kernel's random generator gave it.
    Ok(known.unwrap_or_else(|| RandomState::new().hash_one(0) | 1))
}

/// All programs: those of sockets, then those of packets.
fn program_names() -> impl Iterator<Item = &'static str> {
    HOOKS.iter().map(|hook| hook.name).chain(interfaces::PROGRAMS)
}

/// A program by its name.
pub(crate) fn program<'a>(ebpf: &'a mut Ebpf, name: &str) -> Result<&'a mut Program, Error> {
    ebpf.program_mut(name).ok_or_else(|| missing(name))
}

fn missing(program: &str) -> Error {
    Error::Missing(format!("the object holds no program {program}"))
}

fn load_program(program: &mut Program) -> Result<(), ProgramError> {
    if program.fd().is_ok() {
        return Ok(());
    }
    match program {
        Program::CgroupSockAddr(program) => program.load(),
        Program::CgroupSock(program) => program.load(),
        Program::SchedClassifier(program) => program.load(),
        _ => Err(ProgramError::UnexpectedProgramType),
    }
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

/// How many instructions the verifier walked for each loaded program (5.16), by the program's name.
pub fn verified_instructions(ebpf: &mut Ebpf) -> Result<Vec<(&'static str, u32)>, Error> {
    let mut counts = Vec::new();
    for name in program_names() {
        let info = program(ebpf, name)?.info().map_err(|source| Error::Program {
            action: "ask for",
            program: name,
            source,
        })?;
        if let Some(count) = info.verified_instruction_count() {
            counts.push((name, count));
        }
    }
    Ok(counts)
}

/// Attaches every program to the cgroup, or puts it behind the link that is pinned there already.
pub fn attach(ebpf: &mut Ebpf, options: &Options) -> Result<(), Error> {
    let cgroup_root = &options.cgroup_root;
    let cgroup = File::open(cgroup_root).map_err(Error::system("open", cgroup_root))?;
    for hook in &HOOKS {
        let pin = link_pin(&options.pin_dir, hook);
        let program = program(ebpf, hook.name)?;
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

/// Checks that a pinned link attaches our program where the options say.
fn in_place(program: &Program, hook: &Hook, options: &Options) -> Result<(), Error> {
    let info =
        program.info().map_err(|source| Error::Program { action: "ask for", program: hook.name, source })?;
    if bpf::attached_programs(&options.cgroup_root, hook)?.contains(&info.id()) {
        return Ok(());
    }
    Err(Error::Missing(format!(
        "the links under {} are attached to another cgroup than {}: start with the --cgroup-root that they were \
         made with, or run `sidestep cleanup` first",
        options.pin_dir.display(),
        options.cgroup_root.display(),
    )))
}

/// Locks the tables below `pin_dir` for one writer, until the lock is dropped: two would give out the same slots.
pub fn lock(pin_dir: &Path) -> Result<Flock<File>, Error> {
    ensure_bpffs(pin_dir)?;
    let dir = abi_dir(pin_dir);
    fs::create_dir_all(&dir).map_err(Error::system("mkdir", &dir))?;
    let directory = File::open(&dir).map_err(Error::system("open", &dir))?;
    Flock::lock(directory, FlockArg::LockExclusiveNonblock).map_err(|(_, errno)| {
        if errno == nix::errno::Errno::EWOULDBLOCK {
            Error::Missing(format!(
                "an agent runs with the tables under {}: stop it first",
                pin_dir.display()
            ))
        } else {
            Error::system("flock", &dir)(errno.into())
        }
    })
}

/// EPERM from attaching means that somebody's program claims the hook for itself alone.
fn exclusive(error: ProgramError, cgroup: &Path, hook: &Hook) -> Error {
    if let ProgramError::SyscallError(call) = &error
        && call.io_error.raw_os_error() == Some(libc::EPERM)
    {
        return Error::Missing(format!(
            "another program is attached exclusively at {} of {} or above: see it with `bpftool cgroup show {}`; \
             its owner must attach it with BPF_F_ALLOW_MULTI",
            hook.name,
            cgroup.display(),
            cgroup.display(),
        ));
    }
    Error::Program { action: "attach", program: hook.name, source: error }
}

fn link_pin(pin_dir: &Path, hook: &Hook) -> PathBuf {
    abi_dir(pin_dir).join("links").join(hook.name)
}

/// Whether the link of `hook` is pinned and attached to a cgroup. One whose cgroup was removed stays pinned.
pub fn is_attached(pin_dir: &Path, hook: &Hook) -> bool {
    bpf::cgroup_of(&link_pin(pin_dir, hook)).is_ok_and(|cgroup| cgroup != 0)
}

/// Whether the link of `hook` is pinned, attached or not.
pub fn is_pinned(pin_dir: &Path, hook: &Hook) -> bool {
    link_pin(pin_dir, hook).exists()
}

/// Detaches and unpins everything of ours below `pin_dir`, and says what went. Nothing else is touched.
pub fn cleanup(pin_dir: &Path) -> Result<Vec<PathBuf>, Error> {
    let dir = abi_dir(pin_dir);
    let links = dir.join("links");
    // What makes translations of packets goes before what keeps them.
    let mut removed = interfaces::cleanup(pin_dir)?;
    // In the opposite order of attaching: connect first.
    let pins =
        HOOKS.iter().rev().map(|hook| links.join(hook.name)).chain(MAPS.iter().map(|map| dir.join(map.name)));
    for pin in pins {
        match fs::remove_file(&pin) {
            Ok(()) => removed.push(pin),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(Error::system("unlink", &pin)(error)),
        }
    }
    for directory in [links.join("tc").as_path(), links.as_path(), dir.as_path(), pin_dir] {
        match fs::remove_dir(directory) {
            Ok(()) => removed.push(directory.to_owned()),
            // Not there, or something of somebody else's is in it.
            Err(error)
                if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::DirectoryNotEmpty) => {}
            Err(error) => return Err(Error::system("rmdir", directory)(error)),
        }
    }
    Ok(removed)
}
