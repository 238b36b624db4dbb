//! Whether kube-proxy's rules are in tables of iptables-legacy, which are the kernel's older ones, beside nftables.
//!
//! A table is read whole (`IPT_SO_GET_ENTRIES`, `include/uapi/linux/netfilter_ipv4/ip_tables.h`), and only looked through
//! for the name of kube-proxy's chain: each chain's name is in the entry that begins it.

use std::{
    fs, io,
    net::UdpSocket,
    os::fd::{AsFd, AsRawFd as _, BorrowedFd},
};

use super::{NAT, names};

/// `IPT_SO_GET_INFO`, `IPT_SO_GET_ENTRIES`; of IPv6 the same.
const INFO: i32 = 64;
const ENTRIES: i32 = 65;
/// `XT_TABLE_MAXNAMELEN`.
const NAME: usize = 32;
/// `sizeof(struct ipt_getinfo)`, and where it says how long the entries are.
const INFO_SIZE: usize = 84;
const SIZE_AT: usize = 80;
/// `offsetof(struct ipt_get_entries, entrytable)`.
const ENTRIES_AT: usize = 40;
/// How much is read: kube-proxy's rules for a hundred thousand Services.
const MOST: usize = 1 << 30;

/// The tables with chains of kube-proxy's, such as `ip nat`.
pub(super) fn tables() -> Vec<&'static str> {
    let v4 = || UdpSocket::bind("0.0.0.0:0");
    let v6 = || UdpSocket::bind("[::]:0");
    let mut found = Vec::new();
    // A table that nobody made would be made by asking for it.
    if is_there("ip_tables_names") && v4().is_ok_and(|socket| has_chains(socket.as_fd(), libc::SOL_IP)) {
        found.push("ip nat");
    }
    if is_there("ip6_tables_names") && v6().is_ok_and(|socket| has_chains(socket.as_fd(), libc::SOL_IPV6)) {
        found.push("ip6 nat");
    }
    found
}

fn is_there(names: &str) -> bool {
    let tables = fs::read_to_string(format!("/proc/thread-self/net/{names}"));
    tables.is_ok_and(|tables| tables.lines().any(|line| line == NAT))
}

/// Whether the table has them; also where it cannot be read, as then nobody knows.
fn has_chains(socket: BorrowedFd<'_>, level: i32) -> bool {
    entries(socket, level).map_or_else(
        |error| {
            tracing::warn!(%error, "cannot read the table `nat` of iptables-legacy");
            true
        },
        |entries| {
            let name = [names::SERVICES.as_bytes(), &[0]].concat();
            entries.windows(name.len()).any(|window| window == name)
        },
    )
}

fn entries(socket: BorrowedFd<'_>, level: i32) -> io::Result<Vec<u8>> {
    let named = |size: usize| {
        let mut bytes = vec![0; size];
        bytes[..NAT.len()].copy_from_slice(NAT.as_bytes());
        bytes
    };
    let mut info = named(INFO_SIZE);
    ask(socket, level, INFO, &mut info)?;
    let size = info.get(SIZE_AT..).and_then(<[u8]>::first_chunk).map_or(0, |size| u32::from_ne_bytes(*size));
    let length = ENTRIES_AT + usize::try_from(size).unwrap_or(MOST);
    if length > MOST {
        return Err(io::Error::from_raw_os_error(libc::E2BIG));
    }
    let mut all = named(length);
    all[NAME..NAME + 4].copy_from_slice(&size.to_ne_bytes());
    ask(socket, level, ENTRIES, &mut all)?;
    Ok(all.split_off(ENTRIES_AT))
}

fn ask(socket: BorrowedFd<'_>, level: i32, option: i32, bytes: &mut [u8]) -> io::Result<()> {
    let mut length = libc::socklen_t::try_from(bytes.len()).map_err(io::Error::other)?;
    // SAFETY: the kernel writes at most `length` bytes, which is the size of the buffer.
    let result = unsafe {
        libc::getsockopt(socket.as_raw_fd(), level, option, bytes.as_mut_ptr().cast(), &raw mut length)
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
