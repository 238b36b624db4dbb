//! Iterators over the node's sockets, for the agent to find connected UDP sockets whose endpoint is gone, and elements of
//! PEERS whose socket is gone. They run when the agent reads them, and cost nothing otherwise.
//!
//! | program | walks |
//! |---|---|
//! | `held_sockets` | every descriptor of every process and thread, whatever its network namespace (`task_file`) |
//! | `udp_sockets` | every UDP socket of one network namespace, held or not (`udp`) |
//! | `held_peers` | as `held_sockets`, for the cookies of those that own an element of PEERS |
//! | `tcp_peers` | every TCP socket of one network namespace, for the same (`tcp`) |
//!
//! Kernel structures other than the ones that a program's types name are read at offsets that the agent finds in the
//! kernel's BTF.

use core::{ffi::c_void, mem::size_of, ptr};

use aya_ebpf::{
    Global,
    helpers::{
        bpf_get_current_task, bpf_get_socket_cookie, bpf_probe_read_kernel_buf, bpf_seq_write,
        bpf_sk_storage_get, bpf_sock_from_file,
    },
};
use proxy_common::{Address, Datagrams, HeldSocket, OverflowKey, Overflowed, Port, Translation, peer::index};

use super::overflow::is_whole;
use crate::tables::{DATAGRAMS, OVERFLOW, PEERS, SOCKETS};

/// Offsets in `struct task_struct`, of `thread_pid` and `group_leader`.
#[unsafe(no_mangle)]
static TASK_THREAD_PID: Global<u32> = Global::new(0);
#[unsafe(no_mangle)]
static TASK_GROUP_LEADER: Global<u32> = Global::new(0);

/// Offsets in `struct pid`, of `level` and `numbers`.
#[unsafe(no_mangle)]
static PID_LEVEL: Global<u32> = Global::new(0);
#[unsafe(no_mangle)]
static PID_NUMBERS: Global<u32> = Global::new(0);

/// `struct bpf_iter_meta`.
#[repr(C)]
struct Meta {
    seq: *mut c_void,
}

/// `struct bpf_iter__task_file`.
#[repr(C)]
pub(crate) struct TaskFile {
    meta: *const Meta,
    task: *const c_void,
    descriptor: u64,
    file: *mut c_void,
}

/// `struct bpf_iter__udp`, and the beginning of `struct bpf_iter__tcp`.
#[repr(C)]
pub(crate) struct SocketOfNamespace {
    meta: *const Meta,
    socket: *mut c_void,
}

/// The beginning of `struct socket`, to its `sk`.
#[repr(C)]
struct Socket {
    state: u32,
    kind: u32,
    flags: u64,
    file: *const c_void,
    sock: *mut c_void,
}

/// The beginning of `struct sock_common`, as it is with `CONFIG_NET_NS` and `CONFIG_IPV6`: `skc_daddr` to `skc_v6_daddr`.
#[repr(C)]
#[derive(Clone, Copy)]
struct SockCommon {
    destination: u32,
    source: u32,
    hash: u32,
    destination_port: u16,
    source_port: u16,
    family: u16,
    state: u8,
    reuse: u8,
    device: u32,
    lists: [u64; 3],
    namespace: u64,
    v6_destination: [u32; 4],
}

const _: () = assert!(core::mem::offset_of!(SockCommon, state) == 18);
const _: () = assert!(core::mem::offset_of!(SockCommon, v6_destination) == 56);

const AF_INET: u16 = 2;
const TCP_ESTABLISHED: u8 = 1;
const TCP_TIME_WAIT: u8 = 6;

/// Reports the sockets that processes hold.
#[unsafe(no_mangle)]
#[unsafe(link_section = "iter")]
pub(crate) extern "C" fn held_sockets(ctx: *const TaskFile) -> i32 {
    // SAFETY: the verifier knows the fields of the context by their types, and which of them may be null.
    unsafe {
        let (meta, task) = ((*ctx).meta, (*ctx).task);
        let sock = sock(ctx);
        if task.is_null() || sock.is_null() {
            return 0;
        }
        let Some(mut held) = translated(sock) else { return 0 };
        held.thread = number(task);
        held.process = number(read::<*const c_void>(task, TASK_GROUP_LEADER.load()));
        held.descriptor = (*ctx).descriptor as u32;
        write(meta, &held);
    }
    0
}

/// Reports the cookies of those that own an element of PEERS.
#[unsafe(no_mangle)]
#[unsafe(link_section = "iter")]
pub(crate) extern "C" fn held_peers(ctx: *const TaskFile) -> i32 {
    // SAFETY: as in `held_sockets`.
    unsafe {
        let (meta, sock) = ((*ctx).meta, sock(ctx));
        if !sock.is_null() {
            report_owner(meta, sock);
        }
    }
    0
}

/// Reports the same of the TCP sockets of the network namespace in which the agent opened the iterator.
#[unsafe(no_mangle)]
#[unsafe(link_section = "iter")]
pub(crate) extern "C" fn tcp_peers(ctx: *const SocketOfNamespace) -> i32 {
    // SAFETY: as in `held_sockets`.
    unsafe {
        let (meta, sock) = ((*ctx).meta, (*ctx).socket);
        // What waits for late packets has the cookie of a socket that is gone.
        if !sock.is_null() && read::<SockCommon>(sock, 0).state != TCP_TIME_WAIT {
            report_owner(meta, sock);
        }
    }
    0
}

