//! Foreign programs that count how often they run, which shows that they keep working: at a cgroup, attached in each of
//! the ways that the kernel has, and at a device, by TCX, by a `clsact` filter, and as XDP.

use std::{
    ffi::CString,
    fs::File,
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};

use super::{BPF_PROG_ATTACH, ProgAttach, ProgLoad, bpf};

const BPF_MAP_CREATE: libc::c_long = 0;
const BPF_MAP_LOOKUP_ELEM: libc::c_long = 1;
const BPF_PROG_LOAD: libc::c_long = 5;
const BPF_OBJ_PIN: libc::c_long = 6;
const BPF_PROG_DETACH: libc::c_long = 9;
const BPF_OBJ_GET_INFO_BY_FD: libc::c_long = 15;
const BPF_LINK_CREATE: libc::c_long = 28;
const BPF_MAP_TYPE_ARRAY: u32 = 2;
const BPF_F_BEFORE: u32 = 1 << 3;
const BPF_F_AFTER: u32 = 1 << 4;
/// `XDP_FLAGS_SKB_MODE`: any device can do it.
const XDP_GENERIC: u32 = 1 << 1;

/// A hook of a cgroup.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CgroupHook {
    /// `connect` of IPv4 sockets.
    Connect4,
    /// Sockets that are closed.
    Release,
}

impl CgroupHook {
    /// `enum bpf_prog_type`, `enum bpf_attach_type`.
    const fn numbers(self) -> (u32, u32) {
        match self {
            Self::Connect4 => (18, 10),
            Self::Release => (9, 34),
        }
    }
}

/// How a program is attached to a cgroup.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Attached {
    /// By a link (5.7), which shares its hook.
    Link,
    /// `BPF_F_ALLOW_MULTI`.
    Multi,
    /// `BPF_F_ALLOW_OVERRIDE`.
    Override,
    /// Without flags.
    Exclusively,
}

/// A place at a device.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DeviceHook {
    /// TCX, before or after all others.
    Tcx {
        /// Which packets.
        incoming: bool,
        /// Whether before.
        first: bool,
    },
    /// A filter in a `clsact` qdisc.
    Filter {
        /// Which packets.
        incoming: bool,
    },
    /// XDP, in generic mode.
    Xdp,
}

/// A program that counts, and lets everything pass. Dropping it detaches it, if it is attached by a link or to a cgroup
/// that is still there; a filter goes with its device.
#[derive(Debug)]
pub struct Counted {
    program: OwnedFd,
    counter: OwnedFd,
    link: Option<OwnedFd>,
    cgroup: Option<(File, u32)>,
}

impl Counted {
    /// Loads one and attaches it to a cgroup.
    pub fn at_cgroup(cgroup: &Path, hook: CgroupHook, attached: Attached, name: &str) -> Result<Self> {
        let (prog_type, attach_type) = hook.numbers();
        let mut counted = Self::load(prog_type, attach_type, 1, name)?;
        let cgroup = File::open(cgroup).with_context(|| cgroup.display().to_string())?;
        let attach_flags = match attached {
            Attached::Link => {
                counted.link = Some(counted.linked(cgroup.as_raw_fd().try_into()?, attach_type, 0)?);
                return Ok(counted);
            }
            Attached::Multi => 2,
            Attached::Override => 1,
            Attached::Exclusively => 0,
        };
        let mut attach = ProgAttach {
            target_fd: cgroup.as_raw_fd().try_into()?,
            attach_bpf_fd: counted.program.as_raw_fd().try_into()?,
            attach_type,
            attach_flags,
        };
        bpf(BPF_PROG_ATTACH, &mut attach).context("cannot attach a foreign program")?;
        counted.cgroup = Some((cgroup, attach_type));
        Ok(counted)
    }

    /// Loads one and attaches it to a device of the calling thread's namespace. `pins` is a directory on a BPF file
    /// system for what `tc` takes by its path.
    pub fn at_device(device: &str, hook: DeviceHook, pins: &Path, name: &str) -> Result<Self> {
        const SCHED_CLS: u32 = 3;
        const XDP: u32 = 6;
        const TCX: [u32; 2] = [47, 46];
        const AT_XDP: u32 = 37;
        let index = nix::net::if_::if_nametoindex(device).with_context(|| device.to_owned())?;
        match hook {
            DeviceHook::Tcx { incoming, first } => {
                // TCX_NEXT.
                let mut counted = Self::load(SCHED_CLS, 0, u32::MAX, name)?;
                let order = if first { BPF_F_BEFORE } else { BPF_F_AFTER };
                counted.link = Some(counted.linked(index, TCX[usize::from(incoming)], order)?);
                Ok(counted)
            }
            DeviceHook::Xdp => {
                // XDP_PASS.
                let mut counted = Self::load(XDP, AT_XDP, 2, name)?;
                counted.link = Some(counted.linked(index, AT_XDP, XDP_GENERIC)?);
                Ok(counted)
            }
            DeviceHook::Filter { incoming } => {
                // TC_ACT_UNSPEC.
                let counted = Self::load(SCHED_CLS, 0, u32::MAX, name)?;
                let pin = counted.pin(&pins.join(format!("{name}-{device}-{incoming}")))?;
                let side = if incoming { "ingress" } else { "egress" };
                // It may have one.
                let _ = tc(&["qdisc", "add", "dev", device, "clsact"]);
                let path = pin.display().to_string();
                let added = tc(&[
                    "filter",
                    "add",
                    "dev",
                    device,
                    side,
                    "bpf",
                    "direct-action",
                    "object-pinned",
                    &path,
                ]);
                std::fs::remove_file(&pin).with_context(|| path.clone())?;
                added.map(|()| counted)
            }
        }
    }

