//! The few `bpf(2)` calls that aya lacks or does not export: replacing the program behind a link to a cgroup, detaching
//! a pinned link at once, pinning something a second time, and asking what is attached to a cgroup, what a pinned link is
//! attached to, and what types a map has.

use std::{
    ffi::CString,
    fs::{self, File},
    io,
    os::fd::{AsFd as _, AsRawFd, FromRawFd as _, OwnedFd},
    path::Path,
};

use aya::programs::Program;
use aya_obj::generated::bpf_cmd;

use super::Error;

/// The part of `union bpf_attr` that BPF_OBJ_GET and `BPF_OBJ_PIN` read.
#[repr(C)]
#[derive(Default)]
struct ObjGet {
    pathname: u64,
    bpf_fd: u32,
    file_flags: u32,
}

/// The part of `union bpf_attr` that BPF_LINK_UPDATE reads.
#[repr(C)]
#[derive(Default)]
struct LinkUpdate {
    link_fd: u32,
    new_prog_fd: u32,
    flags: u32,
    old_prog_fd: u32,
}

/// The part of `union bpf_attr` that `BPF_LINK_DETACH` reads.
#[repr(C)]
struct LinkDetach {
    link_fd: u32,
}

/// The part of `union bpf_attr` that BPF_PROG_QUERY reads and writes.
#[repr(C)]
#[derive(Default)]
struct ProgQuery {
    target_fd: u32,
    attach_type: u32,
    query_flags: u32,
    attach_flags: u32,
    prog_ids: u64,
    prog_cnt: u32,
    padding: u32,
    prog_attach_flags: u64,
    link_ids: u64,
    link_attach_flags: u64,
    revision: u64,
}

/// The part of `union bpf_attr` that `BPF_OBJ_GET_INFO_BY_FD` reads and writes.
#[repr(C)]
#[derive(Default)]
struct ObjInfo {
    bpf_fd: u32,
    info_len: u32,
    info: u64,
}

/// `struct bpf_link_info` of a link to a cgroup.
#[repr(C)]
#[derive(Default)]
struct CgroupLinkInfo {
    kind: u32,
    id: u32,
    prog_id: u32,
    padding: u32,
    cgroup_id: u64,
    attach_type: u32,
    padding_2: u32,
}

/// `struct bpf_link_info` of a TCX link.
#[repr(C)]
#[derive(Default)]
struct TcxLinkInfo {
    kind: u32,
    id: u32,
    prog_id: u32,
    padding: u32,
    ifindex: u32,
    attach_type: u32,
}

/// Calls `bpf(2)`.
///
/// # Safety
/// `attr` must be what `command` expects, and every address in it must outlive the call.
pub(super) unsafe fn bpf<T>(command: bpf_cmd, attr: &mut T) -> io::Result<i32> {
    // SAFETY: the caller's promise.
    let result = unsafe {
        libc::syscall(libc::SYS_bpf, command as libc::c_long, std::ptr::from_mut(attr), size_of::<T>())
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(i32::try_from(result).unwrap_or_default()) }
}

pub(super) fn open_pin(pin: &Path) -> Result<OwnedFd, Error> {
    let path = CString::new(pin.as_os_str().as_encoded_bytes())
        .map_err(|error| Error::system("BPF_OBJ_GET", pin)(error.into()))?;
    let mut attr = ObjGet { pathname: path.as_ptr() as u64, ..Default::default() };
    // SAFETY: `path` outlives the call.
    let fd = unsafe { bpf(bpf_cmd::BPF_OBJ_GET, &mut attr) }.map_err(Error::system("BPF_OBJ_GET", pin))?;
    // SAFETY: the kernel has just returned this descriptor, and nothing else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Pins what is pinned at `old` at `new`, too.
pub(crate) fn pin_again(old: &Path, new: &Path) -> Result<(), Error> {
    let object = open_pin(old)?;
    let path = CString::new(new.as_os_str().as_encoded_bytes())
        .map_err(|error| Error::system("BPF_OBJ_PIN", new)(error.into()))?;
    let mut attr = ObjGet {
        pathname: path.as_ptr() as u64,
        bpf_fd: object.as_raw_fd().cast_unsigned(),
        ..Default::default()
    };
    // SAFETY: `path` outlives the call.
    unsafe { bpf(bpf_cmd::BPF_OBJ_PIN, &mut attr) }.map_err(Error::system("BPF_OBJ_PIN", new))?;
    Ok(())
}

/// What a link to a cgroup joins.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct CgroupLink {
    /// The id of its cgroup; 0 if that is gone, or the link was detached.
    pub(crate) cgroup: u64,
    /// The id of the program behind it.
    pub(crate) program: u32,
}

