//! Uplinks without TCX (Linux before 6.6): the programs are filters in a `clsact` qdisc. Newer kernels have both, so
//! these tests run on all.

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

/// The report names a device to which the programs cannot be attached; other devices are served.
#[test]
fn a_device_that_fails_is_named_and_tried_again() {
    let lab = with_node(lab!());
    // Without TCX, an `ingress` qdisc occupies the place of clsact.
    tool(&lab, "tc", &["qdisc", "add", "dev", "uplink", "ingress"]);
    ip(&lab, "link add vx type vxlan id 1 dstport 8472\naddr add 10.244.1.0/24 dev vx\nlink set vx up\n");
    let agent = Agent::reading(&lab).arguments(["--no-tcx"]).started(&lab).expect("an agent");
    assert_eq!(filters(&lab, "vx"), (1, 1), "filters at the other device");
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

/// As on kernels before 6.6: a restart replaces our filters, and cleanup removes them without touching others.
#[test]
fn without_tcx_filters_serve_devices() {
    let lab = with_node(lab!());
    // Not a network's own address: before 5.14 the kernel takes it for a broadcast, and adds no route.
    ip(&lab, "link add vx type vxlan id 1 dstport 8472\naddr add 10.244.9.1/24 dev vx\nlink set vx up\n");
    // One of the devices already has a foreign filter.
    tool(&lab, "tc", &["qdisc", "add", "dev", "vx", "clsact"]);
    let foreign = ["filter", "add", "dev", "vx", "ingress", "prio", "7", "protocol", "all", "u32"];
    tool(&lab, "tc", &[&foreign[..], &["match", "u32", "0", "0", "flowid", "1:1"]].concat());
    let theirs = || tool(&lab, "tc", &["filter", "show", "dev", "vx", "ingress", "prio", "7"]);
    let before = theirs();
    assert!(before.contains("u32"), "{before}");
    // It has the priority that our filter would get.
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
    assert_eq!(
        (filters(&lab, "uplink"), filters(&lab, "vx")),
        ((1, 1), (1, 1)),
        "a restart added filters instead of replacing them"
    );
    assert!(shown() != first, "the restart did not replace the program");
    assert_eq!(theirs(), before);

    agent.stop().expect("it stops");
    let output = lab.sidestep(&["cleanup"]).expect("cleanup runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(filters(&lab, "vx"), (0, 0));
    assert_eq!(theirs(), before);
    assert_eq!(
        (has_clsact(&lab, "uplink"), has_clsact(&lab, "vx")),
        (false, true),
        "cleanup must remove only the qdisc that the agent made"
    );
    assert!(!lab.pin_directory().exists(), "pins are left");
}

/// After a change between kernels with and without TCX, the agent replaces filters by links, or links by filters.
#[test]
fn links_replace_filters_and_filters_replace_links() {
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
