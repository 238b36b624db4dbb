//! Tables grow with what they hold, and go back, under traffic, and nobody notices: not a connection, not a socket, not a count.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    net::IpAddr,
    time::Duration,
};

use proxy_agent::dataplane::{Tables, identity};
use proxy_common::Protocol;
use sidestep_tests::{
    Agent, Lab, bpftool, cluster,
    cluster::{Cluster, at, service},
    eventually,
    eventually::{SOON, wait_for},
    many::Many,
    pressure::Pressure,
    skip,
    traffic::{Asker, Conversation, ask},
};

const TCP: &str = "10.96.0.10:80";
const UDP: &str = "10.96.0.10:53";
const STICKY: &str = "10.96.0.20:80";
/// Service ports that the tables begin with.
const START: u32 = 1 << 10;

/// The endpoint of the many.
fn backend(cluster: &Cluster) -> IpAddr {
    cluster.backends[0].place.v4.into()
}

fn tables(lab: &Lab) -> Tables {
    Tables::open(lab.pin_directory()).expect("the tables")
}

fn wait_for_services(lab: &Lab, count: usize) {
    let began = std::time::Instant::now();
    // Reading the manifests of very many takes a while.
    let patience = SOON + Duration::from_millis(count as u64);
    let installed = || tables(lab).names.keys().count() == count;
    wait_for(patience, &format!("{count} Service ports are installed"), installed).expect("in time");
    println!("{count} Service ports after {:?}", began.elapsed());
}

/// How many connections of a Service's TCP port were counted.
fn counted(lab: &Lab, name: &str) -> u64 {
    let tables = tables(lab);
    let found = tables.names.iter().filter_map(Result::ok).find(|(_, found)| {
        identity(found).is_some_and(|id| id.service.name() == name && id.protocol == Protocol::Tcp)
    });
    tables.counted(found.expect("installed").0).connections()
}

/// From a few Services to twelve hundred and to thirty-five hundred while clients of every kind go on; then to as many as
/// `SIDESTEP_GROW_TO` says.
#[test]
fn tables_grow_and_no_client_notices() {
    let cluster = cluster!(3);
    cluster.serve("web", &service("web", &["10.96.0.10"])).expect("manifests");
    let _agent = cluster.lab.agent().expect("an agent");
    let before = tables(&cluster.lab);
    assert_eq!(before.services.len(), START, "what fifty Services need");
    let pins = bpftool::pinned_ids(cluster.lab.pin_directory()).expect("ids");

    let pressure = Pressure::start(&cluster.client, at(TCP), at(UDP));
    let mut conversation = cluster.client.run(|| Conversation::with(at(TCP))).expect("a connection");
    let first = conversation.ask().expect("an answer");
    let asker = cluster.client.run(|| {
        let asker = Asker::for_address(at(UDP)).expect("a socket");
        asker.connect(at(UDP)).expect("connect");
        asker
    });
    let named = asker.ask_peer().expect("an answer").0.server;

    // One that only affinity makes grow.
    let sticky = service("sticky", &["10.96.0.20"]).client_ip_affinity(600);
    cluster.serve("sticky", &sticky).expect("manifests");
    cluster.client.run(|| eventually("it is served", || ask(at(STICKY)).is_ok()));
    eventually("affinity has its room", || tables(&cluster.lab).affinities_room() > before.affinities_room());
    let stays = cluster.client.run(|| ask(at(STICKY))).expect("an answer").server;

    let last = std::env::var("SIDESTEP_GROW_TO").ok().map(|text| text.parse().expect("a number"));
    for (count, room) in [(1200, 1 << 12), (3500, 1 << 14)].into_iter().chain(last.map(|last| (last, last))) {
        pressure.let_pass(50);
        let seen = counted(&cluster.lab, "web");
        Many::write(&cluster.lab, backend(&cluster), count).expect("manifests");
        // Two ports each.
        wait_for_services(&cluster.lab, count as usize + 4);
        // What fits into the present ones does not wait for bigger ones.
        eventually("room to spare", || tables(&cluster.lab).services.len() >= room);
        assert!(counted(&cluster.lab, "web") >= seen, "counts went back");
        assert_eq!(conversation.ask().expect("an answer"), first, "the connection changed its endpoint");
        assert_eq!(asker.ask_peer().expect("an answer").0.server, named, "the socket changed its endpoint");
        let again = cluster.client.run(|| ask(at(STICKY))).expect("an answer").server;
        assert_eq!(again, stays, "affinity was forgotten");
        cluster.client.run(|| ask(Many::last(count))).expect("the last Service");
    }
    let grown = bpftool::pinned_ids(cluster.lab.pin_directory()).expect("ids");
    assert_eq!(pins.keys().collect::<Vec<_>>(), grown.keys().collect::<Vec<_>>(), "the same pins");

    // What follows the tables follows the bigger ones.
    let server = named.trim_start_matches("pod-").parse::<usize>().expect("pod-<number>");
    cluster
        .endpoints("web", &cluster.slice_v4("web", (0..3).filter(|pod| *pod != server)))
        .expect("manifests");
    eventually("the connected socket moves", || {
        asker.ask_peer().is_ok_and(|(answer, _)| answer.server != named)
    });
    pressure.let_pass(50);
    let outcome = pressure.stop();
    println!("{} requests, the longest {:?}", outcome.requests, outcome.longest);
    // How long nothing was installed: `switch`.
    let log = fs::read_to_string(cluster.lab.log_file()).expect("a log");
    log.lines().filter(|line| line.contains("made the tables bigger")).for_each(|line| println!("{line}"));
    outcome.assert_flawless();
}

