//! Fuzz targets: everything that decodes bytes from outside, each as a function of bytes that panics at a fault.
//!
//! A target does more than survive: what was decoded is planned, written and decoded again, translated there and back,
//! and takes memory in proportion to its bytes. `cargo xtask fuzz` looks for bytes that break it, guided by coverage;
//! `corpus/` keeps what it found that reaches different code, and the tests replay it.
//!
//! | file | bytes |
//! |---|---|
//! | `manifests` | the text of a manifest file, and what it says next |
//! | `watches` | lists and watch lines of an API server |
//! | `configuration` | a `KubeProxyConfiguration` |
//! | `netlink` | answers of the kernel: devices, routes, filters, connections, rules, sockets |
//! | `packets` | packets, and the errors that quote them |
//! | `connections` | what happens to connection records |
//! | `files` | what is left in files and tables, and what other programs print |
//! | `plans` | what holds of every plan |
//! | `allocations` | how much memory a target takes |

mod allocations;
mod configuration;
mod connections;
mod files;
mod manifests;
mod netlink;
mod packets;
mod plans;
mod watches;

// The models of proxy-common's own tests.
#[expect(dead_code, reason = "its own tests use more of it")]
#[path = "../../proxy-common/tests/connections/memory.rs"]
mod memory;
#[expect(dead_code, reason = "its own tests use more of it")]
#[path = "../../proxy-common/tests/connections/node.rs"]
mod node;
#[path = "../../proxy-common/tests/packets/skb.rs"]
mod skb;
#[path = "../../proxy-common/tests/connections/story.rs"]
mod story;

/// Something that decodes bytes.
#[derive(Debug)]
pub struct Target {
    /// Its name, and that of its folder in `corpus/`.
    pub name: &'static str,
    /// Decodes the bytes, and panics at a fault.
    decode: fn(&[u8]),
    /// How many bytes of memory it may take, for each byte that it decodes.
    memory: usize,
}

/// All of them.
pub const TARGETS: [Target; 7] = [
    Target { name: "manifests", decode: manifests::decode, memory: 4096 },
    Target { name: "watches", decode: watches::decode, memory: 4096 },
    Target { name: "configuration", decode: configuration::decode, memory: 4096 },
    Target { name: "netlink", decode: netlink::decode, memory: 4096 },
    Target { name: "packets", decode: packets::decode, memory: 64 },
    Target { name: "connections", decode: connections::decode, memory: 4096 },
    Target { name: "files", decode: files::decode, memory: 4096 },
];

/// What a target takes, however few bytes it decodes.
const ROOM: usize = 4 << 20;

impl Target {
    /// The target of this name.
    pub fn named(name: &str) -> Option<&'static Self> {
        TARGETS.iter().find(|target| target.name == name)
    }

    /// Another one, for tests.
    pub const fn made_up(name: &'static str, decode: fn(&[u8]), memory: usize) -> Self {
        Self { name, decode, memory }
    }

    /// Decodes the bytes.
    ///
    /// # Panics
    /// At a fault of what decodes them.
    pub fn run(&self, bytes: &[u8]) {
        let most = allocations::most(|| (self.decode)(bytes));
        let limit = ROOM + self.memory * bytes.len();
        assert!(most <= limit, "{} bytes take {most} bytes of memory, more than {limit}", bytes.len());
    }
}
