//! Uplinks: the agent finds them as they come and go, attaches its programs, and cleans up after itself.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use proxy_agent::dataplane::has_tcx;
use sidestep_tests::{
    Agent, bpftool,
    devices::{
        NOTHING, addresses, index, ip, name_of, names, pins, programs, reserved_ports, served, status,
        with_node,
    },
    eventually,
    foreign::{AtDevice, ForeignProgram, Order, Packet, Tcx},
    lab,
    manifest::{Protocol, Service},
    skip, two_nodes,
    two_nodes::Variant,
};

/// A lab, or a skipped test where devices have no TCX.
macro_rules! tcx_lab {
    () => {{
        let lab = with_node(lab!());
        if !lab.node().run(has_tcx) {
            skip!("this kernel has no TCX (6.6)");
        }
        lab
    }};
}

#[test]
fn programs_are_attached_to_the_uplink_and_not_to_devices_of_pods() {
    let lab = tcx_lab!();
    let _pod = lab.pod("pod").expect("a pod");
    let _agent = lab.agent().expect("an agent");
    let expected = [("uplink".to_owned(), ("tcx".to_owned(), "node-address".to_owned()))];
    assert_eq!(served(&lab), BTreeMap::from(expected));
    let [ingress, egress] = programs(&lab, index(&lab, "uplink"));
    assert_eq!(ingress.iter().map(|id| name_of(*id)).collect::<Vec<_>>(), ["ingress"]);
    assert_eq!(egress.iter().map(|id| name_of(*id)).collect::<Vec<_>>(), ["egress"]);
    for device in ["pods", "lo"] {
        assert_eq!(programs(&lab, index(&lab, device)), NOTHING, "{device}");
    }
    let text = lab.sidestep(&["status"]).expect("it runs").stdout;
    let text = String::from_utf8_lossy(&text);
    assert!(text.contains("uplink (tcx, the Node's address, 192.0.2.10, 2001:db8:192::10)"), "{text}");
}

#[test]
fn programs_follow_devices_that_come_and_go() {
    let lab = tcx_lab!();
    let _agent = lab.agent().expect("an agent");
    assert_eq!(names(&lab), ["uplink"]);

    let mut took = [Duration::ZERO; 5];
    for round in &mut took {
        // A VXLAN device as flannel makes it.
        ip(
            &lab,
            "link add flannel.1 type vxlan id 1 local 192.0.2.10 dev uplink dstport 8472 nolearning
addr add 10.244.1.0/32 dev flannel.1
link set flannel.1 up
route add 10.244.2.0/24 via 10.244.2.0 dev flannel.1 onlink
",
        );
        let began = Instant::now();
        let device = index(&lab, "flannel.1");
        eventually("both programs are attached", || programs(&lab, device).iter().all(|ids| ids.len() == 1));
        *round = began.elapsed();
        let why = ("tcx".to_owned(), "gateway".to_owned());
        eventually("status lists the device", || served(&lab).get("flannel.1") == Some(&why));
        ip(&lab, "link del flannel.1");
        let (ingress, egress) =
            (pins(&lab).join(format!("{device}-ingress")), pins(&lab).join(format!("{device}-egress")));
        eventually("the pins of the deleted device are gone", || !ingress.exists() && !egress.exists());
        let table = lab.pin_directory().join(sidestep_tests::agent::ABI).join("INTERFACES");
        let table = table.to_str().expect("a path in UTF-8");
        let keys = || {
            bpftool::json(&["map", "dump", "pinned", table]).expect("bpftool").as_array().map_or(0, Vec::len)
        };
        eventually("its entry of INTERFACES is gone", || keys() == 1);
    }
    // The agent reacts to a notification at once, not at its next check. Other labs' devices may delay a round or two.
    took.sort_unstable();
    assert!(took[2] < Duration::from_millis(500), "programs were attached to new devices after {took:?}");
}

