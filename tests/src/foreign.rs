//! Foreign BPF programs on the lab's cgroup and its devices, which Sidestep has to leave alone; and the programs at a
//! device, in order. `counted` has those that count how often they run.

pub mod counted;

use std::{
    fs::File,
    io,
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
    path::Path,
};

use anyhow::{Context, Result};

const BPF_PROG_LOAD: libc::c_long = 5;
const BPF_PROG_ATTACH: libc::c_long = 8;
const BPF_PROG_DETACH: libc::c_long = 9;
const BPF_PROG_QUERY: libc::c_long = 16;
const BPF_PROG_TYPE_SCHED_CLS: u32 = 3;
const BPF_PROG_TYPE_CGROUP_SOCK_ADDR: u32 = 18;
const BPF_CGROUP_INET4_CONNECT: u32 = 10;
const BPF_F_ALLOW_MULTI: u32 = 2;

/// `r0 = verdict; exit`. At a cgroup, 1 allows a connect and 0 returns EPERM.
const fn instructions(verdict: u32) -> [u64; 2] {
    [(verdict as u64) << 32 | 0xb7, 0x95]
}

/// A program's verdict on every packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
pub enum Packet {
    /// `TCX_NEXT`: the next program decides.
    Next = u32::MAX,
    /// `TCX_PASS`: the packet passes, and later programs do not see it.
    Pass = 0,
}

/// The position among the programs of a device.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
pub enum Order {
    /// Before all others (`BPF_F_BEFORE` without a relative).
    First = 1 << 3,
    /// After all others (`BPF_F_AFTER` without a relative).
    Last = 1 << 4,
}

/// A side of a device with TCX, as `enum bpf_attach_type` numbers it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
pub enum Tcx {
    /// Incoming packets.
    Ingress = 46,
    /// Outgoing packets.
    Egress = 47,
}

/// The program's verdict on every connect.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
pub enum Verdict {
    /// EPERM.
    Deny = 0,
    /// Allow.
    Pass = 1,
}

/// `union bpf_attr` of `BPF_PROG_LOAD` up to `expected_attach_type`.
#[derive(Default)]
#[repr(C)]
struct ProgLoad {
    prog_type: u32,
    insn_cnt: u32,
    insns: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log_buf: u64,
    kern_version: u32,
    prog_flags: u32,
    prog_name: [u8; 16],
    prog_ifindex: u32,
    expected_attach_type: u32,
}

/// `union bpf_attr` of `BPF_PROG_ATTACH`.
#[derive(Default)]
#[repr(C)]
struct ProgAttach {
    target_fd: u32,
    attach_bpf_fd: u32,
    attach_type: u32,
    attach_flags: u32,
}

/// `union bpf_attr` of `BPF_PROG_QUERY`.
#[derive(Default)]
#[repr(C)]
struct ProgQuery {
    target: u32,
    attach_type: u32,
    query_flags: u32,
    attach_flags: u32,
    prog_ids: u64,
    count: u32,
    padding: u32,
    more: [u64; 4],
}

/// A program called `foreign`, attached without a link to a cgroup's connect4 hook, or to a device, until that is
/// removed.
#[derive(Debug)]
pub struct ForeignProgram {
    _program: OwnedFd,
}

impl ForeignProgram {
    /// Loads and attaches it.
    pub fn attach(cgroup: &Path, verdict: Verdict) -> Result<Self> {
        Self::attach_with(cgroup, verdict, BPF_F_ALLOW_MULTI)
    }

    /// Loads and attaches it exclusively, as careless programs do: the kernel then lets no other program attach to this
    /// hook.
    pub fn attach_exclusively(cgroup: &Path, verdict: Verdict) -> Result<Self> {
        Self::attach_with(cgroup, verdict, 0)
    }

