//! What earlier versions called otherwise, and what they did not say.

use std::mem::offset_of;

use proxy_common::Translation;

use crate::dataplane::tables::layout::Layout;

/// Fields that have other names now: the table, the former name, and the present one. (0.1.0)
const RENAMED: [(&str, &str, &str); 7] = [
    ("SOCKETS", "backend", "endpoint_address"),
    ("SOCKETS", "backend_port", "endpoint_port"),
    ("DATAGRAMS", "backend", "endpoint_address"),
    ("DATAGRAMS", "backend_port", "endpoint_port"),
    ("OVERFLOW", "backend", "endpoint_address"),
    ("OVERFLOW", "backend_port", "endpoint_port"),
    ("SOURCE_PORTS", "places", "record_ids"),
];

/// The former and the present names of a table's fields.
pub(super) fn renamed(table: &str) -> Vec<(&'static str, &'static str)> {
    let of_table = RENAMED.iter().filter(|(of, ..)| *of == table);
    of_table.map(|(_, former, present)| (*former, *present)).collect()
}

/// Adds to a converted value what follows from its being of an earlier layout.
pub(super) fn complete(table: &str, from: &Layout, value: &mut [u8]) {
    // In 0.1.0 SOCKETS had only what a socket was connected by, and did not say so.
    if table == "SOCKETS" && !from.has("mark") {
        let [low, high] = Translation::CONNECTED.to_le_bytes();
        let mark = offset_of!(Translation, mark);
        if let Some(bytes) = value.get_mut(mark..mark + 2) {
            bytes.copy_from_slice(&[low, high]);
        }
    }
}