#[test]
fn programs_are_attached_to_a_bridge_and_not_to_its_ports() {
    let lab = tcx_lab!();
    let _agent = lab.agent().expect("an agent");
    let uplink = index(&lab, "uplink");
    assert_eq!(programs(&lab, uplink).map(|ids| ids.len()), [1, 1]);
    // The uplink becomes a port of a bridge, which gets its address and the default route.
    ip(
        &lab,
        "link add br0 type bridge forward_delay 0
link set uplink master br0
link set br0 up
addr del 192.0.2.10/24 dev uplink
addr add 192.0.2.10/24 dev br0
route add default via 192.0.2.11
",
    );
    eventually("the programs are at the bridge", || names(&lab) == ["br0"]);
    assert_eq!(programs(&lab, uplink), NOTHING);
    // The report comes after the programs.
    eventually("the report says why", || served(&lab)["br0"].1 == "default-route");
    // The uplink gets its address back.
    ip(&lab, "link del br0\naddr add 192.0.2.10/24 dev uplink\n");
    eventually("the programs are at the uplink", || names(&lab) == ["uplink"]);
}

/// A device without an Ethernet header gets the programs for its kind, and a device stacked on another gets the
/// programs in place of the lower one.
#[test]
fn the_link_header_decides_which_programs_a_device_gets() {
    let lab = tcx_lab!();
    let _agent = lab.agent().expect("an agent");
    ip(
        &lab,
        "tuntap add tun0 mode tun
link set tun0 up
addr add 10.8.0.1/24 dev tun0
tuntap add tap0 mode tap
link set tap0 up
addr add 10.9.0.1/24 dev tap0
link add mac0 link uplink type macvlan mode bridge
link set mac0 up
addr add 198.51.100.1/24 dev mac0
",
    );
    let expected = ["mac0", "tun0", "uplink"].map(str::to_owned);
    eventually("the agent finds the devices", || names(&lab) == expected);
    let [ingress, egress] = programs(&lab, index(&lab, "tun0"));
    assert_eq!([ingress, egress].map(|ids| name_of(ids[0])), ["ingress_l3", "egress_l3"]);
    let found = served(&lab);
    assert_eq!((found["tun0"].1.as_str(), found["mac0"].1.as_str()), ("tunnel", "card"));
}

/// A new agent keeps the links and replaces their programs; it removes pins of devices that were deleted meanwhile.
#[test]
fn a_restarted_agent_adopts_links_and_replaces_their_programs() {
    let lab = tcx_lab!();
    ip(&lab, "link add vx type vxlan id 1 dstport 8472\naddr add 10.244.1.0/24 dev vx\nlink set vx up\n");
    let mut agent = lab.agent().expect("an agent");
    let (uplink, vx) = (index(&lab, "uplink"), index(&lab, "vx"));
    let links = || bpftool::pinned_ids(&pins(&lab)).expect("ids");
    let (before, first) = (links(), programs(&lab, uplink));
    assert_eq!(before.len(), 4, "{before:?}");

    agent.kill().expect("kill -9");
    assert_eq!(programs(&lab, uplink), first, "a killed agent's programs are gone");
    agent.restart(&lab).expect("restart");
    assert_eq!(links(), before, "the restart replaced links");
    let second = programs(&lab, uplink);
    assert_eq!(second.each_ref().map(Vec::len), [1, 1]);
    assert!(second != first, "the programs were not replaced: {second:?}");

    // While no agent runs, a device is deleted and another one gets its index.
    agent.stop().expect("it stops");
    ip(
        &lab,
        &format!(
            "link del vx\nlink add other index {vx} type vxlan id 2 dstport 8473\naddr add 10.244.3.0/24 dev other\nlink set other up\n"
        ),
    );
    assert_eq!(programs(&lab, vx), NOTHING);
    agent.restart(&lab).expect("restart");
    assert_eq!(programs(&lab, vx).map(|ids| ids.len()), [1, 1], "the new device has no programs");
    let after = links();
    assert_eq!(after.len(), 4);
    assert_eq!(
        after.iter().filter(|entry| before.get(entry.0) == Some(entry.1)).count(),
        2,
        "{before:?} {after:?}"
    );

    agent.stop().expect("it stops");
    ip(&lab, "link del other\n");
    agent.restart(&lab).expect("restart");
    assert_eq!(links().len(), 2);
}

