//! A made-up version of the tables: every element begins with eight bytes that nobody knows, so that nothing is where it was.
//!
//! The maps are made anew with types that say so, filled, and pinned in the places of those that an agent left.

use std::{
    ffi::CString,
    fs, io,
    os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd, RawFd},
    path::Path,
};

use anyhow::{Context as _, Result, ensure};

/// Bytes in front of every element.
const GAP: usize = 8;

const HASH: u32 = 1;
const ARRAY: u32 = 2;
const LRU_HASH: u32 = 9;
const LPM_TRIE: u32 = 11;
const SK_STORAGE: u32 = 24;

/// `enum bpf_cmd`.
mod command {
    pub(super) const MAP_CREATE: libc::c_long = 0;
    pub(super) const LOOKUP: libc::c_long = 1;
    pub(super) const UPDATE: libc::c_long = 2;
    pub(super) const NEXT_KEY: libc::c_long = 4;
    pub(super) const PIN: libc::c_long = 6;
    pub(super) const GET: libc::c_long = 7;
    pub(super) const INFO: libc::c_long = 15;
    pub(super) const BTF_LOAD: libc::c_long = 18;
    pub(super) const BTF_BY_ID: libc::c_long = 19;
}

/// The beginning of `struct bpf_map_info`.
#[repr(C)]
#[derive(Clone, Copy, Default, Debug)]
struct Info {
    kind: u32,
    id: u32,
    key: u32,
    value: u32,
    entries: u32,
    flags: u32,
    name: [u8; 16],
    others: [u32; 6],
    btf: u32,
    key_type: u32,
    value_type: u32,
    padding: u32,
}

/// Replaces the tables pinned in `directory`. Returns the names of those whose elements have another layout now. Only sockets
/// of the calling process keep what the tables say of them.
pub fn rewrite(directory: &Path) -> Result<Vec<String>> {
    let mut rewritten = Vec::new();
    for entry in fs::read_dir(directory)? {
        let pin = entry?.path();
        if pin.is_dir() {
            continue;
        }
        let name = pin.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if rewrite_one(&pin).with_context(|| name.clone())? {
            rewritten.push(name);
        }
    }
    Ok(rewritten)
}

/// Makes a hash one that forgets (`BPF_MAP_TYPE_LRU_HASH`), and empties it: a table that no version can convert.
pub fn forget(pin: &Path) -> Result<()> {
    let old = object(pin)?;
    let mut info = Info::default();
    ask(&old, &mut info)?;
    ensure!(info.kind == HASH, "{} is no hash", pin.display());
    let new = create(&Info { kind: LRU_HASH, flags: 0, ..info }, &load(&types(info.btf)?)?)?;
    fs::remove_file(pin)?;
    pin_at(&new, pin)
}

fn rewrite_one(pin: &Path) -> Result<bool> {
    let old = object(pin)?;
    let mut info = Info::default();
    ask(&old, &mut info)?;
    let is_known = [HASH, ARRAY, LRU_HASH, LPM_TRIE, SK_STORAGE].contains(&info.kind);
    if !is_known || info.btf == 0 {
        return Ok(false);
    }
    let mut btf = types(info.btf)?;
    let has_keys = [HASH, LRU_HASH].contains(&info.kind);
    let new_key = if has_keys { shifted(&mut btf, info.key_type)? } else { None };
    let new_value = shifted(&mut btf, info.value_type)?;
    if new_key.is_none() && new_value.is_none() {
        return Ok(false);
    }
    let (key_gap, value_gap) =
        (if new_key.is_some() { GAP } else { 0 }, if new_value.is_some() { GAP } else { 0 });
    let loaded = load(&btf)?;
    let new = create(
        &Info {
            key: info.key + u32::try_from(key_gap)?,
            value: info.value + u32::try_from(value_gap)?,
            key_type: new_key.unwrap_or(info.key_type),
            value_type: new_value.unwrap_or(info.value_type),
            ..info
        },
        &loaded,
    )?;
    let widened = |bytes: &[u8], gap: usize| [vec![0xa5; gap], bytes.to_vec()].concat();
    let mut value = vec![0; info.value as usize];
    if info.kind == SK_STORAGE {
        for socket in own_descriptors()? {
            let key = socket.to_ne_bytes();
            if lookup(&old, &key, &mut value).is_ok() {
                update(&new, &key, &widened(&value, value_gap))?;
            }
        }
    } else {
        let mut key: Option<Vec<u8>> = None;
        let mut next = vec![0; info.key as usize];
        for _ in 0..info.entries {
            if next_key(&old, key.as_deref(), &mut next).is_err() {
                break;
            }
            if lookup(&old, &next, &mut value).is_ok() {
                update(&new, &widened(&next, key_gap), &widened(&value, value_gap))?;
            }
            key = Some(next.clone());
        }
    }
    fs::remove_file(pin)?;
    pin_at(&new, pin)?;
    Ok(true)
}

