//! The devices that packets from outside come through, where there is no TCX (Linux before 6.6): filters in a `clsact`
//! qdisc. Newer kernels have both, so all have these tests.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use proxy_agent::dataplane::has_tcx;
use sidestep_tests::{
    Agent,
    devices::{NOTHING, filters, has_clsact, index, ip, programs, served, tool, with_node},
    lab, skip,
};

/// A device that our programs cannot be attached to is named, and does not hold up others.
#[test]
fn a_device_that_fails_is_named_and_tried_again() {
    let lab = with_node(lab!());
    // Where there is no TCX, an old qdisc takes the place of clsact.
    tool(&lab, "tc", &["qdisc", "add", "dev", "uplink", "ingress"]);
    ip(&lab, "link add vx type vxlan id 1 dstport 8472\naddr add 10.244.1.0/24 dev vx\nlink set vx up\n");
    let agent = Agent::reading(&lab).arguments(["--no-tcx"]).started(&lab).expect("an agent");
    assert_eq!(filters(&lab, "vx"), (1, 1), "the other one is served");
    let report = agent.report().expect("a report");
    assert!(report.names("uplink", "ingress"), "{:?}", report.problems);
    tool(&lab, "tc", &["qdisc", "del", "dev", "uplink", "ingress"]);
    let began = Instant::now();
    while filters(&lab, "uplink") != (1, 1) {
        assert!(began.elapsed() < Duration::from_secs(10), "{}", agent.log_tail());
        std::thread::sleep(Duration::from_millis(50));
    }
    assert!(agent.report().expect("a report").problems.is_empty());
}

/// As on kernels before 6.6: filters in a `clsact` qdisc, found again, replaced, and taken away without touching others.
#[test]
fn without_tcx_filters_do_the_same() {
    let lab = with_node(lab!());
    ip(&lab, "link add vx type vxlan id 1 dstport 8472\naddr add 10.244.1.0/24 dev vx\nlink set vx up\n");
    // Somebody uses one of the devices already.
    tool(&lab, "tc", &["qdisc", "add", "dev", "vx", "clsact"]);
    let foreign = ["filter", "add", "dev", "vx", "ingress", "prio", "7", "protocol", "all", "u32"];
    tool(&lab, "tc", &[&foreign[..], &["match", "u32", "0", "0", "flowid", "1:1"]].concat());
    let theirs = || tool(&lab, "tc", &["filter", "show", "dev", "vx", "ingress", "prio", "7"]);
    let before = theirs();
    assert!(before.contains("u32"), "{before}");
    // And has a place that ours would have.
    let foreign = ["filter", "add", "dev", "vx", "egress", "prio", "1", "protocol", "all", "u32"];
    tool(&lab, "tc", &[&foreign[..], &["match", "u32", "0", "0", "flowid", "1:1"]].concat());

    let mut agent = Agent::reading(&lab).arguments(["--no-tcx"]).started(&lab).expect("an agent");
    let expected = [("uplink", "node-address"), ("vx", "tunnel")];
    let expected = expected.map(|(name, why)| (name.to_owned(), ("clsact".to_owned(), why.to_owned())));
    assert_eq!(served(&lab), BTreeMap::from(expected));
    assert_eq!((filters(&lab, "uplink"), filters(&lab, "vx")), ((1, 1), (1, 1)));
    let shown = || tool(&lab, "tc", &["filter", "show", "dev", "uplink", "ingress"]);
    let first = shown();
    assert!(first.contains("pref 1 ") && first.contains("direct-action"), "{first}");
    for (device, place) in [("uplink", "pref 1 "), ("vx", "pref 2 ")] {
        let shown = tool(&lab, "tc", &["filter", "show", "dev", device, "egress"]);
        let ours = shown.lines().find(|line| line.contains("sidestep-egress")).unwrap_or_default();
        assert!(ours.contains(place), "{shown}");
    }

    agent.kill().expect("kill -9");
    agent.restart(&lab).expect("restart");
    assert_eq!((filters(&lab, "uplink"), filters(&lab, "vx")), ((1, 1), (1, 1)), "replaced, not added");
    assert!(shown() != first, "by another program");
    assert_eq!(theirs(), before);

    agent.stop().expect("it stops");
    let output = lab.sidestep(&["cleanup"]).expect("cleanup runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(filters(&lab, "vx"), (0, 0));
    assert_eq!(theirs(), before);
    assert_eq!(
        (has_clsact(&lab, "uplink"), has_clsact(&lab, "vx")),
        (false, true),
        "only the qdisc that we made goes"
    );
    assert!(!lab.pin_directory().exists(), "pins are left");
}

/// A kernel upgrade, or the other way round: what is there in one way is replaced by the other.
#[test]
fn links_take_the_place_of_filters_and_filters_that_of_links() {
    let lab = with_node(lab!());
    if !lab.node().run(has_tcx) {
        skip!("this kernel has no TCX (6.6)");
    }
    let uplink = index(&lab, "uplink");
    let mut agent = Agent::reading(&lab).arguments(["--no-tcx"]).started(&lab).expect("an agent");
    assert_eq!(filters(&lab, "uplink"), (1, 1));
    assert_eq!(programs(&lab, uplink), NOTHING);
    agent.stop().expect("it stops");

    let mut agent = lab.agent().expect("an agent");
    assert!(!has_clsact(&lab, "uplink"));
    assert_eq!(programs(&lab, uplink).map(|ids| ids.len()), [1, 1]);
    agent.stop().expect("it stops");

    let _agent = Agent::reading(&lab).arguments(["--no-tcx"]).started(&lab).expect("an agent");
    assert_eq!(filters(&lab, "uplink"), (1, 1));
    assert_eq!(programs(&lab, uplink), NOTHING);
}