/// Our programs go first, and foreign programs stay attached.
#[test]
fn foreign_programs_stay_and_cleanup_leaves_nothing_of_ours() {
    let lab = tcx_lab!();
    let uplink = index(&lab, "uplink");
    let _foreign = lab.node().run(|| {
        [Tcx::Ingress, Tcx::Egress].map(|side| ForeignProgram::at_device(uplink, side).expect("attaching"))
    });
    let foreign = programs(&lab, uplink);
    let mut agent = lab.agent().expect("an agent");
    let [ingress, egress] = programs(&lab, uplink);
    assert_eq!((ingress.len(), egress.len()), (2, 2));
    assert_eq!((ingress[1], egress[1]), (foreign[0][0], foreign[1][0]));
    agent.stop().expect("it stops");
    let output = lab.sidestep(&["cleanup"]).expect("cleanup runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(programs(&lab, uplink), foreign);
    assert!(!lab.pin_directory().exists(), "pins are left");
}

/// The agent moves its programs ahead of a foreign one once, without a gap in which they are not attached. A program
/// that moves ahead again stays there, and the report, `status` and `doctor` name it while it does.
#[test]
fn a_program_ahead_of_ours_is_named_while_it_is_there() {
    let lab = tcx_lab!();
    let mut agent = lab.agent().expect("an agent");
    let uplink = index(&lab, "uplink");
    let first = |side: usize| programs(&lab, uplink)[side].first().copied().map(name_of);
    let named = |agent: &Agent| {
        agent
            .report()
            .expect("a report")
            .names("uplink", "stands before ours at egress: one that returns TCX_PASS")
    };
    let mut looks = 0;
    // Any change of the network makes the agent check its devices.
    let mut look = || {
        looks += 1;
        ip(&lab, &format!("addr add 198.51.100.{looks}/32 dev uplink\n"));
    };

    let foreign = lab.node().run(|| AtDevice::attach(uplink, Tcx::Egress, Packet::Next, Order::First));
    let foreign = foreign.expect("attaching");
    assert_eq!(first(1).as_deref(), Some("foreign"));
    look();
    eventually("ours go first again", || first(1).as_deref() == Some("egress"));
    eventually("ours are attached only once", || programs(&lab, uplink).map(|ids| ids.len()) == [1, 2]);
    assert!(!named(&agent), "{:?}", agent.report());

    lab.node().run(|| foreign.again(Order::First)).expect("attaching");
    look();
    eventually("it is named", || named(&agent));
    for _ in 0..3 {
        look();
        std::thread::sleep(Duration::from_millis(200));
        assert_eq!(first(1).as_deref(), Some("foreign"), "the foreign program is not first any more");
    }
    let status = status(&lab);
    let ahead = &status["devices"][0]["ahead"];
    assert_eq!(
        (ahead[0]["name"].as_str(), ahead[0]["direction"].as_str()),
        (Some("foreign"), Some("egress"))
    );
    let told = status["agent"]["problems"].to_string();
    assert!(told.contains("before ours at egress"), "{told}");
    let doctor = lab.sidestep(&["doctor"]).expect("it runs").stdout;
    let doctor = String::from_utf8_lossy(&doctor);
    assert!(doctor.contains("uplink: program `foreign`"), "{doctor}");
    assert!(agent.log_tail().contains("before ours at egress"), "{}", agent.log_tail());

    // A new agent attaches its own programs first, and again tolerates one program that moves ahead.
    agent.stop().expect("it stops");
    assert_eq!(first(1).as_deref(), Some("foreign"));
    agent.restart(&lab).expect("restart");
    assert_eq!(first(1).as_deref(), Some("egress"));
    assert!(!named(&agent));
    lab.node().run(|| foreign.again(Order::First)).expect("attaching");
    look();
    eventually("ours go first again", || first(1).as_deref() == Some("egress"));
    lab.node().run(|| foreign.again(Order::First)).expect("attaching");
    look();
    eventually("it is named", || named(&agent));
    lab.node().run(|| foreign.detach()).expect("detaching");
    look();
    eventually("it is no longer named", || !named(&agent));
    agent.stop().expect("it stops");
    assert!(lab.sidestep(&["cleanup"]).expect("it runs").status.success());
    assert_eq!(programs(&lab, uplink), NOTHING);
}

/// The agent reports a node that does not forward only in families with north-south frontends.
#[test]
fn a_node_that_does_not_forward_is_named() {
    const SETTINGS: [&str; 2] = ["net.ipv4.ip_forward", "net.ipv6.conf.all.forwarding"];
    let lab = with_node(lab!());
    let forward = |value: &str| {
        for setting in SETTINGS {
            let file = format!("/proc/sys/{}", setting.replace('.', "/"));
            lab.node().run(|| std::fs::write(&file, value)).expect("the sysctl");
        }
    };
    forward("0");
    let agent = lab.agent().expect("an agent");
    assert!(
        agent.report().expect("a report").problems.is_empty(),
        "a problem although nothing has to be forwarded"
    );
    let service = Service::new("web", &["10.96.0.10"]).port("http", Protocol::Tcp, 80).node_port(30080);
    lab.manifests().write("web.yaml", &[&service]).expect("a manifest");
    let named = || SETTINGS.map(|setting| agent.report().expect("a report").names("this node", setting));
    eventually("the NodePort is reserved", || reserved_ports(&lab).contains("30080"));
    ip(&lab, "addr add 198.51.100.1/32 dev uplink\n");
    eventually("the report names IPv4, which has a NodePort", || named() == [true, false]);
    forward("1");
    eventually("the report no longer names IPv4", || named() == [false, false]);
    ip(&lab, "addr add 198.51.100.2/32 dev uplink\n");
    let file = "/proc/sys/net/ipv4/conf/uplink/forwarding";
    lab.node().run(|| std::fs::write(file, "0")).expect("the sysctl");
    ip(&lab, "addr add 198.51.100.3/32 dev uplink\n");
    let device = || agent.report().expect("a report").names("uplink", "net/ipv4/conf/uplink/forwarding");
    eventually("the report names the device", device);
}

#[test]
fn detached_programs_are_attached_again() {
    let lab = tcx_lab!();
    let _agent = lab.agent().expect("an agent");
    let uplink = index(&lab, "uplink");
    for side in ["ingress", "egress"] {
        let pin = pins(&lab).join(format!("{uplink}-{side}"));
        bpftool::json(&["link", "detach", "pinned", pin.to_str().expect("a path in UTF-8")])
            .expect("bpftool");
    }
    assert_eq!(programs(&lab, uplink), NOTHING);
    assert_eq!(names(&lab), [""; 0], "status does not show that the programs are detached");
    // Any change of the network makes the agent check its devices.
    ip(&lab, "link add lan0 type veth peer name lan1\n");
    eventually("the programs are attached again", || programs(&lab, uplink).iter().all(|ids| ids.len() == 1));
}

#[test]
fn programs_are_attached_to_named_devices_only() {
    let lab = tcx_lab!();
    let mut agent = lab.agent().expect("an agent");
    assert_eq!(names(&lab), ["uplink"]);
    agent.stop().expect("it stops");

    ip(&lab, "link add lan0 type veth peer name lan1\nlink set lan0 up\nlink set lan1 up\n");
    let mut agent =
        Agent::reading(&lab).arguments(["--interface", "lan*,missing"]).started(&lab).expect("an agent");
    assert_eq!(names(&lab), ["lan0", "lan1"], "devices with programs");
    let report = agent.report().expect("a report");
    assert!(report.names("missing", "no such device"), "{:?}", report.problems);
    ip(&lab, "link add lan2 type veth peer name other\nlink set lan2 up\n");
    eventually("a new device of that name gets the programs", || names(&lab) == ["lan0", "lan1", "lan2"]);
    agent.stop().expect("it stops");

    let mut agent = Agent::reading(&lab).arguments(["--interface", "none"]).started(&lab).expect("an agent");
    assert_eq!(names(&lab), [""; 0]);
    assert_eq!(agent.report().expect("a report").problems.len(), 0);
    agent.stop().expect("it stops");
}

/// The node masquerades with the address that the route to the other node's pods prefers.
#[test]
fn the_nodes_address_at_a_device_is_what_its_routes_prefer() {
    for variant in [Variant::DIRECT, Variant::VXLAN] {
        let nodes = two_nodes!(variant);
        let _agent = nodes.lab().agent().expect("an agent");
        let uplinks: BTreeSet<String> = nodes.uplinks().into_iter().map(str::to_owned).collect();
        assert_eq!(names(nodes.lab()).into_iter().collect::<BTreeSet<_>>(), uplinks);
        let to_pods = *nodes.uplinks().last().expect("an uplink");
        assert_eq!(addresses(nodes.lab(), to_pods), nodes.preferred_sources(), "{variant:?}");
    }
}
