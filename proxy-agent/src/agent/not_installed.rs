//! Turns what the maps have no room for into problems: the object, its field, and the remedy.

use crate::{
    dataplane::{FullTable, NotInstalled},
    model::{Problem, Subject},
};

/// The problem that reports `missing` to the operator.
pub(super) fn problem(missing: &NotInstalled) -> Problem {
    match missing {
        NotInstalled::ServicePort { id, full } => {
            let (table, flag) = match full {
                FullTable::Services => ("SERVICES", "--max-services"),
                FullTable::Frontends => ("FRONTENDS", "--max-frontends"),
                FullTable::Endpoints => ("ENDPOINTS", "--max-endpoints"),
            };
            Problem {
                subject: Subject::service(&id.service),
                field: format!("port {:?}", id.port),
                message: format!("not installed: {table} is full; {}", make_room(flag)),
            }
        }
        NotInstalled::Frontend { service, frontend, kind, error } => Problem {
            subject: Subject::service(service),
            field: frontend.to_string(),
            message: format!(
                "{kind} could not be installed in FRONTENDS: {error}; {}",
                make_room("--max-frontends")
            ),
        },
        NotInstalled::Name { service, error } => Problem {
            subject: Subject::service(service),
            field: "NAMES".to_owned(),
            message: format!(
                "works, but `sidestep status` does not show it, and a restarted agent would install it anew: its name could \
                 not be written: {error}; it is tried again every few seconds"
            ),
        },
        NotInstalled::SourceRange { service, range, error } => Problem {
            subject: Subject::service(service),
            field: "spec.loadBalancerSourceRanges".to_owned(),
            message: format!(
                "cannot install {range} in SOURCE_RANGES, so clients in it are refused: {error}; write fewer \
                 and wider ranges"
            ),
        },
        NotInstalled::Address { address, error } => Problem {
            subject: Subject::Address { address: (*address).into() },
            field: "ADDRESSES".to_owned(),
            message: format!("could not be installed: {error}; {}", make_room("--max-frontends")),
        },
    }
}

/// The remedy for a table that may not grow any more.
fn make_room(flag: &str) -> String {
    format!("remove other Services, or start again with more memory or a larger {flag}")
}

/// The problem that clients of restricted LoadBalancer IPs, or whom to pass by, cannot be found.
pub(super) fn namespaces(message: String) -> Problem {
    Problem { subject: Subject::ThisNode, field: "network namespaces".to_owned(), message }
}

/// The problem that stale sockets cannot be found.
pub(super) fn stale_sockets(message: String) -> Problem {
    Problem { subject: Subject::ThisNode, field: "connected UDP sockets".to_owned(), message }
}

/// The problem that the pins are gone.
pub(super) fn pins(message: &str) -> Problem {
    Problem { subject: Subject::ThisNode, field: "BPF file system".to_owned(), message: message.to_owned() }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use proxy_common::Protocol;

    use super::*;
    use crate::{
        model::ObjectName,
        plan::{Family, ServicePortId},
    };

    #[test]
    fn a_full_table_is_reported_with_the_flag_that_enlarges_it() {
        let id = ServicePortId {
            service: ObjectName::new("demo", "web"),
            port: "http".into(),
            protocol: Protocol::Tcp,
            family: Family::V4,
        };
        let told = problem(&NotInstalled::ServicePort { id, full: FullTable::Endpoints });
        assert_eq!((told.subject.to_string().as_str(), &*told.field), ("Service demo/web", "port \"http\""));
        assert!(
            told.message.contains("ENDPOINTS is full") && told.message.ends_with("--max-endpoints"),
            "{told}"
        );

        let address = IpAddr::from([10, 0, 0, 1]).into();
        let told = problem(&NotInstalled::Address { address, error: "E2BIG".to_owned() });
        assert_eq!((told.subject.to_string().as_str(), &*told.field), ("address 10.0.0.1", "ADDRESSES"));
        assert!(
            told.message.contains("remove other Services") && told.message.ends_with("--max-frontends"),
            "{told}"
        );
    }
}
