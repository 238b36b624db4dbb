//! The pinned maps: what is in them, what is free in them, and how a change gets there.
//!
//! | file | concept |
//! |---|---|
//! | `install` | [`Dataplane`]: applies [`crate::plan::Changes`]; the order of writes and why it is safe |
//! | `publish` | its first steps: endpoints, and the one store that publishes them |
//! | `adopt` | what a restarted agent finds in the tables |
//! | `recall` | the tables read back as a plan |
//! | `refused` | what there was no room for |
//! | `slab`, `ids` | which slots, indexes and endpoint ids are free |
//! | `exposed` | what of it clients outside can ask for |
//! | `grace` | giving things back only when no program can still be reading them |
//! | `ranges` | who may use LoadBalancer IPs that are not for everyone |
//! | `pinned` | the pinned maps, typed; `mapped`: those that are memory; `bitmaps`: those that are bits |
//! | `names` | Service port identities as the tables spell them |
//! | `bypass` | marking the agent's own sockets, which the hooks leave alone |
//! | `bpf` | the few raw `bpf(2)` calls that aya does not have |

mod adopt;
pub(super) mod bitmaps;
pub(super) mod bpf;
pub(super) mod bypass;
pub(super) mod exposed;
pub(super) mod grace;
mod ids;
pub(super) mod install;
pub(super) mod mapped;
pub(super) mod names;
pub(super) mod pinned;
#[cfg(test)]
mod properties;
mod publish;
mod ranges;
mod recall;
mod refused;
mod slab;
