//! The kernel has no memory for elements for a while: what is missing is named, and entered once there is memory.

use proptest::{
    prelude::*,
    test_runner::{TestError, TestRunner},
};
use sidestep_tests::skip;

use super::{Node, ROOMY};
use crate::{
    dataplane::tables::crash,
    plan::properties::cluster::{self, Cluster},
};

/// How many clusters are tried.
const CASES: u32 = 12;

#[test]
fn what_the_kernel_had_no_memory_for_is_named_and_tried_again() {
    if let Some(reason) = skip::missing() {
        skip!("{reason}");
    }
    let config = ProptestConfig { cases: CASES, failure_persistence: None, ..ProptestConfig::default() };
    let named = std::cell::Cell::new(0);
    let result = TestRunner::new(config).run(&cluster::cluster(), |cluster| {
        let mut node = Node::new(Cluster { local: cluster.local.clone(), ..Cluster::default() }, ROOMY);
        let events = node.turn_into(&cluster);
        let changes = node.planner.apply(events);
        crash::without_memory(|| node.install(&changes));
        prop_assert!(!node.named.is_empty() || changes.install.is_empty(), "nothing is named");
        named.set(named.get() + node.named.len());
        node.named = node.dataplane.as_mut().expect("an agent").try_again();
        prop_assert_eq!(&node.named, &[]);
        prop_assert_eq!(node.faults(), [""; 0]);
        Ok(())
    });
    if let Err(TestError::Fail(reason, case)) = result {
        panic!("{reason}\nin {case:#?}");
    }
    assert!(named.get() > 0, "no cluster had anything to enter");
}
