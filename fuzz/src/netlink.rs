//! Answers of the kernel, as a netlink socket receives them.

use proxy_agent::dataplane::fuzzing::netlink;

/// `struct nlmsghdr`.
const HEADER: usize = 16;

pub(crate) fn decode(bytes: &[u8]) {
    let read = netlink::read(bytes);
    assert!(read.messages.iter().all(|count| count * HEADER <= bytes.len()), "{read:?}");
    for name in &read.names {
        assert!(name.len() <= bytes.len() && !name.contains('\0'), "{name:?}");
    }
    for (tuple, again) in read.tuples {
        assert_eq!(again, Some(tuple), "what is asked of the kernel is what it said");
    }
}
