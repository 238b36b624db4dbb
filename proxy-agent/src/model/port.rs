//! Reading port numbers and protocols.

use proxy_common::Protocol;

/// A port number that exists.
pub(super) fn number(value: i64) -> Result<u16, String> {
    match u16::try_from(value) {
        Ok(port) if port != 0 => Ok(port),
        _ => Err(format!("{value} is not a port; write a number from 1 to 65535")),
    }
}

/// A protocol (FE-8); TCP unless something is written.
pub(super) fn protocol(text: Option<&str>) -> Result<Protocol, String> {
    match text {
        None | Some("TCP") => Ok(Protocol::Tcp),
        Some("UDP") => Ok(Protocol::Udp),
        Some("SCTP") => Ok(Protocol::Sctp),
        Some(other) => Err(format!("`{other}` is not a protocol of Services; write TCP, UDP or SCTP")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_from_1_to_65535() {
        assert_eq!(number(1), Ok(1));
        assert_eq!(number(65535), Ok(65535));
        for bad in [0, -1, 65536, i64::MAX] {
            assert!(number(bad).expect_err("not a port").contains(&bad.to_string()));
        }
    }

    /// FE-8.
    #[test]
    fn protocols_are_tcp_udp_and_sctp() {
        assert_eq!(protocol(None), Ok(Protocol::Tcp));
        assert_eq!(protocol(Some("SCTP")), Ok(Protocol::Sctp));
        assert!(protocol(Some("tcp")).is_err());
    }
}
