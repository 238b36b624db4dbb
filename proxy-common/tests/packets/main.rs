//! Packets of every shape, translated in memory and compared, byte by byte, with packets that were made with the other
//! addresses from the start.
//!
//! | file | concept |
//! |---|---|
//! | `skb` | a packet in memory that changes as the kernel changes it, also where a device has a part in the checksum |
//! | `shapes` | what packets there are |
//! | `rewriting` | one address and port for another |
//! | `forwarding` | packets that are sent on without the stack |
//! | `errors` | ICMP errors that quote a packet |
//! | `answers` | resets and "port unreachable" |
//! | `noise` | bytes of no sense |

mod answers;
mod errors;
mod forwarding;
mod noise;
mod rewriting;
mod shapes;
mod skb;
