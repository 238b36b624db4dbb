//! What the agent gives up once it does not need it any more: capabilities, locked memory's limit, writing anywhere but
//! to its own places.
//!
//! | file | concept |
//! |---|---|
//! | `capabilities` | which it needs, and for what; it drops all others, for good |
//! | `memory` | the limit of locked memory, which holds tables back before Linux 5.11 |
//! | `places` | where it may write, create, remove and execute files (landlock) |

pub(crate) mod capabilities;
pub(crate) mod memory;
pub(crate) mod places;
