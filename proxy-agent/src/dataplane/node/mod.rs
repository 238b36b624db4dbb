//! The node's kernel: what the agent reads from it, and the little that it changes.
//!
//! | file | concept |
//! |---|---|
//! | `interfaces` | the uplinks, and the packet programs attached to them |
//! | `reserved_ports` | the source ports of masqueraded packets and NodePorts, kept from the node's own sockets |
//! | `netlink` | asking the kernel about devices, routes, sockets and filters |
//! | `kube_proxy` | the rules of kube-proxy |
//! | `iptables` | the tables of iptables-legacy |
//! | `namespaces` | finding the machine's network namespaces |
//! | `pods` | Pods by their cgroups and host names |
//! | `host` | the node's own cgroup2 and bpffs, told from a container's |
//! | `kernel_types` | where members of kernel structures are |
//! | `system` | namespace cookies, helpers |

pub(super) mod host;
pub(super) mod interfaces;
pub(super) mod iptables;
pub(super) mod kernel_types;
pub(super) mod kube_proxy;
pub(super) mod namespaces;
pub(super) mod netlink;
pub(super) mod pods;
pub(super) mod reserved_ports;
pub(super) mod system;
