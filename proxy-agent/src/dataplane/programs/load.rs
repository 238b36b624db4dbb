//! Loads the kernel programs on the pinned maps, and creates missing maps, also longer and shorter ones beside the present.
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
    programs::{Program, ProgramError},
};
use proxy_common::FrontendLine;

use super::{
    hooks::{self, HOOKS, PACKET_PROGRAMS},
    options::{FlowOptions, Options},
};
use crate::dataplane::{
    Error,
    node::{
        host::ensure_bpffs,
        system::{
            has_caller, has_fib_source, has_reuseport_option, has_set_retval, has_tail_calls, netns_cookie,
        },
    },
    tables::{
        capacity::Capacity,
        growth,
        maps::{MAPS, MapSpec, abi_dir, mapped, mapped_at, room},
    },
};

pub(crate) mod iterators;
#[cfg(test)]
mod stack;

pub(crate) static OBJECT: &[u8] = aya::include_bytes_aligned!(env!("SIDESTEP_EBPF_OBJECT"));

/// Loads the socket programs on the pinned maps, and makes missing maps. Attaches nothing. Packet programs are loaded
/// when a device needs them (`interfaces`).
pub fn load(options: &Options) -> Result<Ebpf, Error> {
    load_replacing(options, &[])
}

/// The same on new tables in place of these, which are made empty, beside the present ones (`growth`).
pub(crate) fn load_replacing(options: &Options, replaced: &[&'static str]) -> Result<Ebpf, Error> {
    ensure_bpffs(&options.pin_dir)?;
    let dir = abi_dir(&options.pin_dir);
    let links = dir.join("links");
    fs::create_dir_all(&links).map_err(Error::system("mkdir", &links))?;
    growth::settle(&dir)?;
    let capacity = existing_capacity(&dir, options.capacity)?;
    let mut ebpf = open_maps(options, &capacity, replaced)?;
    all_loaded(&mut ebpf, HOOKS.iter().map(|hook| hook.name))?;
    Ok(ebpf)
}

/// Adds all tables of connections if one of them is among these tables.
pub(crate) fn with_all_of_connections(mut names: Vec<&'static str>) -> Vec<&'static str> {
    let all = || MAPS.iter().filter(|map| map.of_connections).map(|map| map.name);
    if all().any(|name| names.contains(&name)) {
        names.retain(|name| all().all(|other| other != *name));
        names.extend(all());
    }
    names
}

/// Loads the socket programs and these packet programs on tables of another capacity.
pub fn load_beside(
    options: &Options,
    capacity: &Capacity,
    packet_programs: &[&'static str],
) -> Result<Ebpf, Error> {
    let mut ebpf = make_beside(options, capacity)?;
    let hooks = HOOKS.iter().map(|hook| hook.name);
    all_loaded(&mut ebpf, hooks.chain(packet_programs.iter().copied()))?;
    Ok(ebpf)
}

/// The packet programs that are loaded.
pub fn loaded_packet_programs(ebpf: &Ebpf) -> Vec<&'static str> {
    let is_loaded = |name: &&'static str| ebpf.program(name).is_some_and(|program| program.fd().is_ok());
    PACKET_PROGRAMS.into_iter().filter(is_loaded).collect()
}

/// Makes tables of another capacity: those that have another length now anew, empty, beside the present ones (`growth`).
pub(crate) fn make_beside(options: &Options, capacity: &Capacity) -> Result<Ebpf, Error> {
    let dir = abi_dir(&options.pin_dir);
    growth::settle(&dir)?;
    let differs = |map: &MapSpec| match map.length {
        Some(length) => Ok::<_, Error>(length(capacity) != room(&dir, map.name)?),
        None => Ok(false),
    };
    let mut made_anew = Vec::new();
    for map in &MAPS {
        if differs(map)? {
            made_anew.push(map.name);
        }
    }
    open_maps(options, capacity, &with_all_of_connections(made_anew))
}

/// Opens the maps that are pinned, makes those that are not and, beside the present ones, those that are to be replaced,
/// and gives the programs what they need of them.
fn open_maps(options: &Options, capacity: &Capacity, replaced: &[&'static str]) -> Result<Ebpf, Error> {
    let dir = abi_dir(&options.pin_dir);
    let mut loader = EbpfLoader::new();
    for map in &MAPS {
        let is_replaced = replaced.contains(&map.name);
        let path = if is_replaced { growth::next(&dir, map.name) } else { dir.join(map.name) };
        if path.exists() {
            map.check(&path)?;
        }
        if let Some(length) = map.length {
            loader.map_max_entries(map.name, length(capacity));
        }
        loader.map_pin_path(map.name, path);
    }
    let FlowOptions { source_ports, timeouts, limit: _, through_stack, of_pods: _ } = options.flows;
    let seed = flow_seed(&dir)?;
    let node_netns = netns_cookie()?;
    let log_level = if options.program_log { aya_log::Level::Debug as u8 } else { 0 };
    let set_retval = u8::from(has_set_retval());
    let fib_source = u8::from(has_fib_source());
    let reuseport_option = u8::from(has_reuseport_option());
    let tail_calls = u8::from(has_tail_calls());
    let caller = u8::from(has_caller());
    let fast_path = u8::from(!through_stack);
    let host_only = u8::from(options.sockets.host_only);
    let passes_by = u8::from(options.passes_by());
    let ebpf = loader
        .override_global("NODE_NETNS", &node_netns, true)
        .override_global("HOST_ONLY", &host_only, true)
        .override_global("PASSES_BY", &passes_by, true)
        .override_global("HAS_SET_RETVAL", &set_retval, true)
        .override_global("HAS_FIB_SOURCE", &fib_source, true)
        .override_global("HAS_REUSEPORT_OPTION", &reuseport_option, true)
        .override_global("HAS_TAIL_CALLS", &tail_calls, true)
        .override_global("HAS_CALLER", &caller, true)
        .override_global("FAST_PATH", &fast_path, true)
        .override_global("SERVICES_LEN", &capacity.services, true)
        .override_global("FRONTEND_LINES_LEN", &FrontendLine::lines(capacity.frontends), true)
        .override_global("FLOW_REGIONS", &capacity.regions(), true)
        .override_global("FLOW_HASH_SEED", &seed, true)
        .override_global("SOURCE_PORT_FIRST", &source_ports.first(), true)
        .override_global("SOURCE_PORT_COUNT", &source_ports.count(), true)
        .override_global("UDP_TIMEOUT_SECONDS", &timeouts.udp_seconds(), true)
        .override_global(aya_log::LEVEL, &log_level, true)
        .load(OBJECT)?;
    // Nothing is attached yet, or it was there before.
    let seeds =
        if replaced.contains(&"FLOW_SEED") { growth::next(&dir, "FLOW_SEED") } else { dir.join("FLOW_SEED") };
    mapped_at::<u64>(&seeds, "FLOW_SEED")?.store(0, &seed);
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
    let length = |name: &'static str, wanted: u32| {
        if dir.join(name).exists() { room(dir, name) } else { Ok(wanted) }
    };
    Ok(Capacity {
        services: length("SERVICES", wanted.services)?,
        frontends: length("FRONTENDS", wanted.frontends)?,
        endpoints: length("ENDPOINTS", wanted.endpoints)?,
        clients: length("AFFINITY", wanted.clients)?,
        flows: if length("SOURCE_PORTS", 0)? == 1 { 0 } else { length("FLOWS", wanted.flows)? },
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
