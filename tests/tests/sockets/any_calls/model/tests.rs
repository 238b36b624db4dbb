//! The model by itself; netfilter judges it too.

use super::{
    super::calls::{Condition, PODS},
    *,
};

const SERVICE: Target = Target { whom: Whom::Service(0), spelling: Spelling::V4 };
const OTHER: Target = Target { whom: Whom::Service(1), spelling: Spelling::V4 };
const POD: Target = Target { whom: Whom::Pod(0), spelling: Spelling::V4 };

/// The first two Services have these pods.
fn with(pods: &[usize]) -> Endpoints {
    let mut endpoints = Endpoints::default();
    for service in 0..2 {
        endpoints.0[service] = std::array::from_fn::<_, PODS, _>(|pod| {
            if pods.contains(&pod) { Condition::Ready } else { Condition::Absent }
        });
    }
    endpoints
}

fn model(pods: &[usize]) -> Model {
    Model::new(1, Domain::Inet, Bound::Port, with(pods))
}

#[test]
fn an_answer_is_from_whom_was_asked() {
    let mut model = model(&[0, 1]);
    assert_eq!(model.call(0, Call::SendTo(SERVICE), 1), Outcome::Success);
    assert_eq!(model.answered(0, 1, 0, Some(SERVICE)), Ok(Name::Exact));
    assert!(model.answered(0, 1, 0, Some(SERVICE)).is_err(), "a second answer");
    model.call(0, Call::SendTo(SERVICE), 2);
    assert!(model.clone().answered(0, 2, 0, Some(POD)).is_err(), "named as the pod");
    assert!(model.clone().answered(0, 2, 0, None).is_err(), "named as a stranger");
    assert!(model.clone().answered(0, 2, 1, Some(SERVICE)).is_err(), "another endpoint");
    assert_eq!(model.overdue(), [2]);
    assert_eq!(model.answered(0, 2, 0, Some(SERVICE)), Ok(Name::Exact));
    assert!(model.overdue().is_empty());
}

#[test]
fn what_was_asked_last_may_name_an_earlier_answer_of_the_same_pod() {
    let mut model = model(&[0]);
    model.call(0, Call::SendTo(SERVICE), 1);
    model.call(0, Call::SendTo(POD), 2);
    assert_eq!(model.clone().answered(0, 1, 0, Some(SERVICE)), Ok(Name::Exact));
    assert_eq!(model.clone().answered(0, 1, 0, Some(POD)), Ok(Name::Excused));
    assert!(model.answered(0, 2, 0, Some(SERVICE)).is_err(), "the later one is the pod's");
}

#[test]
fn what_is_asked_past_a_connection_comes_only_because_of_it() {
    let mut model = model(&[0]);
    model.call(0, Call::Connect(SERVICE), 0);
    model.call(0, Call::SendTo(POD), 1);
    assert!(model.overdue().is_empty(), "with netfilter nobody lets it in");
    model.call(0, Call::Disconnect, 0);
    for (name, expected) in [(POD, Some(Name::Exact)), (SERVICE, Some(Name::Excused)), (OTHER, None)] {
        assert_eq!(model.clone().answered(0, 1, 0, Some(name)).ok(), expected);
    }
    model.call(0, Call::SendTo(POD), 2);
    assert!(model.answered(0, 2, 0, Some(SERVICE)).is_err(), "the connection is over");
}

#[test]
fn a_connect_keeps_the_endpoint_that_sendto_got() {
    let mut model = model(&[0, 1]);
    model.call(0, Call::SendTo(SERVICE), 1);
    model.answered(0, 1, 1, Some(SERVICE)).expect("an answer");
    assert_eq!(model.call(0, Call::Connect(SERVICE), 0), Outcome::Success);
    assert_eq!(model.kernel_peer(0), KernelPeer::OneOf(Pods::from([1])));
    assert_eq!((model.peer(0), model.own(0)), (Some(SERVICE), Some(Spelling::V4)));
    model.call(0, Call::Send, 2);
    assert!(model.answered(0, 2, 0, Some(SERVICE)).is_err());
}

