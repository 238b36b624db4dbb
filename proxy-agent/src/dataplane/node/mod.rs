//! The node around the tables: what the agent asks its kernel about, and the little that it changes there.
//!
//! | file | concept |
//! |---|---|
//! | `interfaces` | the devices that packets from outside come through, and our programs there |
//! | `reserved_ports` | the source ports of masqueraded packets and NodePorts, kept from the node's own sockets |
//! | `netlink` | asking the kernel about devices, routes, sockets and filters |
//! | `namespaces` | finding the machine's network namespaces |
//! | `host` | the node's own cgroup2 and bpffs, told from a container's |
//! | `system` | namespace cookies, helpers |

pub(super) mod host;
pub(super) mod interfaces;
pub(super) mod namespaces;
pub(super) mod netlink;
pub(super) mod reserved_ports;
pub(super) mod system;
