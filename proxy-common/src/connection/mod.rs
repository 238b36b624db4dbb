//! Connection records: the state of a north-south connection or UDP flow.
//!
//! A connection is **one record**. Every packet of the connection, at ingress and egress and in both directions,
//! finds it, and it is written, confirmed, ended and evicted as a whole: no half can be lost or belong to another
//! connection.
//!
//! | packet | at | is found by | becomes |
//! |---|---|---|---|
//! | client -> frontend | ingress | the client | client -> endpoint |
//! | client -> endpoint | egress | the client | SNAT source -> endpoint, if masqueraded |
//! | endpoint -> client | egress | the client | frontend -> client |
//! | endpoint -> SNAT source | ingress | the source port | endpoint -> client |
//!
//! Two connections of one client port to one endpoint would be the same in all rows but the first. So all but one are
//! [remapped](Ends::REMAPPED): in the other rows, they have their source port instead of the client's, and are found by it.
//!
//! | file | concept |
//! |---|---|
//! | `record` | the record, and which packets belong to it |
//! | `buckets` | FLOW_TAGS and FLOW_USES: which slots can hold a client's records, and which may be evicted |
//! | `ports` | SOURCE_PORTS: the connections that own a source port, and its allocation |
//! | `foreign` | FOREIGN_PORTS: the source ports of connections that conntrack masquerades |
//! | `table` | the tables, as the algorithms access them |
//! | `find` | lookup of the record of a packet |
//! | `life` | how a packet changes its record |
//! | `begin` | creating a record |
//!
//! **Who writes what.** A slot is *reserved* under the lock of its region, and only if nothing has changed since
//! it was chosen. From then on only the reserving processor writes it, and no reader accepts its content as a
//! record until the checks match. The `client` and `endpoint` bytes of [`Seen`] are each written by packets of one
//! direction only. The bits that protect a slot from eviction change under the lock.

pub mod begin;
pub mod buckets;
pub mod find;
pub mod foreign;
pub mod life;
pub mod ports;
pub mod record;
pub mod table;

pub use begin::{Begun, Considered, Draft, PortShare, SourcePorts, begin, finish, start};
pub use buckets::{FlowLock, FlowTags, FlowUses, Home, Kept, RecordId};
pub use find::{Answer, Drafted, Kind, Leaving, Request, Way, find, find_by_source, find_remapped};
pub use foreign::{EXPECTED, FOREIGN_WORDS, foreign_bit};
pub use life::{Clock, Known, Noted, Rival, answered, asked, left};
pub use ports::{LANES, PortOwners, give_port, read_source, try_port};
pub use record::{Ends, Origin, Record, Seen, Tuple};
pub use table::{Flows, Reservation};
