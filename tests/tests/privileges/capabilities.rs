//! After its start the agent has the capabilities that it needs, in all its threads, and can get no others.

use std::fs;

use sidestep_tests::{
    Agent, cluster,
    cluster::{at, service},
    traffic::ask,
};

/// The capabilities of a running agent by their numbers in `linux/capability.h`; `privileges/capabilities.rs` in the agent
/// has the reason for each.
const KEPT: [(&str, u32); 6] = [
    ("DAC_READ_SEARCH", 2),
    ("NET_ADMIN", 12),
    ("SYS_PTRACE", 19),
    ("SYS_ADMIN", 21),
    ("PERFMON", 38),
    ("BPF", 39),
];

#[test]
fn every_thread_has_the_capabilities_that_are_needed_and_no_others() {
    let cluster = cluster!(1);
    cluster.serve("web", &service("web", &["10.96.0.10"])).expect("manifests");
    let mut agent = cluster.lab.agent().expect("an agent");
    assert_kept(&agent, u64::MAX);
    agent.stop().expect("it stops");
    agent.restart(&cluster.lab).expect("restart");
    assert_kept(&agent, u64::MAX);
    cluster.client.run(|| ask(at("10.96.0.10:80"))).expect("an answer");
}

/// One that it may have at a time, as in a container, it gives up, too: here the one that raises limits.
#[test]
fn what_was_needed_to_begin_with_is_given_up() {
    let cluster = cluster!(1);
    cluster.serve("web", &service("web", &["10.96.0.10"])).expect("manifests");
    let names = KEPT.map(|(name, _)| format!("+{}", name.to_lowercase()));
    let set = format!("--bounding-set=-all,+sys_resource,{}", names.join(","));
    let agent = Agent::reading(&cluster.lab).wrapped(["setpriv".to_owned(), set]);
    let agent = agent.started(&cluster.lab).expect("an agent");
    // Without SETPCAP the bounding set stays; the agent executes nothing, and could gain nothing by it.
    assert_kept(&agent, 1 << 24);
    cluster.client.run(|| ask(at("10.96.0.10:80"))).expect("an answer");
}

/// `more` are bits that the bounding set may have besides.
fn assert_kept(agent: &Agent, more: u64) {
    let kept = KEPT.iter().fold(0, |all, (_, number)| all | 1_u64 << number);
    let pid = agent.pid().expect("it runs");
    let threads = fs::read_dir(format!("/proc/{pid}/task")).expect("its threads");
    let mut seen = 0;
    for thread in threads {
        let status = thread.expect("a thread").path().join("status");
        let Ok(text) = fs::read_to_string(&status) else { continue };
        let field = |name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name)).expect("a field");
            line.trim_start_matches(':').trim().to_owned()
        };
        let set = |name: &str| u64::from_str_radix(&field(name), 16).expect("a set");
        assert_eq!(["CapPrm", "CapEff"].map(set), [kept; 2], "{text}");
        assert_eq!(["CapInh", "CapAmb"].map(set), [0; 2], "{text}");
        assert_eq!(set("CapBnd") & !kept & !bounding(more), 0, "{text}");
        assert_eq!(field("NoNewPrivs"), "1", "{text}");
        seen += 1;
    }
    assert!(seen > 5, "only {seen} threads");
}

/// Root may shrink its bounding set, unless this test itself runs without SETPCAP.
fn bounding(more: u64) -> u64 {
    const SETPCAP: u64 = 1 << 8;
    if more != u64::MAX {
        return more;
    }
    let status = fs::read_to_string("/proc/self/status").expect("procfs");
    let line = status.lines().find_map(|line| line.strip_prefix("CapEff:")).expect("a set");
    let own = u64::from_str_radix(line.trim(), 16).expect("a set");
    if own & SETPCAP == 0 { u64::MAX } else { 0 }
}
