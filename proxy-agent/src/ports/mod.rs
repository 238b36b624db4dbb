//! Port numbers by the range and by the set, as people and the kernel write them.

mod range;
mod set;

pub use range::{BadRange, PortRange};
pub use set::PortSet;
