//! `bench start`: the time from the agent's start to the first connection through a Service, on a node without pinned
//! maps.
//!
//! The agent is the real one on empty tables, and learns of its Services from the tests' API server double. A process
//! of the node connects to one of them again and again, through the socket hook, and a client outside of the cluster
//! to its NodePort. For comparison it also measures `nft -f` loading rules in kube-proxy's shape for the same
//! Services, without the proxy that would write them.

use std::{
    io::Read as _,
    net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpStream},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use sidestep_tests::{
    Agent, Lab, agent::NODE_NAME, api_server::ApiServer, identity::Identity, namespace::Namespace,
    place::Place, topology::NODE_V4,
};

use super::{
    cluster::{self, Cluster},
    door::{self, Door},
    follow, milliseconds, section,
    usage::processor_time,
};
use crate::{
    goals::Goal,
    interrupt,
    machine::Machine,
    netfilter::{self, Flavour, Ruled},
    options::Options,
    progress::Progress,
    report::Report,
    statistics::Summary,
};

/// Services, the one that is asked among them.
const SERVICES: u32 = 1_000;
/// Endpoints of each.
const ENDPOINTS: u32 = 10;
/// The Service that is asked. Lists are sorted, so that it is the last one that an agent hears of.
const NAME: &str = "service-that-is-asked";
const ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 111, 0, 1);
const PORT: u16 = 80;
const NODE_PORT: u16 = 30_080;

/// Measured starts; one more before them, with cold file caches, is not measured.
const STARTS: usize = 20;
/// The same, if there is little time.
const QUICK_STARTS: usize = 5;
/// Between two attempts of a client.
const PACE: Duration = Duration::from_micros(500);
/// Longest wait for an answer to one attempt.
const ATTEMPT: Duration = Duration::from_millis(100);
/// Longest wait for a start.
const PATIENCE: Duration = Duration::from_secs(30);
/// Milliseconds that the first connection may take.
const WANTED: f64 = 400.0;

/// Milliseconds of one start; those without a name of a clock from the agent's start on.
struct Start {
    /// Until the double had the first page of its lists ready to be sent.
    asked: f64,
    /// Until it had the last one.
    listed: f64,
    /// Until a process of the node was connected to a Service.
    connected: f64,
    /// Processor time of the agent until then.
    connected_processor: f64,
    /// Until a north-south client had the first byte of an answer from a NodePort.
    answered: f64,
    /// Until the agent's report said that everything is installed.
    installed: f64,
    /// Processor time of the agent until then.
    installed_processor: f64,
    /// Of `nft -f`.
    rules: f64,
}

/// Runs the benchmark.
pub(crate) fn run(options: &Options) -> Result<Report> {
    let starts = if options.quick { QUICK_STARTS } else { STARTS };
    let machine = Machine::find();
    let mut progress = Progress::new();
    progress.stage("making the cluster");
    let lab = Lab::new()?;
    let endpoints = follow::addresses(0, ENDPOINTS);
    let _door = Door::open(&follow::pod(&lab, "asked", &endpoints)?, b'!')?;
    let cluster = Cluster { services: SERVICES - 1, endpoints: ENDPOINTS };
    let server = ApiServer::start(lab.node().namespace(), cluster.objects())?;
    server.put(node_port_service());
    server.put(slice_of_this_node(&endpoints));
    let ruled = ruled(cluster, &endpoints);

    progress.stage("a start that is not counted");
    once(&lab, &server, &ruled)?;
    let mut all = Vec::with_capacity(starts);
    for start in 1..=starts {
        interrupt::check()?;
        progress.stage(format!("start {start} of {starts}"));
        all.push(once(&lab, &server, &ruled)?);
    }
    let of = |figure: fn(&Start) -> f64| all.iter().map(figure).collect::<Vec<f64>>();
    let connected = of(|start| start.connected);
    let goal = Goal::at_most(
        format!("ms from start to first connect, {SERVICES} Services of {ENDPOINTS}"),
        Summary::of(&connected),
        WANTED,
    );
    let measured = section(
        format!("start, {SERVICES} Services of {ENDPOINTS} endpoints"),
        "ms",
        [
            ("until the first page of a list was ready to be sent", of(|start| start.asked)),
            ("until the last page of the lists was", of(|start| start.listed)),
            ("until a process of the node was connected to a Service", connected),
            ("… processor time of the agent until then", of(|start| start.connected_processor)),
            ("until a NodePort had answered a client outside", of(|start| start.answered)),
            ("until everything was installed, by the agent's report", of(|start| start.installed)),
            ("… processor time of the agent until then", of(|start| start.installed_processor)),
            ("kube-proxy's shape of rules for these Services, nft -f", of(|start| start.rules)),
        ],
    );
    progress.stage("cleaning up");
    drop(server);
    let seconds = progress.seconds();
    Ok(Report {
        benchmark: "start",
        machine,
        method: method(starts),
        sections: vec![measured],
        tables: Vec::new(),
        notes: Vec::new(),
        goals: vec![goal],
        seconds,
    })
}

