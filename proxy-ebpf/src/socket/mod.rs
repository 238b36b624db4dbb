//! The socket hooks: a Service address becomes a pod's before a packet exists, and back again for the
//! program that asks who its peer is.
//!
//! | file | hooks |
//! |---|---|
//! | `connect` | connect4, connect6 |
//! | `sendmsg` | sendmsg4, sendmsg6: UDP sockets that are not connected |
//! | `reverse` | recvmsg4/6, getpeername4/6 |
//! | `askers` | whom a socket answers, though it looks like a request |
//! | `context` | reading and writing `struct bpf_sock_addr`, and refusing |
//! | `peers` | what a TCP socket remembers; `sock_release` |
//! | `translations` | what a socket remembers: UDP, and what `peers` has no room for |
//! | `bench` | other ways to remember it, only in the object that the benchmark loads |
//!
//! An AF_INET6 socket with v4-mapped peers wanders between the hooks of both families (a `sendto` runs
//! sendmsg4, its answer recvmsg6); since addresses are sixteen bytes everywhere, one record serves all.

mod askers;
#[cfg(feature = "bench")]
mod bench;
mod connect;
mod context;
mod peers;
mod reverse;
mod sendmsg;
mod translations;
