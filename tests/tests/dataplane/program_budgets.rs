//! A ratchet on the programs' cost to the verifier. If a program grows past its budget, split or shrink it, or raise
//! the budget here and say why.

use proxy_agent::dataplane::{
    Capacity, FlowOptions, Options, SocketOptions, load_all, verified_instructions,
};
use sidestep_tests::{lab, skip};

/// Instructions that the verifier may process for each program, measured on 6.18 and rounded up by a tenth.
const BUDGETS: [(&str, u32); 14] = [
    ("release", 23),
    // Notes a peer that sends from a NodePort's number: a bit, an address, an insert (PO-23). It looks an answer up in
    // the records of all peers that the socket has had, then among those of its port. It had 660 and 680 when a
    // connected socket had one record to look at, and an unconnected one another.
    ("recvmsg4", 3_600),
    ("recvmsg6", 3_300),
    // The peer may be one from before a failed connect. They had 70 and 97.
    ("getpeername4", 780),
    ("getpeername6", 880),
    // The flag "affinity hit" lives from the choice to the counter, so the verifier walks that path once for each
    // value; this costs nothing at run time. The packet path uses the two halves of the choice separately, so the
    // compiler inlines them differently here. A function writes the socket's record, and which one is the
    // youngest is asked of four: they had 12,200 and 12,000.
    //
    // Those who may listen (`events.rs`) are told of what is chosen and refused in a step, which is walked once for four of them:
    // 4,000 here and for connect, 5,300 for packets, which have two such steps.
    ("sendmsg4", 34_600),
    ("sendmsg6", 35_000),
    // UDP may have an endpoint before it connects, keeps the records of earlier peers, and connects to a Service
    // without endpoints. They had 3,300 and 4,200; and 65,000 before what happens to records were steps.
    ("connect4", 25_100),
    ("connect6", 26_600),
    // Steps are global functions, each walked once. They had 12,300 before datagrams to a Service without endpoints
    // were refused here, with the same answers as at ingress, and 17,900 before clients could have another port at
    // their endpoint; 230,000 when the verifier walked every step in every state before it, and when steps looked for a
    // source.
    ("egress", 28_500),
    ("egress_l3", 28_600),
    ("egress_pod", 22_400),
    // New connections, four kinds of answers, errors, and the fast path. They had 76,000 and 66,300; and 39,300 and
    // 30,700 before clients could have another port at their endpoint, and 24 source ports were tried instead of 8.
    ("ingress", 65_200),
    ("ingress_l3", 55_800),
];

#[test]
fn every_program_stays_within_its_budget_of_verified_instructions() {
    let lab = lab!();
    let options = Options {
        pin_dir: lab.pin_directory().to_owned(),
        cgroup_root: lab.root().path().to_owned(),
        capacity: Capacity::default(),
        program_log: false,
        sockets: SocketOptions::default(),
        flows: FlowOptions::default(),
    };
    let mut programs = load_all(&options).expect("the programs load");
    let counts = verified_instructions(&mut programs).expect("the kernel reports verified instructions");
    if counts.is_empty() {
        skip!("this kernel does not count verified instructions (5.16)");
    }
    println!("{counts:?}");
    assert_eq!(counts.len(), BUDGETS.len());
    for ((program, count), (name, budget)) in counts.into_iter().zip(BUDGETS) {
        assert_eq!(program, name);
        assert!(count <= budget, "{program}: {count} verified instructions exceed its budget of {budget}");
        assert!(
            count * 2 > budget,
            "{program}: only {count} verified instructions; lower its budget of {budget}"
        );
    }
}