/// What a pinned link to a cgroup joins (5.8).
pub(crate) fn cgroup_link(link: &Path) -> Result<CgroupLink, Error> {
    let mut info = CgroupLinkInfo::default();
    // SAFETY: plain numbers, which may have any value.
    unsafe { link_info(link, &mut info) }?;
    Ok(CgroupLink { cgroup: info.cgroup_id, program: info.prog_id })
}

/// What a TCX link joins.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct TcxLink {
    /// The number of its device; 0 if that is gone, or the link was detached.
    pub(crate) device: u32,
    /// The id of the program behind it.
    pub(crate) program: u32,
}

/// What a pinned TCX link joins.
pub(crate) fn tcx_link(link: &Path) -> Result<TcxLink, Error> {
    let mut info = TcxLinkInfo::default();
    // SAFETY: plain numbers, which may have any value.
    unsafe { link_info(link, &mut info) }?;
    Ok(TcxLink { device: info.ifindex, program: info.prog_id })
}

/// Asks about a pinned link.
///
/// # Safety
/// Any bytes must be a `T`.
unsafe fn link_info<T>(link: &Path, info: &mut T) -> Result<(), Error> {
    // SAFETY: the caller's promise; there are no addresses in it.
    unsafe { object_info(&open_pin(link)?, info) }.map_err(Error::system("BPF_OBJ_GET_INFO_BY_FD", link))
}

/// Asks about an object.
///
/// # Safety
/// Any bytes must be a `T`, and every address in it must outlive the call.
unsafe fn object_info<T>(object: &OwnedFd, info: &mut T) -> io::Result<()> {
    let mut attr = ObjInfo {
        bpf_fd: object.as_raw_fd().cast_unsigned(),
        info_len: u32::try_from(size_of::<T>()).unwrap_or_default(),
        info: std::ptr::from_mut(info) as u64,
    };
    // SAFETY: the kernel writes at most `info_len` bytes to `info`, which outlives the call; the rest is the caller's promise.
    unsafe { bpf(bpf_cmd::BPF_OBJ_GET_INFO_BY_FD, &mut attr) }.map(drop)
}

/// The beginning of `struct bpf_map_info`.
#[repr(C)]
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct MapInfo {
    /// `enum bpf_map_type`.
    pub(crate) kind: u32,
    id: u32,
    /// Bytes of a key.
    pub(crate) key_size: u32,
    /// Bytes of a value.
    pub(crate) value_size: u32,
    /// How many entries it has room for.
    pub(crate) max_entries: u32,
    /// `BPF_F_MMAPABLE` and the like.
    pub(crate) flags: u32,
    name: [u64; 2],
    ifindex: u32,
    vmlinux_value_type: u32,
    netns: [u64; 2],
    /// The id of its BTF; 0 if it has none.
    pub(crate) btf: u32,
    /// The id of the key's type there.
    pub(crate) key_type: u32,
    /// The id of the value's type there.
    pub(crate) value_type: u32,
    padding: u32,
}

/// Asks about a map.
pub(super) fn map_info(map: &OwnedFd) -> io::Result<MapInfo> {
    let mut info = MapInfo::default();
    // SAFETY: plain numbers, which may have any value.
    unsafe { object_info(map, &mut info) }?;
    Ok(info)
}

/// The part of `union bpf_attr` that `BPF_BTF_GET_FD_BY_ID` reads.
#[repr(C)]
#[derive(Default)]
struct GetById {
    id: u32,
    next_id: u32,
    flags: u32,
}

/// The beginning of `struct bpf_btf_info`.
#[repr(C)]
#[derive(Default)]
struct BtfInfo {
    btf: u64,
    size: u32,
    id: u32,
}

