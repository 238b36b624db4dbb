//! What a program may do with a UDP socket, and whom it may name.

use std::{collections::BTreeSet, fmt};

/// How many pods serve.
pub(super) const PODS: usize = 4;
/// How many Services they serve.
pub(super) const SERVICES: usize = 3;

/// Some of the pods, by number.
pub(super) type Pods = BTreeSet<usize>;

/// Pods, written down.
pub(super) fn names(pods: &Pods) -> String {
    pods.iter().map(|pod| format!("pod-{pod}")).collect::<Vec<_>>().join(" or ")
}

/// Whom a program names.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Whom {
    /// A Service, which may have endpoints.
    Service(usize),
    /// A Service's address, at a port that it has not.
    UnknownPort(usize),
    /// A pod itself.
    Pod(usize),
    /// A Service of which the endpoint is where no route leads.
    Unreachable,
}

/// How an address is written.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Spelling {
    /// An address of IPv4, for a socket of `AF_INET`.
    V4,
    /// An address of IPv6.
    V6,
    /// An address of IPv4 in IPv6 clothes.
    Mapped,
}

/// An address and port that a program passes to a call.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct Target {
    pub(super) whom: Whom,
    pub(super) spelling: Spelling,
}

/// What a socket was made as.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Domain {
    /// `AF_INET`.
    Inet,
    /// `AF_INET6`, for IPv4 too.
    Inet6,
}

impl Domain {
    /// How addresses are written for such a socket.
    pub(super) const fn spellings(self) -> &'static [Spelling] {
        match self {
            Self::Inet => &[Spelling::V4],
            Self::Inet6 => &[Spelling::V6, Spelling::Mapped],
        }
    }
}

/// What a socket was bound to when it was made.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Bound {
    /// Nothing.
    No,
    /// A port of its own.
    Port,
    /// A port and the pod's address, written so.
    Address(Spelling),
}

/// One system call, or what takes a socket elsewhere.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Call {
    /// `connect`.
    Connect(Target),
    /// `connect` with `AF_UNSPEC`.
    Disconnect,
    /// `sendto`.
    SendTo(Target),
    /// `send`.
    Send,
    /// `recvfrom`, until nothing is left.
    Receive,
    /// `dup`; the descriptor that there was is closed.
    Duplicate,
    /// From here on a thread of another cgroup and network namespace calls.
    HandOver,
}

/// What an endpoint of a Service is.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(super) enum Condition {
    /// None of the Service's.
    #[default]
    Absent,
    /// Ready.
    Ready,
    /// Terminating, and still serving.
    Draining,
}

/// The endpoints of every Service.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub(super) struct Endpoints(pub(super) [[Condition; PODS]; SERVICES]);

impl Endpoints {
    /// The pods that answer for a Service: nobody who talks to one of them has to leave.
    pub(super) fn serving(&self, service: usize) -> Pods {
        self.which(service, |condition| condition != Condition::Absent)
    }

    /// The pods that somebody new may get.
    pub(super) fn choosable(&self, service: usize) -> Pods {
        let ready = self.which(service, |condition| condition == Condition::Ready);
        if ready.is_empty() { self.serving(service) } else { ready }
    }

    fn which(&self, service: usize, wanted: impl Fn(Condition) -> bool) -> Pods {
        (0..PODS).filter(|pod| wanted(self.0[service][*pod])).collect()
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.whom {
            Whom::Service(service) => write!(f, "service {service}"),
            Whom::UnknownPort(service) => write!(f, "unknown port of service {service}"),
            Whom::Pod(pod) => write!(f, "pod-{pod} itself"),
            Whom::Unreachable => write!(f, "unreachable"),
        }?;
        match self.spelling {
            Spelling::V4 => write!(f, " (IPv4)"),
            Spelling::V6 => write!(f, " (IPv6)"),
            Spelling::Mapped => write!(f, " (v4-mapped)"),
        }
    }
}

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Connect(target) => write!(f, "connect to {target}"),
            Self::Disconnect => write!(f, "connect to AF_UNSPEC"),
            Self::SendTo(target) => write!(f, "sendto {target}"),
            Self::Send => write!(f, "send"),
            Self::Receive => write!(f, "recvfrom"),
            Self::Duplicate => write!(f, "dup"),
            Self::HandOver => write!(f, "hand over"),
        }
    }
}

impl fmt::Display for Endpoints {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (service, conditions) in self.0.iter().enumerate() {
            write!(f, "{}service {service}:", if service == 0 { "" } else { ", " })?;
            for (pod, condition) in conditions.iter().enumerate() {
                match condition {
                    Condition::Absent => Ok(()),
                    Condition::Ready => write!(f, " pod-{pod}"),
                    Condition::Draining => write!(f, " pod-{pod} (draining)"),
                }?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_that_drain_are_chosen_only_where_no_other_is() {
        let mut endpoints = Endpoints::default();
        endpoints.0[1] = [Condition::Draining, Condition::Ready, Condition::Absent, Condition::Absent];
        assert_eq!(endpoints.choosable(1), Pods::from([1]));
        assert_eq!(endpoints.serving(1), Pods::from([0, 1]));
        endpoints.0[1][1] = Condition::Absent;
        assert_eq!(endpoints.choosable(1), Pods::from([0]));
        assert!(endpoints.choosable(0).is_empty());
    }
}
