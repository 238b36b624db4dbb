//! Reading addresses as Kubernetes writes them.

use std::net::{IpAddr, Ipv4Addr};

use proxy_common::Address;

/// Parses an address; decimal octets may have leading zeros (EP-2), as API servers once let them in.
pub(super) fn parse(text: &str) -> Option<Address> {
    if let Ok(ip) = text.parse::<IpAddr>() {
        return Some(ip.into());
    }
    let mut octets = [0_u8; 4];
    let mut parts = text.split('.');
    for octet in &mut octets {
        let part = parts.next()?;
        if part.is_empty() || !part.bytes().all(|b| b.is_ascii_digit()) {
            return None;
        }
        *octet = match part.trim_start_matches('0') {
            "" => 0,
            digits => digits.parse().ok()?,
        };
    }
    parts.next().is_none().then(|| IpAddr::V4(Ipv4Addr::from(octets)).into())
}

/// An address that clients may be led to or from: never the unspecified address, nor a multicast one.
pub(super) fn parse_unicast(text: &str) -> Result<Address, String> {
    let address = parse(text).ok_or_else(|| format!("`{text}` is not an IP address; write one"))?;
    let ip = IpAddr::from(address);
    if ip.is_unspecified() || ip.is_multicast() {
        return Err(format!("{text} is not a unicast address; write one"));
    }
    Ok(address)
}

/// An address that stands for a Service: besides, never a loopback address, which is every pod's own.
pub(super) fn parse_vip(text: &str) -> Result<Address, String> {
    let address = parse_unicast(text)?;
    if address.is_loopback() {
        return Err(format!("{text} is a loopback address, which is every pod's own; write another"));
    }
    Ok(address)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// EP-2: leading zeros are decimal.
    #[test]
    fn addresses_may_have_leading_zeros() {
        for (text, expected) in [
            ("10.0.0.1", Some("10.0.0.1")),
            ("010.000.00.08", Some("10.0.0.8")),
            ("10.0.0.0256", None),
            ("10.0.0", None),
            ("10.0.0.1.1", None),
            ("10.0.0.+1", None),
            ("10..0.1", None),
            ("fd00::1", Some("fd00::1")),
            ("::ffff:10.0.0.1", Some("10.0.0.1")),
            ("web.example", None),
            ("", None),
        ] {
            let expected = expected.map(|t| Address::from(t.parse::<IpAddr>().expect("valid")));
            assert_eq!(parse(text), expected, "{text}");
        }
    }

    #[test]
    fn addresses_that_are_not_unicast_are_refused_with_a_reason() {
        for text in ["0.0.0.0", "::", "224.0.0.1", "ff02::1", "nonsense", "300.1.1.1"] {
            let error = parse_unicast(text).expect_err(text);
            assert!(error.contains(text), "{error}");
        }
        assert!(parse_unicast("127.0.0.1").is_ok());
        assert!(parse_vip("127.0.0.1").is_err());
        assert!(parse_vip("::1").is_err());
    }
}