/// The socket behind a descriptor; null for other files.
#[inline(always)]
unsafe fn sock(ctx: *const TaskFile) -> *mut c_void {
    // SAFETY: as in `held_sockets`.
    unsafe {
        let file = (*ctx).file;
        if file.is_null() {
            return ptr::null_mut();
        }
        let socket = bpf_sock_from_file(file.cast()).cast::<Socket>();
        if socket.is_null() {
            return ptr::null_mut();
        }
        (&raw const (*socket).sock).read_volatile()
    }
}

#[inline(always)]
unsafe fn report_owner(meta: *const Meta, sock: *mut c_void) {
    // SAFETY: the caller's socket is one that the kernel keeps while the program looks at it.
    unsafe {
        let cookie = bpf_get_socket_cookie(sock);
        let Some(peer) = PEERS.get_ptr(index(cookie)) else { return };
        if (&raw const (*peer).owner).read_volatile() == cookie {
            write(meta, &cookie);
        }
    }
}

/// Reports the UDP sockets of the network namespace in which the agent opened the iterator.
#[unsafe(no_mangle)]
#[unsafe(link_section = "iter")]
pub(crate) extern "C" fn udp_sockets(ctx: *const SocketOfNamespace) -> i32 {
    // SAFETY: as in `held_sockets`.
    unsafe {
        let (meta, socket) = ((*ctx).meta, (*ctx).socket);
        if !socket.is_null()
            && let Some(held) = translated(socket)
        {
            write(meta, &held);
        }
    }
    0
}

/// The socket with the record that leads to its peer, if it is connected and has one.
#[inline(always)]
unsafe fn translated(sock: *mut c_void) -> Option<HeldSocket> {
    // SAFETY: the caller's socket is one that the kernel keeps while the program looks at it.
    unsafe {
        let record = bpf_sk_storage_get((&raw const SOCKETS).cast_mut().cast(), sock, ptr::null_mut(), 0)
            .cast::<Translation>();
        let cookie = bpf_get_socket_cookie(sock);
        let common: SockCommon = read(sock, 0);
        if common.state != TCP_ESTABLISHED {
            return None;
        }
        let peer = if common.family == AF_INET {
            Address::from_words([0, 0, 0xffff_u32.to_be(), common.destination])
        } else {
            Address::from_words(common.v6_destination)
        };
        let peer_port = Port::from_network(common.destination_port);
        let mut held = HeldSocket {
            cookie,
            thread: 0,
            process: 0,
            descriptor: 0,
            peer_port,
            padding: 0,
            peer,
            translation: Translation::UNUSED,
        };
        if !record.is_null() {
            held.translation = *record;
            if held.translation.is_to(&peer, peer_port) {
                return Some(held);
            }
        }
        let others = bpf_sk_storage_get((&raw const DATAGRAMS).cast_mut().cast(), sock, ptr::null_mut(), 0)
            .cast::<Datagrams>();
        // The last connect has failed: the peer is one from before it.
        if !record.is_null()
            && !others.is_null()
            && let Some(last) = (*others).youngest(|entry| entry.connected(&peer, peer_port))
        {
            held.translation = *(*others).entry(last.entry);
            return Some(held);
        }
        let key = OverflowKey {
            owner: cookie,
            address: peer,
            port: peer_port,
            local_port: Port::NONE,
            direction: OverflowKey::BY_ENDPOINT,
        };
        let overflowed: *const Overflowed = OVERFLOW.get_ptr(&key)?;
        held.translation = (*overflowed).translation;
        is_whole(&held.translation).then_some(held)
    }
}

/// The number of a task's thread in the process namespace of the agent, which reads the iterator.
#[inline(always)]
unsafe fn number(task: *const c_void) -> u32 {
    // SAFETY: reads that fail give zeros.
    unsafe {
        let own: *const c_void = read(bpf_get_current_task() as *const c_void, TASK_THREAD_PID.load());
        let level: u32 = read(own, PID_LEVEL.load());
        let pid: *const c_void = read(task, TASK_THREAD_PID.load());
        // An element of `numbers` has two words; the number comes first.
        read(pid, PID_NUMBERS.load().wrapping_add(level << 4))
    }
}

/// A value in kernel memory; zeros where there is none.
#[inline(always)]
unsafe fn read<T>(from: *const c_void, offset: u32) -> T {
    let mut value = core::mem::MaybeUninit::<T>::zeroed();
    // SAFETY: the helper checks the address and writes the whole value or zeros; every type read is plain numbers.
    unsafe {
        let bytes = core::slice::from_raw_parts_mut(value.as_mut_ptr().cast::<u8>(), size_of::<T>());
        let _ = bpf_probe_read_kernel_buf(from.cast::<u8>().wrapping_add(offset as usize), bytes);
        value.assume_init()
    }
}

#[inline(always)]
unsafe fn write<T>(meta: *const Meta, report: &T) {
    // SAFETY: the helper copies the whole record. A full buffer makes the kernel call again for the same socket.
    unsafe {
        let seq = (&raw const (*meta).seq).read_volatile();
        bpf_seq_write(seq.cast(), ptr::from_ref(report).cast_mut().cast(), size_of::<T>() as u32);
    }
}
