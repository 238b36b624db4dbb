//! A `KubeProxyConfiguration`, as a file.

use proxy_agent::config::fuzzing::settings;

pub(crate) fn decode(bytes: &[u8]) {
    let Ok(text) = str::from_utf8(bytes) else { return };
    let Ok(read) = settings(text) else { return };
    assert!(!read.patience.is_zero() && !read.timeouts.tcp_established.is_zero(), "{read:?}");
    assert!(read.timeouts.udp_seconds() > 0, "{read:?}");
    assert!(read.source_ports.count() > 0 && read.source_ports.first() >= 1024, "{read:?}");
    assert!(read.healthz.iter().chain(&read.metrics).all(|address| address.port() != 0), "{read:?}");
    // What `--write-config-to` writes is read as the same.
    let written = read.to_yaml().expect("what was read can be written");
    let again = settings(&written).unwrap_or_else(|error| panic!("{error}:\n{written}"));
    assert_eq!(again.effective, read.effective, "{written}");
}