/// One start on empty tables, and one loading of rules into an empty node.
fn once(lab: &Lab, server: &ApiServer, ruled: &Ruled) -> Result<Start> {
    let asked = server.asked().len();
    let mut agent = Agent::following(lab, server);
    let (inside, connected) = mpsc::channel();
    let (outside, answered) = mpsc::channel();
    let start = thread::scope(|scope| -> Result<Start> {
        for (client, address, tell) in [
            (lab.node(), SocketAddrV4::new(ADDRESS, PORT), inside),
            (lab.other_node(), SocketAddrV4::new(NODE_V4, NODE_PORT), outside),
        ] {
            // Nobody hears it where the agent did not start.
            scope.spawn(move || tell.send(first_answer(client, address.into())));
        }
        let began = Instant::now();
        let since = |instant: Instant| milliseconds(instant - began);
        agent.launch(lab)?;
        let pid = agent.pid().context("the agent runs")?;
        let first = connected.recv()?.with_context(|| agent.log_tail())?;
        let connected_processor = milliseconds(processor_time(pid)?);
        agent.wait_until_synced(PATIENCE)?;
        let installed = Instant::now();
        let installed_processor = milliseconds(processor_time(pid)?);
        let answer = answered.recv()?.with_context(|| agent.log_tail())?;
        let answers = server.asked().split_off(asked);
        let lists = || answers.iter().filter(|asked| !asked.watch).map(|asked| asked.at);
        let (asked, listed) = lists().min().zip(lists().max()).context("the agent asked for no list")?;
        Ok(Start {
            asked: since(asked),
            listed: since(listed),
            connected: since(first.connected),
            connected_processor,
            answered: since(answer.answered),
            installed: since(installed),
            installed_processor,
            rules: 0.0,
        })
    })?;
    agent.stop()?;
    ensure!(lab.sidestep(&["cleanup"])?.status.success(), "cleanup");
    let node = Namespace::new(format!("{}-rules", Identity::new()))?;
    let (_, rules) = Flavour::Nftables.install_timed(ruled, &node)?;
    Ok(Start { rules: milliseconds(rules), ..start })
}

/// The first attempt of a client that succeeded.
struct Answer {
    connected: Instant,
    answered: Instant,
}

/// Connects until somebody answers.
fn first_answer(client: &Place, address: SocketAddr) -> Result<Answer> {
    client.run(|| {
        let start = Instant::now();
        loop {
            match TcpStream::connect_timeout(&address, ATTEMPT) {
                Ok(mut stream) => {
                    let connected = Instant::now();
                    stream.read_exact(&mut [0])?;
                    return Ok(Answer { connected, answered: Instant::now() });
                }
                Err(error) if start.elapsed() > PATIENCE => {
                    return Err(error).with_context(|| format!("{address} within {PATIENCE:?}"));
                }
                Err(_) => thread::sleep(PACE),
            }
        }
    })
}

fn node_port_service() -> serde_json::Value {
    let mut service = cluster::service(NAME, ADDRESS);
    service["spec"]["type"] = "NodePort".into();
    service["spec"]["ports"][0]["nodePort"] = NODE_PORT.into();
    service
}

/// Its EndpointSlice: a pod of this node answers the client outside itself.
fn slice_of_this_node(endpoints: &[Ipv4Addr]) -> serde_json::Value {
    let mut slice = cluster::slice(NAME, endpoints);
    for endpoint in slice["endpoints"].as_array_mut().into_iter().flatten() {
        endpoint["nodeName"] = NODE_NAME.into();
    }
    slice
}

/// The same Services, as rules know them.
fn ruled(cluster: Cluster, asked: &[Ipv4Addr]) -> Ruled {
    let service = |address, node_port, pods: &[Ipv4Addr]| netfilter::Service {
        address,
        port: PORT,
        protocol: "tcp",
        node_port,
        endpoints: pods.iter().map(|&pod| SocketAddrV4::new(pod, door::PORT)).collect(),
    };
    let others =
        (0..cluster.services).map(|index| service(cluster::cluster_ip(index), None, &cluster.pods(index, 0)));
    let services = others.chain([service(ADDRESS, Some(NODE_PORT), asked)]).collect();
    Ruled { node: NODE_V4, services }
}

fn method(starts: usize) -> Vec<String> {
    vec![
        format!(
            "The agent's release binary follows an API server's double over HTTP on the loopback of the lab's node; \
             {starts} starts, each on a node without tables and programs of Sidestep, after one that is not counted. \
             The double has the same processors."
        ),
        "From just before the agent's process is made. Processor time is that of all of its threads, the kernel's work \
         for them (such as verifying programs) included."
            .to_owned(),
        format!(
            "Two clients, a process of the node and one of a host outside, try again {PACE:?} after each failure, which \
             comes at once: the first to the ClusterIP of the Service that is the last in the lists, the second to its \
             NodePort. Connected: connect() has returned. Answered: a byte of the pod's has been read."
        ),
        "nft -f: from the tool's start to its end, in the same turns, on a node that has no rules; a proxy that watches, \
         computes and writes them is not in it."
            .to_owned(),
    ]
}