    fn attach_with(cgroup: &Path, verdict: Verdict, attach_flags: u32) -> Result<Self> {
        let program = load(BPF_PROG_TYPE_CGROUP_SOCK_ADDR, BPF_CGROUP_INET4_CONNECT, verdict as u32)?;
        let cgroup = File::open(cgroup).with_context(|| cgroup.display().to_string())?;
        let mut attach = ProgAttach {
            target_fd: cgroup.as_raw_fd().try_into()?,
            attach_bpf_fd: program.as_raw_fd().try_into()?,
            attach_type: BPF_CGROUP_INET4_CONNECT,
            attach_flags,
        };
        bpf(BPF_PROG_ATTACH, &mut attach).context("cannot attach a foreign program")?;
        Ok(Self { _program: program })
    }
}

impl ForeignProgram {
    /// Loads it and attaches it to the device with this index, in the calling thread's namespace, after all others.
    pub fn at_device(device: u32, side: Tcx) -> Result<Self> {
        Ok(Self { _program: AtDevice::attach(device, side, Packet::Next, Order::Last)?.program })
    }
}

/// A program called `foreign` at a device, attached without a link.
#[derive(Debug)]
pub struct AtDevice {
    program: OwnedFd,
    device: u32,
    side: Tcx,
}

impl AtDevice {
    /// Loads it and attaches it to the device with this index, in the calling thread's namespace.
    pub fn attach(device: u32, side: Tcx, verdict: Packet, order: Order) -> Result<Self> {
        let program = load(BPF_PROG_TYPE_SCHED_CLS, 0, verdict as u32)?;
        let attached = Self { program, device, side };
        attached
            .call(BPF_PROG_ATTACH, order as u32)
            .context("cannot attach a foreign program to a device")?;
        Ok(attached)
    }

    /// Detaches the program, and attaches it again at this position.
    pub fn again(&self, order: Order) -> Result<()> {
        self.call(BPF_PROG_DETACH, 0).context("cannot detach a foreign program")?;
        self.call(BPF_PROG_ATTACH, order as u32).context("cannot attach a foreign program again")
    }

    /// Detaches the program.
    pub fn detach(self) -> Result<()> {
        self.call(BPF_PROG_DETACH, 0).context("cannot detach a foreign program")
    }

    fn call(&self, command: libc::c_long, attach_flags: u32) -> io::Result<()> {
        let mut attach = ProgAttach {
            target_fd: self.device,
            attach_bpf_fd: self.program.as_raw_fd().cast_unsigned(),
            attach_type: self.side as u32,
            attach_flags,
        };
        bpf(command, &mut attach).map(drop)
    }
}

/// The ids of the programs at a device of the calling thread's namespace, in their order.
pub fn programs_at(device: u32, side: Tcx) -> Result<Vec<u32>> {
    let mut ids = [0_u32; 16];
    let mut query = ProgQuery {
        target: device,
        attach_type: side as u32,
        prog_ids: ids.as_mut_ptr() as u64,
        count: 16,
        ..ProgQuery::default()
    };
    bpf(BPF_PROG_QUERY, &mut query).context("cannot query a device's programs")?;
    Ok(ids[..usize::try_from(query.count)?].to_vec())
}

fn load(prog_type: u32, expected_attach_type: u32, verdict: u32) -> Result<OwnedFd> {
    let mut prog_name = [0; 16];
    prog_name[..7].copy_from_slice(b"foreign");
    let instructions = instructions(verdict);
    let mut load = ProgLoad {
        prog_type,
        insn_cnt: 2,
        insns: instructions.as_ptr() as u64,
        license: c"GPL".as_ptr() as u64,
        prog_name,
        expected_attach_type,
        ..ProgLoad::default()
    };
    let program = bpf(BPF_PROG_LOAD, &mut load).context("cannot load a foreign program")?;
    // SAFETY: the kernel just returned this descriptor, and nothing else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(program) })
}

fn bpf<T>(command: libc::c_long, attributes: &mut T) -> io::Result<i32> {
    // SAFETY: the attributes are those of the command, and live across the call with what they point to.
    let result =
        unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_mut(attributes), size_of::<T>()) };
    i32::try_from(result).ok().filter(|result| *result >= 0).ok_or_else(io::Error::last_os_error)
}