#[test]
fn a_connected_socket_follows_its_service() {
    let mut model = model(&[0]);
    model.call(0, Call::Connect(SERVICE), 0);
    model.change(&with(&[1]));
    assert_eq!(model.kernel_peer(0), KernelPeer::OneOf(Pods::from([1])));
    model.change(&with(&[]));
    assert_eq!(model.kernel_peer(0), KernelPeer::NoPod);
    assert_eq!(model.peer(0), Some(SERVICE));
    assert!(model.excuses_refusal());
    assert!(!model.excuses_refusal(), "it hears once of it");
    assert_eq!(model.call(0, Call::Send, 1), Outcome::SuccessOrRefused);
    assert_eq!(model.call(0, Call::SendTo(SERVICE), 2), Outcome::SuccessOrRefused);
    assert_eq!(model.call(0, Call::SendTo(OTHER), 3), Outcome::Refused);
    assert!(model.excuses_refusal());
    model.change(&with(&[2]));
    model.call(0, Call::Send, 4);
    assert_eq!(model.answered(0, 4, 2, Some(SERVICE)), Ok(Name::Exact));
}

#[test]
fn an_endpoint_that_drains_is_kept_by_who_has_it() {
    let mut model = model(&[0, 1]);
    model.call(0, Call::SendTo(SERVICE), 1);
    model.answered(0, 1, 0, Some(SERVICE)).expect("an answer");
    let mut endpoints = with(&[1]);
    endpoints.0[0][0] = Condition::Draining;
    model.change(&endpoints);
    model.call(0, Call::SendTo(SERVICE), 2);
    assert!(model.clone().answered(0, 2, 1, Some(SERVICE)).is_err());
    assert_eq!(model.answered(0, 2, 0, Some(SERVICE)), Ok(Name::Exact));
    model.call(0, Call::SendTo(OTHER), 3);
    assert_eq!(model.answered(0, 3, 1, Some(OTHER)), Ok(Name::Exact));
}

#[test]
fn of_endpoints_that_nobody_has_seen_yet_the_one_that_drains_may_be_had() {
    let mut model = model(&[0, 1]);
    model.call(0, Call::SendTo(SERVICE), 1);
    let mut endpoints = with(&[2]);
    endpoints.0[0][1] = Condition::Draining;
    model.change(&endpoints);
    model.call(0, Call::SendTo(SERVICE), 2);
    for (pod, right) in [(0, false), (1, true), (2, true), (3, false)] {
        assert_eq!(model.clone().answered(0, 2, pod, Some(SERVICE)).is_ok(), right, "pod-{pod}");
    }
}

#[test]
fn a_connect_without_a_way_changes_nothing() {
    let far = Target { whom: Whom::Unreachable, spelling: Spelling::V6 };
    let service = Target { spelling: Spelling::Mapped, ..SERVICE };
    let mut model = Model::new(1, Domain::Inet6, Bound::Port, with(&[0]));
    model.call(0, Call::Connect(service), 0);
    assert!(model.admits(0, Call::Connect(far)));
    assert_eq!(model.call(0, Call::Connect(far), 0), Outcome::NoWay);
    assert_eq!(model.peer(0), Some(service));
}

#[test]
fn of_two_sockets_each_may_get_the_answer() {
    let mut model = Model::new(2, Domain::Inet, Bound::Port, with(&[0]));
    model.call(0, Call::SendTo(SERVICE), 1);
    assert_eq!(model.clone().answered(1, 1, 0, Some(SERVICE)), Ok(Name::Exact));
    assert!(model.clone().answered(1, 1, 0, Some(POD)).is_err());
    model.answered(0, 1, 0, Some(SERVICE)).expect("an answer");
    // The other one asks the pod itself; the first reads, and knows the pod as the Service.
    model.call(1, Call::SendTo(POD), 2);
    assert_eq!(model.clone().answered(0, 2, 0, Some(SERVICE)), Ok(Name::Excused));
    assert!(model.answered(1, 2, 0, Some(SERVICE)).is_err());
}

#[test]
fn a_port_that_nobody_asked_for_is_forgotten_with_the_peer() {
    let mut model = Model::new(1, Domain::Inet, Bound::No, with(&[0, 1]));
    model.call(0, Call::Connect(SERVICE), 0);
    model.call(0, Call::Send, 1);
    model.answered(0, 1, 0, Some(SERVICE)).expect("an answer");
    model.call(0, Call::Disconnect, 0);
    assert_eq!((model.peer(0), model.own(0)), (None, None));
    model.call(0, Call::SendTo(SERVICE), 2);
    assert_eq!(model.answered(0, 2, 1, Some(SERVICE)), Ok(Name::Exact));
}
