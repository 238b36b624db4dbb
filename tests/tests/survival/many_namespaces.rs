//! A node with very many network namespaces: the agent finds those that it must look into, and does not look all the time.

use std::{
    fs,
    io::Write as _,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use sidestep_tests::{
    Agent, cluster,
    cluster::{at, service},
    eventually::wait_for,
    identity::Identity,
    traffic::Asker,
};

/// How many, if `SIDESTEP_NAMESPACES` does not say so.
const NAMESPACES: usize = 1000;
const UDP: &str = "10.96.0.10:53";
/// How long the agent is watched while nothing happens.
const WATCHED: Duration = Duration::from_secs(20);
/// What part of a processor it may take meanwhile, in per cent.
const SHARE: f64 = 5.0;

/// Empty network namespaces, mounted as a container runtime does it. They go with this value.
struct Namespaces(Vec<String>);

impl Namespaces {
    fn new(count: usize) -> Self {
        let namespaces = Self((0..count).map(|_| Identity::new().to_string()).collect());
        namespaces.each("add");
        namespaces
    }

    fn each(&self, action: &str) {
        let lines: Vec<_> = self.0.iter().map(|name| format!("netns {action} {name}\n")).collect();
        let mut ip = Command::new("ip").args(["-batch", "-"]).stdin(Stdio::piped()).spawn().expect("ip");
        ip.stdin.take().expect("a pipe").write_all(lines.concat().as_bytes()).expect("lines");
        assert!(ip.wait().expect("its end").success(), "ip netns {action}");
    }
}

impl Drop for Namespaces {
    fn drop(&mut self) {
        self.each("del");
    }
}

/// The processor's time that an agent has taken, in ticks of a hundredth of a second.
fn ticks(agent: &Agent) -> f64 {
    let stat =
        fs::read_to_string(format!("/proc/{}/stat", agent.pid().expect("it runs"))).expect("its times");
    let (_, fields) = stat.rsplit_once(") ").expect("a name");
    fields.split(' ').skip(11).take(2).map(|ticks| ticks.parse::<f64>().expect("a number")).sum()
}

fn descriptors(agent: &Agent) -> usize {
    fs::read_dir(format!("/proc/{}/fd", agent.pid().expect("it runs"))).expect("its descriptors").count()
}

/// ST-5 too: the socket of the last pod moves when its endpoint goes.
#[test]
fn the_agent_finds_its_way_among_very_many_namespaces() {
    let count =
        std::env::var("SIDESTEP_NAMESPACES").map_or(NAMESPACES, |text| text.parse().expect("a number"));
    let cluster = cluster!(2);
    cluster.serve("web", &service("web", &["10.96.0.10"])).expect("manifests");
    let agent = cluster.lab.agent().expect("an agent");
    let few = descriptors(&agent);
    let began = Instant::now();
    let _namespaces = Namespaces::new(count);
    println!("{count} namespaces in {:?}", began.elapsed());

    let client = cluster.lab.pod("late").expect("a pod");
    let asker = client.run(|| {
        let asker = Asker::for_address(at(UDP)).expect("a socket");
        asker.connect(at(UDP)).expect("connect");
        asker
    });
    let named = asker.ask_peer().expect("an answer").0.server;
    let stays = usize::from(named == "pod-0");
    let began = Instant::now();
    cluster.endpoints("web", &cluster.slice_v4("web", [stays])).expect("manifests");
    let moved = || asker.ask_peer().is_ok_and(|(answer, _)| answer.server != named);
    wait_for(Duration::from_secs(30), "the connected socket moves", moved).expect("in time");
    println!("a connected socket moved after {:?}", began.elapsed());

    // The last of the searches that the mounts caused.
    std::thread::sleep(Duration::from_secs(5));
    let (began, before) = (Instant::now(), ticks(&agent));
    std::thread::sleep(WATCHED);
    let share = (ticks(&agent) - before) / began.elapsed().as_secs_f64();
    println!("the agent took {share:.2} % of a processor while nothing happened");
    assert!(share < SHARE, "{share} %");
    let now = descriptors(&agent);
    assert!(now <= few + 50, "{now} descriptors, and {few} before");
}
