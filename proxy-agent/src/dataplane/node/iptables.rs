//! The table `nat` of iptables-legacy, which is the kernel's older one, beside nftables: read whole (`IPT_SO_GET_INFO` and
//! `IPT_SO_GET_ENTRIES`, `include/uapi/linux/netfilter_ipv4/ip_tables.h`), and only looked through for names.

use std::{
    fs, io,
    os::fd::{AsFd as _, AsRawFd as _, BorrowedFd},
};

use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};

/// The options; of IPv6 the same.
const INFO: i32 = 64;
const ENTRIES: i32 = 65;
const NAT: &str = "nat";
/// `XT_TABLE_MAXNAMELEN`.
const NAME: usize = 32;
/// `sizeof(struct ipt_getinfo)`, and where it says where the chains of hooks begin, where they end, and how long the
/// entries are.
const INFO_SIZE: usize = 84;
const BEGINS_AT: usize = 36;
const ENDS_AT: usize = 56;
const SIZE_AT: usize = 80;
/// `NF_INET_LOCAL_OUT`.
const OUTPUT: usize = 3;
/// `offsetof(struct ipt_get_entries, entrytable)`.
const ENTRIES_AT: usize = 40;

/// A family's table.
#[derive(Debug)]
pub(crate) struct NatTable {
    /// The family, as `nft` calls it.
    pub(crate) family: &'static str,
    /// Its rules; an error where they cannot be read.
    pub(crate) content: io::Result<NatRules>,
}

/// A table's rules.
#[derive(Debug)]
pub(crate) struct NatRules {
    entries: Vec<u8>,
    /// Whether the chain `OUTPUT` has any.
    pub(crate) has_output: bool,
}

impl NatRules {
    /// Whether the name is in a rule: of a chain, in the entry that begins it, or of a target.
    pub(crate) fn names(&self, name: &str) -> bool {
        let name = [name.as_bytes(), &[0]].concat();
        self.entries.windows(name.len()).any(|window| window == name)
    }
}

/// The tables that there are in the network namespace of the calling thread. Of each at most so many bytes are read.
pub(crate) fn nat_tables(most: usize) -> Vec<NatTable> {
    let read = |family, level| -> io::Result<NatRules> {
        let socket = socket(family, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)?;
        match read(socket.as_fd(), level, most) {
            // It changed between two questions.
            Err(error) if error.raw_os_error() == Some(libc::EAGAIN) => read(socket.as_fd(), level, most),
            read => read,
        }
    };
    let mut found = Vec::new();
    // A table that nobody made would be made by asking for it.
    if is_there("ip_tables_names") {
        found.push(NatTable { family: "ip", content: read(AddressFamily::Inet, libc::SOL_IP) });
    }
    if is_there("ip6_tables_names") {
        found.push(NatTable { family: "ip6", content: read(AddressFamily::Inet6, libc::SOL_IPV6) });
    }
    found
}

fn is_there(names: &str) -> bool {
    let tables = fs::read_to_string(format!("/proc/thread-self/net/{names}"));
    tables.is_ok_and(|tables| tables.lines().any(|line| line == NAT))
}

fn read(socket: BorrowedFd<'_>, level: i32, most: usize) -> io::Result<NatRules> {
    let named = |size: usize| {
        let mut bytes = vec![0; size];
        bytes[..NAT.len()].copy_from_slice(NAT.as_bytes());
        bytes
    };
    let mut info = named(INFO_SIZE);
    ask(socket, level, INFO, &mut info)?;
    let number = |at: usize| {
        let bytes = info.get(at..).and_then(<[u8]>::first_chunk);
        bytes.map_or(0, |bytes| u32::from_ne_bytes(*bytes))
    };
    let size = number(SIZE_AT);
    let length = ENTRIES_AT.saturating_add(usize::try_from(size).unwrap_or(usize::MAX));
    if length > most {
        return Err(io::Error::from_raw_os_error(libc::E2BIG));
    }
    // A chain ends with its policy.
    let has_output = number(BEGINS_AT + OUTPUT * 4) != number(ENDS_AT + OUTPUT * 4);
    let mut all = named(length);
    all[NAME..NAME + 4].copy_from_slice(&size.to_ne_bytes());
    ask(socket, level, ENTRIES, &mut all)?;
    Ok(NatRules { entries: all.split_off(ENTRIES_AT), has_output })
}

fn ask(socket: BorrowedFd<'_>, level: i32, option: i32, bytes: &mut [u8]) -> io::Result<()> {
    let mut length = libc::socklen_t::try_from(bytes.len()).map_err(io::Error::other)?;
    // SAFETY: the kernel writes at most `length` bytes, which is the size of the buffer.
    let result = unsafe {
        libc::getsockopt(socket.as_raw_fd(), level, option, bytes.as_mut_ptr().cast(), &raw mut length)
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
