//! What earlier versions called otherwise, and what they did not say.

use std::mem::offset_of;

use proxy_common::Translation;

use crate::dataplane::tables::layout::Layout;

/// Names of fields that have others now: the former one, and the present one. (0.1.0)
pub(super) const RENAMED: [(&str, &str); 3] =
    [("backend", "endpoint_address"), ("backend_port", "endpoint_port"), ("places", "record_ids")];

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
