//! Loads the kernel programs on the pinned maps, and creates missing maps.
//!
//! The verifier takes most of an agent's start time, and takes no lock for privileged loaders (`bpf_check`): so
//! programs load in parallel, and packet programs only when a device needs them.

use std::{
    fs,
    hash::{BuildHasher as _, RandomState},
    panic,
    path::Path,
    thread,
};

use aya::{
    Ebpf, EbpfLoader,
    maps::MapInfo,
    programs::{Program, ProgramError},
};
use proxy_common::{FrontendLine, connection::buckets::SLOTS, counters::SHARDS};

use super::{
    hooks::{self, HOOKS, PACKET_PROGRAMS},
    options::{Capacity, FlowOptions, Options},
};
use crate::dataplane::{
    Error,
    node::{
        host::ensure_bpffs,
        system::{has_fib_source, has_reuseport_option, has_set_retval, netns_cookie},
    },
    tables::maps::{MAPS, abi_dir, mapped},
};

pub(crate) mod iterators;
#[cfg(test)]
mod stack;

static OBJECT: &[u8] = aya::include_bytes_aligned!(env!("SIDESTEP_EBPF_OBJECT"));

/// Loads the socket programs on the pinned maps, and makes missing maps. Attaches nothing. Packet programs are loaded
/// when a device needs them (`interfaces`).
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
    let lines = FrontendLine::lines(frontends);
    let FlowOptions { source_ports, timeouts, through_stack } = options.flows;
    let seed = flow_seed(&dir)?;
    let node_netns = netns_cookie()?;
    let log_level = if options.program_log { aya_log::Level::Debug as u8 } else { 0 };
    let set_retval = u8::from(has_set_retval());
    let fib_source = u8::from(has_fib_source());
    let reuseport_option = u8::from(has_reuseport_option());
    let fast_path = u8::from(!through_stack);
    let mut ebpf = loader
        .map_max_entries("SERVICES", services)
        .map_max_entries("NAMES", services)
        .map_max_entries("COUNTERS", services.saturating_mul(SHARDS))
        .map_max_entries("REFUSALS", services)
        .map_max_entries("FRONTENDS", frontends)
        .map_max_entries("FRONTEND_LINES", lines)
        .map_max_entries("ADDRESSES", frontends)
        .map_max_entries("FLOWS", capacity.buckets() * SLOTS)
        .map_max_entries("FLOW_TAGS", capacity.buckets())
        .map_max_entries("FLOW_USES", capacity.buckets())
        .map_max_entries("ENDPOINTS", endpoints)
        .map_max_entries("ENDPOINT_STATE", endpoints)
        .override_global("NODE_NETNS", &node_netns, true)
        .override_global("HAS_SET_RETVAL", &set_retval, true)
        .override_global("HAS_FIB_SOURCE", &fib_source, true)
        .override_global("HAS_REUSEPORT_OPTION", &reuseport_option, true)
        .override_global("FAST_PATH", &fast_path, true)
        .override_global("SERVICES_LEN", &services, true)
        .override_global("FRONTEND_LINES_LEN", &lines, true)
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

/// The same with all packet programs, whatever the devices.
pub fn load_all(options: &Options) -> Result<Ebpf, Error> {
    let mut ebpf = load(options)?;
    load_packet_programs(&mut ebpf)?;
    Ok(ebpf)
}

/// Loads all programs of packets, whatever devices there are.
pub fn load_packet_programs(ebpf: &mut Ebpf) -> Result<(), Error> {
    all_loaded(ebpf, PACKET_PROGRAMS)
}

fn all_loaded(ebpf: &mut Ebpf, names: impl IntoIterator<Item = &'static str>) -> Result<(), Error> {
    match load_programs(ebpf, names).into_iter().next() {
        Some((_, error)) => Err(error),
        None => Ok(()),
    }
}

/// Loads the missing programs in parallel; returns those that failed, and why.
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

/// The sizes of the pinned tables, else the wanted ones.
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

/// The seed of the hash in FLOWS; drawn once, and kept as long as the table.
fn flow_seed(dir: &Path) -> Result<u64, Error> {
    let known = if dir.join("FLOW_SEED").exists() {
        mapped::<u64>(dir, "FLOW_SEED")?.load(0).filter(|seed| *seed != 0)
    } else {
        None
    };
    // The standard library's hashers begin with what the kernel's random generator gave it.
    Ok(known.unwrap_or_else(|| RandomState::new().hash_one(0) | 1))
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

/// How many instructions the verifier processed for each loaded program (5.16), by the program's name.
pub fn verified_instructions(ebpf: &mut Ebpf) -> Result<Vec<(&'static str, u32)>, Error> {
    let mut counts = Vec::new();
    for name in hooks::names() {
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
