//! Connection records: what is known of a connection, or a UDP flow, that comes from outside of the node.
//!
//! A connection is **one record**. It is found from every side that one of its packets comes by, and it is written, confirmed,
//! ended and evicted whole: there is no half of it that could be lost, or be somebody else's by now.
//!
//! | packet | at | is found by | becomes |
//! |---|---|---|---|
//! | client -> frontend | ingress | the client | client -> endpoint |
//! | client -> endpoint | egress | the client | source -> endpoint, if it is masqueraded |
//! | endpoint -> client | egress | the client | frontend -> client |
//! | endpoint -> source | ingress | the source port | endpoint -> client |
//!
//! | file | concept |
//! |---|---|
//! | `record` | the record, and which packets are its own |
//! | `buckets` | FLOW_TAGS and FLOW_USES: in which slots of FLOWS a client's records can be, and which of them may be taken |
//! | `ports` | SOURCE_PORTS: whose answers come to a source port, which is also the allocation of ports |
//! | `table` | the tables, as the algorithms use them |
//! | `find` | finding the record of a packet |
//! | `life` | what a packet changes in its record |
//! | `begin` | making a record |
//!
//! **Who writes what.** A slot is *reserved* under the lock of its region, and only if nothing has changed since it was chosen;
//! from then on it is the writer's alone, and no reader takes what is in it for a record before its checks are right. Each byte
//! of [`Seen`] is written by packets of one direction. What keeps a slot from being taken changes under the lock.

pub mod begin;
pub mod buckets;
pub mod find;
pub mod life;
pub mod ports;
pub mod record;
pub mod table;

pub use begin::{Begun, Considered, Draft, SourcePorts, begin, finish, start};
pub use buckets::{FlowLock, FlowTags, FlowUses, Home, Kept, Place};
pub use find::{Answer, Drafted, Kind, Leaving, Request, Way, find, find_by_source};
pub use life::{Clock, Known, Noted, Rival, answered, asked, left};
pub use ports::{LANES, PortOwners, give_port, has_port, try_port};
pub use record::{Ends, Origin, Record, Seen, Tuple};
pub use table::{Flows, Reservation};
