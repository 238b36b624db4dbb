//! A Node.

use std::{fmt, net::IpAddr};

/// A Node with its internal addresses.
#[derive(Clone, Debug)]
pub struct Node {
    name: String,
    addresses: Vec<IpAddr>,
}

impl Node {
    /// A Node with these addresses, as in `status.addresses`.
    pub fn new(name: &str, addresses: &[IpAddr]) -> Self {
        Self { name: name.to_owned(), addresses: addresses.to_vec() }
    }

    /// The lab's node.
    pub fn lab() -> Self {
        Self::new(
            crate::agent::NODE_NAME,
            &[crate::topology::NODE_V4.into(), crate::topology::NODE_V6.into()],
        )
    }
}

impl fmt::Display for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "apiVersion: v1\nkind: Node\nmetadata:\n  name: {}\nstatus:\n  addresses:", self.name)?;
        for address in &self.addresses {
            writeln!(f, "  - type: InternalIP\n    address: {address}")?;
        }
        Ok(())
    }
}
