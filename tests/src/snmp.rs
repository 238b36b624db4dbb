//! The kernel's counters of a namespace. `/proc/net` shows those of the process's first thread, and the lab's threads
//! are in other namespaces.

use std::fs;

use anyhow::{Context, Result};

use crate::place::Place;

/// A counter of `net/snmp` or `net/netstat`, named `Group.Name` (`Icmp.InDestUnreachs`), or of `net/snmp6`, named as there
/// (`Icmp6InDestUnreachs`).
pub fn counter(place: &Place, name: &str) -> Result<u64> {
    let read = |file: &str| place.run(|| fs::read_to_string(file)).with_context(|| file.to_owned());
    let value = if let Some((group, name)) = name.split_once('.') {
        let text = read("/proc/thread-self/net/snmp")? + &read("/proc/thread-self/net/netstat")?;
        // Two lines of each group: names, and values.
        let lines = text.lines().filter_map(|line| line.strip_prefix(group)?.strip_prefix(": "));
        let [names, values]: [&str; 2] =
            lines.collect::<Vec<_>>().try_into().ok().with_context(|| group.to_owned())?;
        let mut columns = names.split(' ').zip(values.split(' '));
        columns.find(|(column, _)| *column == name).map(|(_, value)| value.to_owned())
    } else {
        let text = read("/proc/thread-self/net/snmp6")?;
        text.lines().find_map(|line| Some(line.strip_prefix(name)?.trim().to_owned()))
    };
    value.with_context(|| format!("no counter {name}"))?.parse().with_context(|| name.to_owned())
}
