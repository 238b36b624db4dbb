//! The socket programs: they translate a Service address to an endpoint's before a packet exists, and back when the
//! process asks for its peer.
//!
//! | file | hooks |
//! |---|---|
//! | `connect` | connect4, connect6 |
//! | `sendmsg` | sendmsg4, sendmsg6: UDP sockets that are not connected |
//! | `reverse` | recvmsg4/6, getpeername4/6 |
//! | `askers` | peers that a socket answers from a NodePort's number |
//! | `context` | reading and writing `struct bpf_sock_addr`, and refusing |
//! | `peers` | the peer of a TCP socket; `sock_release` |
//! | `translations` | which of its records names a socket's peer |
//! | `steps` | the hooks' way to the records of UDP, which the verifier walks once |
//! | `connected`, `datagrams`, `overflow` | the records: of the connected peer, of other peers, of what does not fit |
//! | `iterators` | which sockets there are, and who holds them |
//! | `bench` | alternatives for remembering the peer, only in the benchmark's object |
//!
//! An AF_INET6 socket with v4-mapped peers runs the hooks of both families (a `sendto` runs sendmsg4, its answer
//! recvmsg6); since addresses have sixteen bytes everywhere, one record serves both.

mod askers;
#[cfg(feature = "bench")]
mod bench;
mod connect;
mod connected;
mod context;
mod datagrams;
mod iterators;
mod overflow;
mod peers;
mod reverse;
mod sendmsg;
mod steps;
mod translations;

pub(crate) use context::namespace as namespace_of;
