//! A client behind a pod, as behind a VPN's or a router's.

use std::net::{Ipv4Addr, Ipv6Addr};

use anyhow::{Context as _, Result};

use super::TwoNodes;
use crate::{place::Place, topology};

/// The pod's addresses towards the client.
const POD: [&str; 2] = ["10.8.0.1", "fd00:10:8::1"];
/// The client's.
const CLIENT: (Ipv4Addr, Ipv6Addr) =
    (Ipv4Addr::new(10, 8, 0, 2), Ipv6Addr::new(0xfd00, 0x10, 8, 0, 0, 0, 0, 2));

impl TwoNodes {
    /// The ranges of clients behind pods, one of each family.
    pub const BEHIND: [&str; 2] = ["10.8.0.0/24", "fd00:10:8::/64"];

    /// Makes a client behind `pod`, which forwards its packets from now on. Its sockets are served by no program.
    pub fn client_behind(&self, pod: &Place) -> Result<Place> {
        let client =
            topology::host(self.lab.name(), "behind", CLIENT.0, CLIENT.1, self.lab.outside().clone())?;
        pod.namespace.ip_batch(&format!(
            "link add tun0 type veth peer name eth0 netns {}
addr add {}/24 dev tun0
addr add {}/64 dev tun0 nodad
link set tun0 up
",
            client.namespace.name(),
            POD[0],
            POD[1],
        ))?;
        client.namespace.ip_batch(&format!(
            "addr add {}/24 dev eth0
addr add {}/64 dev eth0 nodad
link set eth0 up
route add default via {}
route add default via {}
",
            client.v4, client.v6, POD[0], POD[1],
        ))?;
        for switch in ["ipv4/ip_forward", "ipv6/conf/all/forwarding"] {
            let file = format!("/proc/sys/net/{switch}");
            pod.run(|| std::fs::write(&file, "1")).context(file.clone())?;
        }
        Ok(client)
    }
}
