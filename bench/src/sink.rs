//! The UDP socket of a server pod. It is made here and handed to the server, which answers its datagrams, and to the
//! clients, which read from it how much of a flood has arrived.
//!
//! A socket filter counts and drops a flood's datagrams. So a flood costs only the path to the socket: no reader
//! competes with the nodes for a processor, and no buffer overflows.

use std::{
    io,
    net::{SocketAddrV4, UdpSocket},
    os::fd::{AsRawFd as _, FromRawFd as _, RawFd},
};

use anyhow::{Context as _, Result};
use sidestep_tests::namespace::Namespace;
use socket2::{SockFilter, SockRef};

/// Index of `SK_MEMINFO_OPTMEM` in the answer to `SO_MEMINFO` (`include/uapi/linux/sock_diag.h`).
const OPTION_MEMORY: usize = 6;
/// Index of `SK_MEMINFO_DROPS`.
const DROPS: usize = 8;
/// Length of that answer.
const MEMORY_FIELDS: usize = 9;

/// The first byte of a datagram that is only counted.
pub(crate) const FLOOD: u8 = b'x';

/// A server's UDP socket.
#[derive(Debug)]
pub(crate) struct Sink(UdpSocket);

impl Sink {
    /// Binds the socket in this namespace.
    pub(crate) fn open(namespace: &Namespace, address: SocketAddrV4) -> Result<Self> {
        let socket = namespace.run(|| UdpSocket::bind(address))?;
        Ok(Self(socket.with_context(|| format!("cannot bind {address}"))?))
    }

    /// Makes the socket count and drop datagrams that begin with [`FLOOD`].
    pub(crate) fn count_floods(&self) -> Result<()> {
        // The filter sees the datagram from the UDP header on.
        let load_first_byte = SockFilter::new(BPF_LD_B_ABS, 0, 0, 8);
        let is_flood = SockFilter::new(BPF_JEQ_K, 0, 1, u32::from(FLOOD));
        let drop = SockFilter::new(BPF_RET_K, 0, 0, 0);
        let keep = SockFilter::new(BPF_RET_K, 0, 0, u32::MAX);
        SockRef::from(&self.0)
            .attach_filter(&[load_first_byte, is_flood, drop, keep])
            .context("cannot attach a filter to a server's socket")
    }

    /// The number by which a child process knows it that inherits it ([`crate::place::put`]).
    pub(crate) fn descriptor(&self) -> RawFd {
        self.0.as_raw_fd()
    }

    /// The socket that this process has inherited under this number.
    pub(crate) fn inherited(descriptor: RawFd) -> Self {
        // SAFETY: the command line names the descriptors that the parent passed to this process.
        Self(unsafe { UdpSocket::from_raw_fd(descriptor) })
    }

    /// For whoever answers.
    pub(crate) const fn socket(&self) -> &UdpSocket {
        &self.0
    }

    /// How many datagrams of floods have arrived, modulo 2^32.
    pub(crate) fn arrived(&self) -> io::Result<u32> {
        Ok(memory_information(self.0.as_raw_fd())?[DROPS])
    }
}

#[expect(clippy::cast_possible_truncation, reason = "classic BPF's codes have 16 bits")]
const BPF_LD_B_ABS: u16 = (libc::BPF_LD | libc::BPF_B | libc::BPF_ABS) as u16;
#[expect(clippy::cast_possible_truncation, reason = "classic BPF's codes have 16 bits")]
const BPF_JEQ_K: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
#[expect(clippy::cast_possible_truncation, reason = "classic BPF's codes have 16 bits")]
const BPF_RET_K: u16 = (libc::BPF_RET | libc::BPF_K) as u16;

/// Bytes that the kernel charged to a socket for storage and options (`sk_omem_alloc`).
pub(crate) fn option_memory(socket: RawFd) -> io::Result<u64> {
    Ok(u64::from(memory_information(socket)?[OPTION_MEMORY]))
}

fn memory_information(socket: RawFd) -> io::Result<[u32; MEMORY_FIELDS]> {
    let mut fields = [0_u32; MEMORY_FIELDS];
    let mut length = libc::socklen_t::try_from(size_of_val(&fields)).unwrap_or_default();
    // SAFETY: the option writes at most `length` bytes to `fields`, which outlives the call.
    let result = unsafe {
        libc::getsockopt(
            socket,
            libc::SOL_SOCKET,
            libc::SO_MEMINFO,
            fields.as_mut_ptr().cast(),
            &raw mut length,
        )
    };
    if result == 0 { Ok(fields) } else { Err(io::Error::last_os_error()) }
}