/// The tables of before are gone when nobody reads them any more, and a restarted agent goes on with the bigger ones.
#[test]
fn smaller_tables_go_and_a_restart_keeps_the_bigger_ones() {
    let cluster = cluster!(1);
    cluster.serve("web", &service("web", &["10.96.0.10"])).expect("manifests");
    let mut agent = cluster.lab.agent().expect("an agent");
    let before = bpftool::pinned_ids(cluster.lab.pin_directory()).expect("ids");
    Many::write(&cluster.lab, backend(&cluster), 1200).expect("manifests");
    wait_for_services(&cluster.lab, 1202);
    let grown = bpftool::pinned_ids(cluster.lab.pin_directory()).expect("ids");
    let id = |ids: &BTreeMap<String, u64>, name: &str| {
        let found = ids.iter().find(|(pin, _)| pin.rsplit('/').next() == Some(name));
        *found.expect("a pin").1
    };
    let replaced = |name: &str| id(&before, name) != id(&grown, name);
    assert!(replaced("SERVICES") && replaced("FRONTENDS") && !replaced("TOTALS") && !replaced("PEERS"));
    let alive = |id: u64| bpftool::json(&["map", "show", "id", &id.to_string()]).is_ok();
    let old: Vec<u64> =
        before.iter().filter(|(name, id)| grown.get(*name) != Some(id)).map(|(_, id)| *id).collect();
    assert!(old.len() >= 9, "{old:?}");
    eventually("the old tables are freed", || old.iter().all(|id| !alive(*id)));

    agent.kill().expect("kill -9");
    agent.restart(&cluster.lab).expect("restart");
    assert_eq!(bpftool::pinned_ids(cluster.lab.pin_directory()).expect("ids"), grown, "maps and links");
    cluster.client.run(|| ask(Many::last(1200))).expect("an answer");
}