/// The BTF with this id.
pub(crate) fn btf_by_id(id: u32) -> Result<Vec<u8>, Error> {
    let failed = |command| Error::system(command, format!("BTF {id}"));
    let mut attr = GetById { id, ..Default::default() };
    // SAFETY: no addresses.
    let fd =
        unsafe { bpf(bpf_cmd::BPF_BTF_GET_FD_BY_ID, &mut attr) }.map_err(failed("BPF_BTF_GET_FD_BY_ID"))?;
    // SAFETY: the kernel has just returned this descriptor, and nothing else owns it.
    let object = unsafe { OwnedFd::from_raw_fd(fd) };
    let mut bytes = Vec::new();
    // How long it is, then all of it.
    for _ in 0..2 {
        let size = u32::try_from(bytes.len()).unwrap_or_default();
        let mut info = BtfInfo { btf: bytes.as_mut_ptr() as u64, size, id: 0 };
        // SAFETY: plain numbers, and the kernel writes at most `size` bytes to `bytes`.
        unsafe { object_info(&object, &mut info) }.map_err(failed("BPF_OBJ_GET_INFO_BY_FD"))?;
        bytes.resize(info.size as usize, 0);
    }
    Ok(bytes)
}

/// Atomically replaces the program behind a pinned link to a cgroup (5.7).
pub(crate) fn replace_program(link: &Path, program: &Program) -> Result<(), Error> {
    let link_fd = open_pin(link)?;
    let program_fd = program
        .fd()
        .map_err(|source| Error::Program { action: "load", program: "behind a link", source })?
        .as_fd()
        .as_raw_fd();
    let mut attr = LinkUpdate {
        link_fd: link_fd.as_raw_fd().cast_unsigned(),
        new_prog_fd: program_fd.cast_unsigned(),
        ..Default::default()
    };
    // SAFETY: no addresses.
    unsafe { bpf(bpf_cmd::BPF_LINK_UPDATE, &mut attr) }.map_err(Error::system("BPF_LINK_UPDATE", link))?;
    Ok(())
}

/// Detaches what a pinned link attached (5.9), and removes the pin; returns whether there was one. Without the detaching
/// the kernel would do it some time after the last pin is gone, from a work queue.
pub(crate) fn detach(link: &Path) -> Result<bool, Error> {
    let link_fd = match open_pin(link) {
        Err(Error::System { error, .. }) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        opened => opened?,
    };
    let mut attr = LinkDetach { link_fd: link_fd.as_raw_fd().cast_unsigned() };
    // SAFETY: no addresses.
    unsafe { bpf(bpf_cmd::BPF_LINK_DETACH, &mut attr) }.map_err(Error::system("BPF_LINK_DETACH", link))?;
    fs::remove_file(link).map_err(Error::system("unlink", link))?;
    Ok(true)
}

/// What is attached to a cgroup itself at one hook.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct AtHook {
    /// How it was attached (`BPF_F_ALLOW_OVERRIDE`, `BPF_F_ALLOW_MULTI`): the same for all of them.
    pub(crate) flags: u32,
    /// The ids of the programs in the order in which they run.
    pub(crate) programs: Vec<u32>,
}

/// All programs attached to `cgroup` at a hook (`enum bpf_attach_type`).
pub(crate) fn programs_of_cgroup(cgroup: &Path, attach_type: u32) -> Result<AtHook, Error> {
    let directory = File::open(cgroup).map_err(Error::system("open", cgroup))?;
    let mut ids = [0_u32; 64];
    let mut attr = ProgQuery {
        target_fd: directory.as_raw_fd().cast_unsigned(),
        attach_type,
        prog_ids: ids.as_mut_ptr() as u64,
        prog_cnt: u32::try_from(ids.len()).unwrap_or_default(),
        ..Default::default()
    };
    // SAFETY: the kernel writes at most `prog_cnt` ids to `ids`, which outlives the call.
    unsafe { bpf(bpf_cmd::BPF_PROG_QUERY, &mut attr) }.map_err(Error::system("BPF_PROG_QUERY", cgroup))?;
    Ok(AtHook { flags: attr.attach_flags, programs: ids.into_iter().take(attr.prog_cnt as usize).collect() })
}
