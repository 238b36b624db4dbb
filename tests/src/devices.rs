//! The node's devices: as `ip`, `tc` and `status` show them, and the programs that run there.

use std::{collections::BTreeMap, fs::File, io::Read as _, net::IpAddr, path::PathBuf, process::Command};

use serde_json::Value;

use crate::{
    bpftool,
    foreign::{Tcx, programs_at},
    lab::Lab,
    manifest::Node,
};

/// No program at ingress, and none at egress.
pub const NOTHING: [Vec<u32>; 2] = [Vec::new(), Vec::new()];

/// The same lab with its Node in the manifests.
pub fn with_node(lab: Lab) -> Lab {
    lab.manifests().write("node.yaml", &[&Node::lab()]).expect("a manifest");
    lab
}

/// Runs lines of `ip -batch` on the node.
pub fn ip(lab: &Lab, lines: &str) {
    lab.node().namespace().ip_batch(lines).expect("ip");
}

/// The index of a device of the node.
pub fn index(lab: &Lab, device: &str) -> u32 {
    let output = tool(lab, "ip", &["-j", "link", "show", device]);
    let shown: Value = serde_json::from_str(&output).expect("JSON");
    shown[0]["ifindex"].as_u64().and_then(|index| index.try_into().ok()).expect("a number")
}

/// The output of a tool of iproute2 on the node.
pub fn tool(lab: &Lab, program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program)
        .args(["-n", lab.node().namespace().name()])
        .args(arguments)
        .output()
        .expect("iproute2");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {arguments:?}: {stderr}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// The directory of the agent's pins of devices.
pub fn pins(lab: &Lab) -> PathBuf {
    lab.pin_directory().join(crate::agent::ABI).join("links").join("tc")
}

/// `status -o json`: the attached devices by name, each with how and why.
pub fn served(lab: &Lab) -> BTreeMap<String, (String, String)> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let described = |device: &Value| (text(&device["name"]), (text(&device["way"]), text(&device["why"])));
    attached(lab).iter().map(described).collect()
}

/// The node's addresses at an attached device, IPv4 first.
pub fn addresses(lab: &Lab, device: &str) -> Vec<IpAddr> {
    let attached = attached(lab);
    let device = attached.iter().find(|found| found["name"] == device).expect("the device");
    serde_json::from_value(device["addresses"].clone()).expect("addresses")
}

/// `status -o json`.
pub fn status(lab: &Lab) -> Value {
    let output = lab.sidestep(&["status", "-o", "json"]).expect("it runs");
    serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&output.stderr)))
}

fn attached(lab: &Lab) -> Vec<Value> {
    let mut devices = serde_json::from_value::<Vec<Value>>(status(lab)["devices"].take()).expect("a list");
    devices.retain(|device| device["attached"] == true);
    devices
}

/// Their names.
pub fn names(lab: &Lab) -> Vec<String> {
    served(lab).into_keys().collect()
}

/// The programs at a device, at ingress and at egress.
pub fn programs(lab: &Lab, device: u32) -> [Vec<u32>; 2] {
    lab.node().run(|| [Tcx::Ingress, Tcx::Egress].map(|side| programs_at(device, side).expect("a query")))
}

/// A program's name in the kernel.
pub fn name_of(program: u32) -> String {
    let shown = bpftool::json(&["prog", "show", "id", &program.to_string()]).expect("bpftool");
    shown["name"].as_str().expect("a name").to_owned()
}

/// The number of our filters at a device, at ingress and egress.
pub fn filters(lab: &Lab, device: &str) -> (usize, usize) {
    let count = |parent| {
        tool(lab, "tc", &["filter", "show", "dev", device, "parent", parent]).matches("sidestep-").count()
    };
    (count("ffff:fff2"), count("ffff:fff3"))
}

/// Whether a device has a `clsact` qdisc.
pub fn has_clsact(lab: &Lab, device: &str) -> bool {
    tool(lab, "tc", &["qdisc", "show", "dev", device]).contains("clsact")
}

/// The node's `ip_local_reserved_ports`. The kernel returns it in a single read, cut off at the buffer's size.
pub fn reserved_ports(lab: &Lab) -> String {
    let mut text = [0; 1024];
    let file = "/proc/sys/net/ipv4/ip_local_reserved_ports";
    let length = lab.node().run(|| File::open(file).and_then(|mut file| file.read(&mut text)));
    String::from_utf8_lossy(&text[..length.expect("the sysctl")]).trim().to_owned()
}
