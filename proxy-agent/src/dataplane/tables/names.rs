//! Service port identities as NAMES spells them.

use proxy_common::{Protocol, ServiceName};

use crate::{
    model::ObjectName,
    plan::{Family, ServicePortId},
};

/// The value of NAMES for `id`. Longer strings than Kubernetes allows are cut: such a Service is only
/// installed anew after a restart, instead of being found again.
pub(crate) fn to_table(id: &ServicePortId) -> ServiceName {
    let ServicePortId { service, port, protocol, family } = id;
    ServiceName {
        namespace: padded(service.namespace()),
        name: padded(service.name()),
        port: padded(port),
        protocol: *protocol as u8,
        family: match family {
            Family::V4 => 4,
            Family::V6 => 6,
        },
        padding: [0; 6],
    }
}

/// The identity in a value of NAMES; `None` if no version of us wrote it.
pub fn from_table(name: &ServiceName) -> Option<ServicePortId> {
    Some(ServicePortId {
        service: ObjectName::new(text(&name.namespace)?, text(&name.name)?),
        port: text(&name.port)?.into(),
        protocol: Protocol::from_number(name.protocol)?,
        family: match name.family {
            4 => Family::V4,
            6 => Family::V6,
            _ => return None,
        },
    })
}

fn padded(text: &str) -> [u8; 64] {
    let mut bytes = [0; 64];
    for (byte, character) in bytes.iter_mut().zip(text.bytes()) {
        *byte = character;
    }
    bytes
}

fn text(bytes: &[u8; 64]) -> Option<&str> {
    let length = bytes.iter().position(|&byte| byte == 0).unwrap_or(bytes.len());
    std::str::from_utf8(bytes.get(..length)?).ok()
}

#[cfg(test)]
mod tests {
    use smol_str::SmolStr;

    use super::*;

    #[test]
    fn a_name_survives_the_table() {
        let id = ServicePortId {
            service: ObjectName::new("kube-system", "kube-dns"),
            port: SmolStr::default(),
            protocol: Protocol::Udp,
            family: Family::V6,
        };
        assert_eq!(from_table(&to_table(&id)), Some(id));
    }
}
