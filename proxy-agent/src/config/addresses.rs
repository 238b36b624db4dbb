//! Where to listen: `healthzBindAddress` and `metricsBindAddress` (CF-4).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// The purpose of a listener.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Purpose {
    /// `/healthz` and `/livez`, for everyone.
    Health,
    /// `/metrics`, for the node itself.
    Metrics,
}

impl Purpose {
    const fn port(self) -> u16 {
        match self {
            Self::Health => 10256,
            Self::Metrics => 10249,
        }
    }

    /// Where to listen by default; the family is that of `bindAddress` (CF-3).
    pub(super) fn default_address(self, v6: bool) -> SocketAddr {
        let ip: IpAddr = match (self, v6) {
            (Self::Health, false) => Ipv4Addr::UNSPECIFIED.into(),
            (Self::Health, true) => Ipv6Addr::UNSPECIFIED.into(),
            (Self::Metrics, false) => Ipv4Addr::LOCALHOST.into(),
            (Self::Metrics, true) => Ipv6Addr::LOCALHOST.into(),
        };
        SocketAddr::new(ip, self.port())
    }
}

/// Reads an address with or without a port. Nothing for port 0, which means not to listen.
pub(super) fn read(text: &str, purpose: Purpose) -> Result<Option<SocketAddr>, String> {
    let bare = |ip| SocketAddr::new(ip, purpose.port());
    let address = text.parse::<SocketAddr>().or_else(|_| text.parse().map(bare)).or_else(|_| {
        // As kube-proxy has it: every address, at this port.
        let port = text.strip_prefix(':').and_then(|port| port.parse().ok());
        port.map(|port| SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), port)).ok_or_else(|| {
            format!("`{text}` is not an address; write one such as {}", purpose.default_address(false))
        })
    })?;
    Ok((address.port() != 0).then_some(address))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// CF-4.
    #[test]
    fn addresses_have_a_port_or_the_default_one() {
        for (text, expected) in [
            ("127.0.0.1:1234", Some("127.0.0.1:1234")),
            ("127.0.0.1", Some("127.0.0.1:10249")),
            ("::1", Some("[::1]:10249")),
            ("[::]:80", Some("[::]:80")),
            (":80", Some("[::]:80")),
            ("0.0.0.0:0", None),
        ] {
            let expected = expected.map(|text| text.parse::<SocketAddr>().expect("an address"));
            assert_eq!(read(text, Purpose::Metrics), Ok(expected), "{text}");
        }
        assert!(read("localhost:80", Purpose::Health).expect_err("a name").contains("0.0.0.0:10256"));
    }
}
