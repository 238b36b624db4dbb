//! Packets of every shape, translated in memory and compared, byte by byte, with packets that were made with the
//! other addresses from the start.
//!
//! | file | concept |
//! |---|---|
//! | `skb` | a packet in memory that changes as in the kernel, including checksums that a device computes |
//! | `shapes` | strategies for packets |
//! | `rewriting` | rewriting one address and port |
//! | `forwarding` | packets that are forwarded past the stack |
//! | `errors` | ICMP errors that quote a packet |
//! | `answers` | TCP resets and "port unreachable" |
//! | `noise` | random bytes |

mod answers;
mod errors;
mod forwarding;
mod noise;
mod rewriting;
mod shapes;
mod skb;