/// A restarted agent gives room back that is hardly used. What lies beyond the smaller size moves, but a Service keeps its index:
/// it is waited for.
#[test]
fn tables_go_back_when_they_are_nearly_empty() {
    let cluster = cluster!(3);
    cluster.serve("web", &service("web", &["10.96.0.10"])).expect("manifests");
    let mut agent = cluster.lab.agent().expect("an agent");
    let begun = tables(&cluster.lab);
    let pressure = Pressure::start(&cluster.client, at(TCP), at(UDP));
    let mut conversation = cluster.client.run(|| Conversation::with(at(TCP))).expect("a connection");
    let first = conversation.ask().expect("an answer");
    Many::write(&cluster.lab, backend(&cluster), 3500).expect("manifests");
    wait_for_services(&cluster.lab, 3502);
    eventually("room to spare", || tables(&cluster.lab).services.len() == 1 << 14);
    cluster.serve("late", &service("late", &["10.96.0.30"])).expect("manifests");
    wait_for_services(&cluster.lab, 3504);
    let asker = cluster.client.run(|| {
        let asker = Asker::for_address(at("10.96.0.30:53")).expect("a socket");
        asker.connect(at("10.96.0.30:53")).expect("connect");
        asker
    });
    let named = asker.ask_peer().expect("an answer").0.server;

    Many::write(&cluster.lab, backend(&cluster), 0).expect("manifests");
    wait_for_services(&cluster.lab, 4);
    agent.kill().expect("kill -9");
    agent.restart(&cluster.lab).expect("restart");
    let beyond = |tables: &Tables| {
        let is_used = |slot: &u32| {
            let id = tables.endpoints.load(*slot).map_or(0, |endpoint| endpoint.id);
            id != 0 && tables.states.load(id).is_some_and(|state| state.bits != 0 && state.slot == *slot)
        };
        (begun.endpoints.len()..tables.endpoints.len()).filter(is_used).count()
    };
    eventually("all slots are at the beginning", || beyond(&tables(&cluster.lab)) == 0);
    let smaller = || tables(&cluster.lab).services.len() == 1 << 12;
    wait_for(SOON, "as small as an index that is in use allows", smaller).expect("in time");
    assert_eq!(asker.ask_peer().expect("an answer").0.server, named, "the socket changed its endpoint");

    cluster.lab.manifests().remove("late.yaml").expect("a file");
    wait_for_services(&cluster.lab, 2);
    agent.kill().expect("kill -9");
    agent.restart(&cluster.lab).expect("restart");
    let lengths = |tables: &Tables| (tables.services.len(), tables.endpoints.len(), tables.frontends_room());
    let gone_back = || lengths(&tables(&cluster.lab)) == lengths(&begun);
    wait_for(SOON, "the tables are as in the beginning", gone_back).expect("in time");
    pressure.let_pass(50);
    let seen = counted(&cluster.lab, "web");
    assert_eq!(conversation.ask().expect("an answer"), first, "the connection changed its endpoint");

    Many::write(&cluster.lab, backend(&cluster), 1200).expect("manifests");
    wait_for_services(&cluster.lab, 1202);
    cluster.client.run(|| ask(Many::last(1200))).expect("the last Service");
    assert!(counted(&cluster.lab, "web") >= seen, "counts went back");
    pressure.let_pass(50);
    let outcome = pressure.stop();
    println!("{} requests, the longest {:?}", outcome.requests, outcome.longest);
    let log = fs::read_to_string(cluster.lab.log_file()).expect("a log");
    log.lines().filter(|line| line.contains("made the tables")).for_each(|line| println!("{line}"));
    outcome.assert_flawless();
}