/// Adds a copy of a structure that has the gap in front, and returns its id; nothing for other types.
fn shifted(btf: &mut Vec<u8>, id: u32) -> Result<Option<u32>> {
    let word =
        |bytes: &[u8], at: usize| u32::from_ne_bytes(bytes[at..at + 4].try_into().expect("four bytes"));
    let (header, first, length, strings) =
        (word(btf, 4) as usize, word(btf, 8) as usize, word(btf, 12) as usize, word(btf, 16) as usize);
    ensure!(first + length <= strings, "strings follow the types");
    let begin = header + first;
    let (mut at, mut count, mut found) = (begin, 0, None);
    while at < begin + length {
        count += 1;
        let (kind, members) = (word(btf, at + 4) >> 24 & 0x1f, (word(btf, at + 4) & 0xffff) as usize);
        let size = 12
            + match kind {
                1 | 14 | 17 => 4,
                3 => 12,
                4 | 5 | 15 | 19 => members * 12,
                6 | 13 => members * 8,
                _ => 0,
            };
        if count == id && kind == 4 {
            found = Some(btf[at..at + size].to_vec());
        }
        at += size;
    }
    let Some(mut copy) = found else { return Ok(None) };
    let members = (word(&copy, 4) & 0xffff) as usize;
    // Its size, and where each member begins, in bits.
    let sizes = std::iter::once((8, GAP)).chain((0..members).map(|member| (12 + member * 12 + 8, GAP * 8)));
    for (at, more) in sizes {
        let value = word(&copy, at) + u32::try_from(more)?;
        copy[at..at + 4].copy_from_slice(&value.to_ne_bytes());
    }
    let added = u32::try_from(copy.len())?;
    btf.splice(begin + length..begin + length, copy);
    // Where the strings begin, and how long the types are.
    for at in [12, 16] {
        let value = word(btf, at) + added;
        btf[at..at + 4].copy_from_slice(&value.to_ne_bytes());
    }
    Ok(Some(count + 1))
}

/// The descriptors of this process.
fn own_descriptors() -> Result<Vec<RawFd>> {
    let names = fs::read_dir("/proc/self/fd")?.map(|entry| Ok(entry?.file_name()));
    let names = names.collect::<io::Result<Vec<_>>>()?;
    Ok(names.iter().filter_map(|name| name.to_str()?.parse().ok()).collect())
}

/// Calls `bpf(2)` with 128 bytes of attributes.
fn bpf(number: libc::c_long, attributes: &[u32]) -> io::Result<RawFd> {
    let mut attr = [0_u32; 32];
    attr[..attributes.len()].copy_from_slice(attributes);
    // SAFETY: the addresses among the attributes are of buffers that the callers own.
    let result = unsafe { libc::syscall(libc::SYS_bpf, number, attr.as_mut_ptr(), size_of_val(&attr)) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(RawFd::try_from(result).unwrap_or_default()) }
}

