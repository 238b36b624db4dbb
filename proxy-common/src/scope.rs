//! Whether a client is east-west or north-south.

/// Where the client is, as seen from this node.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Scope {
    /// A pod or a process of this node.
    Inside,
    /// Beyond the node's uplinks.
    Outside,
}