    /// How often it has run.
    pub fn count(&self) -> u64 {
        let (key, mut value) = (0_u32, 0_u64);
        let mut lookup = Element {
            map_fd: self.counter.as_raw_fd().cast_unsigned(),
            key: &raw const key as u64,
            value: &raw mut value as u64,
            ..Element::default()
        };
        bpf(BPF_MAP_LOOKUP_ELEM, &mut lookup).expect("a counter");
        value
    }

    /// The program's id.
    pub fn id(&self) -> u32 {
        // `struct bpf_prog_info`: type, id.
        let mut info = [0_u32; 2];
        let mut asked = Info {
            bpf_fd: self.program.as_raw_fd().cast_unsigned(),
            length: 8,
            address: info.as_mut_ptr() as u64,
        };
        bpf(BPF_OBJ_GET_INFO_BY_FD, &mut asked).expect("a program");
        info[1]
    }

    fn load(prog_type: u32, expected_attach_type: u32, verdict: u32, name: &str) -> Result<Self> {
        let mut create =
            MapCreate { map_type: BPF_MAP_TYPE_ARRAY, key_size: 4, value_size: 8, max_entries: 1 };
        let counter = owned(bpf(BPF_MAP_CREATE, &mut create).context("cannot make a counter")?);
        // r1 = the counter's address; r2 = 1; lock *r1 += r2; r0 = verdict; exit.
        let instructions: [u64; 6] = [
            u64::from(counter.as_raw_fd().cast_unsigned()) << 32 | 0x21 << 8 | 0x18,
            0,
            1 << 32 | 0x02 << 8 | 0xb7,
            0x21 << 8 | 0xdb,
            u64::from(verdict) << 32 | 0xb7,
            0x95,
        ];
        let mut prog_name = [0; 16];
        for (place, byte) in prog_name.iter_mut().take(15).zip(name.bytes()) {
            *place = byte;
        }
        let mut load = ProgLoad {
            prog_type,
            insn_cnt: u32::try_from(instructions.len())?,
            insns: instructions.as_ptr() as u64,
            license: c"GPL".as_ptr() as u64,
            prog_name,
            expected_attach_type,
            ..ProgLoad::default()
        };
        let program = owned(bpf(BPF_PROG_LOAD, &mut load).context("cannot load a foreign program")?);
        Ok(Self { program, counter, link: None, cgroup: None })
    }

    fn linked(&self, target: u32, attach_type: u32, flags: u32) -> Result<OwnedFd> {
        let prog_fd = self.program.as_raw_fd().try_into()?;
        let mut create = LinkCreate { prog_fd, target, attach_type, flags, more: [0; 4] };
        Ok(owned(bpf(BPF_LINK_CREATE, &mut create).context("cannot link a foreign program")?))
    }

    fn pin(&self, path: &Path) -> Result<PathBuf> {
        let name = CString::new(path.as_os_str().as_encoded_bytes())?;
        let bpf_fd = self.program.as_raw_fd().try_into()?;
        let mut pin = Pin { pathname: name.as_ptr() as u64, bpf_fd, file_flags: 0 };
        bpf(BPF_OBJ_PIN, &mut pin).with_context(|| format!("cannot pin {}", path.display()))?;
        Ok(path.to_owned())
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        if let Some((cgroup, attach_type)) = &self.cgroup {
            let mut detach = ProgAttach {
                target_fd: cgroup.as_raw_fd().cast_unsigned(),
                attach_bpf_fd: self.program.as_raw_fd().cast_unsigned(),
                attach_type: *attach_type,
                attach_flags: 0,
            };
            // The cgroup may be gone, and with it what is attached.
            let _ = bpf(BPF_PROG_DETACH, &mut detach);
        }
    }
}

fn tc(arguments: &[&str]) -> Result<()> {
    let output = Command::new("tc").args(arguments).output().context("cannot run `tc` (package iproute2)")?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "tc {}: {said}", arguments.join(" "));
    Ok(())
}

fn owned(descriptor: i32) -> OwnedFd {
    // SAFETY: the kernel just returned this descriptor, and nothing else owns it.
    unsafe { OwnedFd::from_raw_fd(descriptor) }
}

/// `union bpf_attr` of `BPF_MAP_CREATE`, its beginning.
#[repr(C)]
struct MapCreate {
    map_type: u32,
    key_size: u32,
    value_size: u32,
    max_entries: u32,
}

/// `union bpf_attr` of `BPF_MAP_LOOKUP_ELEM`.
#[derive(Default)]
#[repr(C)]
struct Element {
    map_fd: u32,
    padding: u32,
    key: u64,
    value: u64,
    flags: u64,
}

/// `union bpf_attr` of `BPF_OBJ_GET_INFO_BY_FD`.
#[repr(C)]
struct Info {
    bpf_fd: u32,
    length: u32,
    address: u64,
}

/// `union bpf_attr` of `BPF_LINK_CREATE`.
#[repr(C)]
struct LinkCreate {
    prog_fd: u32,
    target: u32,
    attach_type: u32,
    flags: u32,
    /// Of TCX: a relative program, and the chain's revision.
    more: [u32; 4],
}

/// `union bpf_attr` of `BPF_OBJ_PIN`.
#[repr(C)]
struct Pin {
    pathname: u64,
    bpf_fd: u32,
    file_flags: u32,
}