/// Both halves of an address.
#[expect(clippy::cast_possible_truncation, reason = "halves")]
fn address<T>(of: *const T) -> [u32; 2] {
    let whole = of as u64;
    let halves = [whole as u32, (whole >> 32) as u32];
    if cfg!(target_endian = "big") { [halves[1], halves[0]] } else { halves }
}

fn number(descriptor: &OwnedFd) -> u32 {
    descriptor.as_raw_fd().cast_unsigned()
}

fn owned(descriptor: io::Result<RawFd>) -> io::Result<OwnedFd> {
    // SAFETY: the kernel has just returned it, and nothing else owns it.
    descriptor.map(|descriptor| unsafe { OwnedFd::from_raw_fd(descriptor) })
}

fn object(pin: &Path) -> Result<OwnedFd> {
    let path = CString::new(pin.as_os_str().as_encoded_bytes())?;
    Ok(owned(bpf(command::GET, &address(path.as_ptr())))?)
}

fn pin_at(object: &OwnedFd, pin: &Path) -> Result<()> {
    let path = CString::new(pin.as_os_str().as_encoded_bytes())?;
    let [low, high] = address(path.as_ptr());
    bpf(command::PIN, &[low, high, number(object)])?;
    Ok(())
}

fn ask<T>(object: &OwnedFd, info: &mut T) -> io::Result<()> {
    let [low, high] = address(std::ptr::from_mut(info));
    bpf(command::INFO, &[number(object), u32::try_from(size_of::<T>()).unwrap_or_default(), low, high])
        .map(drop)
}

/// The BTF with this id.
fn types(id: u32) -> Result<Vec<u8>> {
    let object = owned(bpf(command::BTF_BY_ID, &[id]))?;
    let mut bytes = Vec::new();
    for _ in 0..2 {
        // `struct bpf_btf_info`.
        let [low, high] = address(bytes.as_mut_ptr());
        let mut info = [low, high, u32::try_from(bytes.len())?, 0];
        ask(&object, &mut info)?;
        bytes.resize(info[2] as usize, 0);
    }
    Ok(bytes)
}

fn load(btf: &[u8]) -> Result<OwnedFd> {
    let [low, high] = address(btf.as_ptr());
    Ok(owned(bpf(command::BTF_LOAD, &[low, high, 0, 0, u32::try_from(btf.len())?]))?)
}

fn create(info: &Info, btf: &OwnedFd) -> Result<OwnedFd> {
    let name = |part: usize| u32::from_ne_bytes(info.name[part * 4..][..4].try_into().expect("four bytes"));
    let attributes = [
        info.kind,
        info.key,
        info.value,
        info.entries,
        info.flags,
        0,
        0,
        name(0),
        name(1),
        name(2),
        name(3),
        0,
        number(btf),
        info.key_type,
        info.value_type,
    ];
    Ok(owned(bpf(command::MAP_CREATE, &attributes))?)
}

/// The attributes of a command on an element.
fn element(map: &OwnedFd, key: Option<&[u8]>, other: *const u8) -> [u32; 6] {
    let ([key, key_high], [other, other_high]) =
        (key.map_or([0, 0], |key| address(key.as_ptr())), address(other));
    [number(map), 0, key, key_high, other, other_high]
}

fn lookup(map: &OwnedFd, key: &[u8], value: &mut [u8]) -> io::Result<()> {
    bpf(command::LOOKUP, &element(map, Some(key), value.as_mut_ptr())).map(drop)
}

fn update(map: &OwnedFd, key: &[u8], value: &[u8]) -> Result<()> {
    bpf(command::UPDATE, &element(map, Some(key), value.as_ptr()))?;
    Ok(())
}

fn next_key(map: &OwnedFd, key: Option<&[u8]>, next: &mut [u8]) -> io::Result<()> {
    bpf(command::NEXT_KEY, &element(map, key, next.as_mut_ptr())).map(drop)
}
