//! What the programs cost the verifier: a ratchet. A program that grows past its budget is split or slimmed,
//! or its budget is raised here, by somebody who says why.

use proxy_agent::dataplane::{Capacity, FlowOptions, Options, load_all, verified_instructions};
use sidestep_tests::{lab, skip};

/// Instructions that the verifier may walk for each program, measured on 6.18 and rounded up by a tenth.
const BUDGETS: [(&str, u32); 13] = [
    ("release", 23),
    // A server that is asked from a NodePort's number is noted: a bit, an address, an insert (PO-23). An answer is looked up
    // in the records of all peers that the socket had, and then among those of its port; 660 and 680 while a connected
    // socket looked in one and an unconnected one in another.
    ("recvmsg4", 2_050),
    ("recvmsg6", 2_050),
    // The peer may be one that the socket had before a connect that failed. It was 70 and 97.
    ("getpeername4", 600),
    ("getpeername6", 715),
    // Whether an endpoint was remembered is carried along to be counted: the way from the choice to the count is
    // walked once for each answer. It costs nothing to run.
    // Since the packet path has the two halves of the choice for itself, the compiler joins them here in other places: a
    // quarter more to walk. So is the question whether a datagram to a NodePort is an answer: half more to walk, and one lookup
    // for datagrams to NodePorts.
    // What writes the socket's record is a function now: 12,200 and 12,000 before.
    ("sendmsg4", 9_500),
    ("sendmsg6", 9_900),
    // Connected UDP also enters its namespace in NAMESPACES: one more branch, walked for each way to get there. The
    // same goes for TCP's question whether the socket is the agent's own: a tenth more to walk, one lookup to run.
    // Source ranges are a call for the few Services that have them, and one more state after it. So is the question
    // whether NodePorts answer at the node's loopback, which IPv6 sockets ask for addresses of both families.
    // UDP has an endpoint before it connects, keeps the records of earlier peers, and connects to a Service without endpoints:
    // functions that only UDP calls, each walked for every way to get there. It was 3,300 and 4,200.
    ("connect4", 26_000),
    ("connect6", 27_200),
    // Steps are global functions, walked once each. Datagrams to a Service without endpoints are refused here, with the same
    // answers as at ingress: 5,500 more to walk, one bit to look up. It was 230,000 for each when every step was walked with all that came
    // before it, and sought a source.
    ("egress", 19_600),
    ("egress_l3", 19_400),
    // The beginning of a connection, four answers, errors; and the fast path. It was 76,000 and 66,300.
    ("ingress", 43_200),
    ("ingress_l3", 33_800),
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
