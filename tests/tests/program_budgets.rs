//! What the programs cost the verifier: a ratchet. A program that grows past its budget is split or slimmed,
//! or its budget is raised here, by somebody who says why.

use proxy_agent::dataplane::{Capacity, FlowOptions, Options, load_all, verified_instructions};
use sidestep_tests::{lab, skip};

/// Instructions that the verifier may walk for each program, measured on 6.18 and rounded up by a tenth.
const BUDGETS: [(&str, u32); 13] = [
    ("release", 23),
    ("recvmsg4", 345),
    ("recvmsg6", 435),
    ("getpeername4", 77),
    ("getpeername6", 107),
    // Whether an endpoint was remembered is carried along to be counted: the way from the choice to the count is
    // walked once for each answer. It costs nothing to run.
    // Since the packet path has the two halves of the choice for itself, the compiler joins them here in other places: a
    // quarter more to walk.
    ("sendmsg4", 8_110),
    ("sendmsg6", 8_160),
    // Connected UDP also enters its namespace in NAMESPACES: one more branch, walked for each way to get there. The
    // same goes for TCP's question whether the socket is the agent's own: a tenth more to walk, one lookup to run.
    // Source ranges are a call for the few Services that have them, and one more state after it. So is the question
    // whether NodePorts answer at the node's loopback, which IPv6 sockets ask for addresses of both families.
    ("connect4", 3_640),
    ("connect6", 4_660),
    // A source is sought in several rounds, each with its way through both buckets of each element that it writes; what
    // comes before it is one lookup. Extension headers are a loop, for the packet and for the one that an error quotes.
    // Each element has its place chosen apart from being written, and may spare two others.
    ("egress", 230_000),
    ("egress_l3", 230_000),
    // The same loop, the choice of an endpoint, four answers, and up to three elements of a flow that begins. The one for
    // devices with an Ethernet header also follows what egress would follow, for packets past the stack.
    ("ingress", 76_000),
    ("ingress_l3", 66_300),
];

#[test]
fn every_program_stays_within_its_budget_of_verified_instructions() {
    let lab = lab!();
    let options = Options {
        pin_dir: lab.pin_directory().to_owned(),
        cgroup_root: lab.root().path().to_owned(),
        capacity: Capacity::default(),
        program_log: false,
        flows: FlowOptions::default(),
    };
    let mut programs = load_all(&options).expect("the programs load");
    let counts = verified_instructions(&mut programs).expect("the kernel tells");
    if counts.is_empty() {
        skip!("this kernel does not count verified instructions (5.16)");
    }
    println!("{counts:?}");
    assert_eq!(counts.len(), BUDGETS.len());
    for ((program, count), (name, budget)) in counts.into_iter().zip(BUDGETS) {
        assert_eq!(program, name);
        assert!(count <= budget, "{program}: {count} instructions, {budget} allowed");
        assert!(count * 2 > budget, "{program}: {count} instructions; lower its budget of {budget}");
    }
}
