//! The pinned maps: their content, their free slots and ids, and how a change is written.
//!
//! | file | concept |
//! |---|---|
//! | `writer` | the one writer: the maps, what is installed in them, and what of them is free |
//! | `install` | applies [`crate::plan::Changes`]; the order of writes and why it is safe |
//! | `publish` | its first steps: endpoints, and the one store that publishes them |
//! | `frontends`, `addresses` | its other steps: entries of FRONTENDS and ADDRESSES |
//! | `losers` | when Service ports that lose frontends change |
//! | `lines` | FRONTENDS once more, as the programs read it |
//! | `capacity` | how many entries the tables have |
//! | `room` | how much they need, and what lies beyond a smaller size |
//! | `growth`, `resize`, `generations` | tables of another length beside the present ones; copying what these hold |
//! | `adopt` | what a restarted agent finds in the tables |
//! | `recall` | the tables read back as a plan |
//! | `refused`, `not_installed` | what there was no room for |
//! | `precedence` | who makes way for Services that a node cannot do without |
//! | `slab`, `ids` | which slots, indexes and endpoint ids are free |
//! | `exposed` | the north-south frontends |
//! | `grace`, `retired` | giving things back only when no program can still be reading them |
//! | `ranges` | the clients of restricted LoadBalancer IPs |
//! | `layout` | layouts of elements, and from one to another |
//! | `maps` | which maps are pinned, what they look like, and opening one |
//! | `pinned` | the pinned maps, typed; `shared`: for those who only look; `mapped`: those that are memory; `bitmaps`: those that are bits |
//! | `flow_table` | FLOWS, in memory that the programs write at any moment; `flow_moves`: its records to another table |
//! | `names` | Service port identities as the tables spell them |
//! | `elements` | inserting and deleting elements; `crash`: where tests let the agent die between two writes |
//! | `listeners` | who listens to what the kernel programs do |
//! | `bypass` | marking the agent's own sockets, which the hooks leave alone |

mod addresses;
mod adopt;
pub(super) mod bitmaps;
pub(super) mod bypass;
pub(super) mod capacity;
pub(super) mod crash;
mod elements;
pub(super) mod exposed;
pub(super) mod flow_moves;
pub(super) mod flow_table;
mod frontends;
mod generations;
pub(super) mod grace;
pub(super) mod growth;
mod ids;
mod install;
pub(super) mod installed;
pub(super) mod layout;
pub(super) mod lines;
pub(super) mod listeners;
mod losers;
pub(super) mod mapped;
pub(super) mod maps;
pub(super) mod names;
pub(super) mod not_installed;
pub(super) mod pinned;
mod precedence;
#[cfg(test)]
mod properties;
mod publish;
mod ranges;
mod recall;
mod refused;
pub(super) mod resize;
mod retired;
mod room;
pub(super) mod shared;
mod slab;
pub(super) mod writer;