/// A limit is a limit: of half as many more than fit, exactly those are named that are not served. With more room at a restart
/// all of them are, and none is named.
#[test]
fn tables_grow_up_to_the_limit_and_a_higher_one_is_honoured() {
    let cluster = cluster!(1);
    Many::write(&cluster.lab, backend(&cluster), 1800).expect("manifests");
    let mut agent = Agent::reading(&cluster.lab).arguments(["--max-services", "1201"]);
    agent.restart(&cluster.lab).expect("an agent");
    let served: BTreeSet<String> = tables(&cluster.lab)
        .names
        .iter()
        .filter_map(|found| identity(&found.expect("an entry").1))
        .map(|id| format!("Service {}, port {:?}", id.service, id.port))
        .collect();
    let problems = agent.report().expect("a report").problems;
    let named: BTreeSet<String> =
        problems.iter().map(|problem| format!("{}, {}", problem.object, problem.field)).collect();
    // Index 0 stands for nothing.
    assert_eq!((served.len(), named.len(), problems.len()), (1200, 600, 600), "{:?}", problems[0]);
    let all = (0..18).flat_map(|service| (0..100).map(move |port| (service, port)));
    let all = all.map(|(service, port)| format!("Service default/many-{service}, port \"p{port}\""));
    assert_eq!(&served | &named, all.collect(), "each is served or named");
    assert!(problems.iter().all(|problem| problem.message.contains("--max-services")));

    agent.stop().expect("it stops");
    let mut agent = Agent::reading(&cluster.lab).arguments(["--max-services", "4000"]);
    agent.restart(&cluster.lab).expect("an agent");
    assert_eq!(tables(&cluster.lab).names.keys().count(), 1800);
    assert_eq!(agent.report().expect("a report").problems.len(), 0);
}

/// An agent that dies while its tables grow leaves a node that serves; the next one finishes or undoes that. From the moment when
/// the bigger tables are filled each link and each pin counts as a write.
#[test]
fn a_growth_that_dies_serves_on() {
    let cluster = cluster!(2);
    cluster.serve("web", &service("web", &["10.96.0.10"])).expect("manifests");
    let mut agent = cluster.lab.agent().expect("an agent");
    let pressure = Pressure::start(&cluster.client, at(TCP), at(UDP));
    let mut deaths = 0;
    for (count, number) in [(1200, 4), (3500, 16)] {
        agent.stop().expect("it stops");
        let mut dying =
            Agent::reading(&cluster.lab).variable("SIDESTEP_DIE_BEFORE_WRITE", format!("switch-{number}"));
        dying.restart(&cluster.lab).expect("an agent");
        Many::write(&cluster.lab, backend(&cluster), count).expect("manifests");
        deaths += u32::from(dying.wait_for_end(SOON).is_ok());
        drop(dying);
        pressure.let_pass(20);
        agent.restart(&cluster.lab).expect("restart");
        wait_for_services(&cluster.lab, count as usize + 2);
        let directory = cluster.lab.pin_directory().join(sidestep_tests::agent::ABI);
        let is_left = |pin: &str| pin.contains('-') || pin == "ready";
        // This agent's own growth may not be over.
        eventually("nothing is left behind", || {
            let pins = fs::read_dir(&directory).expect("pins");
            pins.flatten().all(|pin| !is_left(&pin.file_name().to_string_lossy()))
        });
    }
    pressure.let_pass(50);
    pressure.stop().assert_flawless();
    if deaths == 0 {
        skip!("the agent is a release build, which has no place to die");
    }
    assert_eq!(deaths, 2);
}

/// Something is in the way of the bigger tables. When it is gone, they grow without a change.
#[test]
fn tables_that_could_not_grow_are_tried_again() {
    let cluster = cluster!(1);
    let agent = cluster.lab.agent().expect("an agent");
    let obstacle = cluster.lab.pin_directory().join(sidestep_tests::agent::ABI).join("next-SERVICES");
    fs::create_dir(&obstacle).expect("a directory");
    Many::write(&cluster.lab, backend(&cluster), 1200).expect("manifests");
    let told = || {
        let problems = agent.report().map(|report| report.problems).unwrap_or_default();
        problems.into_iter().map(|problem| problem.message).collect::<Vec<_>>()
    };
    eventually("the failure is told", || {
        told().iter().any(|message| message.contains("cannot be made bigger: unlink"))
    });
    fs::remove_dir(&obstacle).expect("an empty directory");
    let grown = || tables(&cluster.lab).names.keys().count() == 1200 && told().is_empty();
    wait_for(Duration::from_secs(40), "the tables grow", grown).expect("in time");
    cluster.client.run(|| ask(Many::last(1200))).expect("the last Service");
}
