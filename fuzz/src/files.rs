//! What is left in files and tables, and what other programs print; the first byte says which.

use proxy_agent::{
    agent::Report,
    commands::fuzzing::dropped,
    dataplane::{fuzzing as dataplane, identity},
    ports::{PortRange, PortSet},
};
use proxy_common::ServiceName;

pub(crate) fn decode(bytes: &[u8]) {
    let Some((which, rest)) = bytes.split_first() else { return };
    let text = str::from_utf8(rest).unwrap_or_default();
    match which {
        b'r' => report(rest),
        b'n' => name(rest),
        b'b' => {
            let members = dataplane::members(rest).unwrap_or_default();
            assert!(members <= rest.len() / 12, "{members} members");
        }
        b'm' => {
            if let Some(cgroup) = dataplane::mounts(text) {
                assert!(text.contains("cgroup2"), "{}", cgroup.display());
            }
        }
        b'f' => drop(dropped(text)),
        b'p' => ports(text),
        _ => {}
    }
}

/// `report.json`.
fn report(bytes: &[u8]) {
    let Ok(report) = serde_json::from_slice::<Report>(bytes) else { return };
    let written = serde_json::to_vec(&report).expect("a report can be written");
    assert_eq!(serde_json::from_slice::<Report>(&written).expect("and read"), report);
}

/// A value of NAMES.
fn name(bytes: &[u8]) {
    let Some(bytes) = bytes.get(..size_of::<ServiceName>()) else { return };
    if let Some(id) = identity(&bytemuck::pod_read_unaligned(bytes)) {
        assert_eq!(identity(&dataplane::to_table(&id)), Some(id), "an identity stays the same");
    }
}

/// `ip_local_reserved_ports`, and a range of ports.
fn ports(text: &str) {
    if let Ok(set) = text.parse::<PortSet>() {
        assert_eq!(set.to_string().parse().as_ref(), Ok(&set));
    }
    if let Ok(range) = text.parse::<PortRange>() {
        assert!(range.first() >= 1024 && range.count() > 0, "{range:?}");
        assert_eq!(range.to_string().parse().as_ref(), Ok(&range));
    }
}
