//! Programs that connect a UDP socket once and write for ever: metrics, logs. They notice nothing when their endpoint
//! is replaced, because nothing is wrong with their socket.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
    thread::sleep,
    time::{Duration, Instant},
};

use sidestep_tests::{
    Agent, cluster as new_cluster,
    cluster::{Cluster, at, service},
    topology::pod_v4,
    traffic::Asker,
};
use socket2::SockRef;

/// Longest time from the replacement of an endpoint to the first datagram at the new one.
const NOTICE: Duration = Duration::from_secs(2);
/// How often such a program writes.
const PERIOD: Duration = Duration::from_millis(20);

/// A Service of metrics, in both families, of which one backend is the endpoint.
fn start(cluster: &Cluster) -> Agent {
    cluster.route_services_out().expect("routes");
    let service = service("stats", &["10.96.0.80", "fd00:10:96::80"]);
    cluster.lab.manifests().write("stats.yaml", &[&service]).expect("manifests");
    endpoints(cluster, Some(0));
    cluster.lab.agent().expect("an agent")
}

/// Makes this backend the only endpoint, in both families, or takes the last one away.
fn endpoints(cluster: &Cluster, backend: Option<usize>) {
    let (v4, v6) = (cluster.slice_v4("stats", backend), cluster.slice_v6("stats", backend));
    if backend.is_some() {
        cluster.lab.manifests().write("stats-endpoints.yaml", &[&v4, &v6]).expect("manifests");
    } else {
        cluster.lab.manifests().remove("stats-endpoints.yaml").expect("removal");
    }
}

/// A program that connected once.
struct Writer {
    what: &'static str,
    asker: Asker,
    vip: SocketAddr,
    local: SocketAddr,
}

impl Writer {
    fn over(what: &'static str, asker: Asker, vip: SocketAddr) -> Self {
        asker.connect(vip).expect("connect");
        asker.socket().set_nonblocking(true).expect("non-blocking");
        let local = asker.socket().local_addr().expect("an address");
        Self { what, asker, vip, local }
    }

    /// Writes once and reads what has come; the server that answered meanwhile, if one did.
    fn step(&self) -> io::Result<Option<String>> {
        let Self { what, asker, vip, local } = self;
        assert_eq!(asker.socket().peer_addr().expect("a peer"), *vip, "{what}");
        assert_eq!(asker.socket().local_addr().expect("an address"), *local, "{what}");
        asker.socket().send(b"requests:1|c")?;
        let mut buffer = [0; 256];
        let mut server = None;
        loop {
            match asker.socket().recv_from(&mut buffer) {
                Ok((length, source)) => {
                    assert_eq!(source, *vip, "{what}");
                    let text = String::from_utf8_lossy(&buffer[..length]);
                    server = text.split(' ').next().map(str::to_owned);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(server),
                Err(error) => return Err(error),
            }
        }
    }
}

/// Every kind of socket; each is served by the endpoint that there is.
fn writers(cluster: &Cluster) -> Vec<Writer> {
    let (v4, v6, mapped) = (at("10.96.0.80:53"), at("[fd00:10:96::80]:53"), at("[::ffff:10.96.0.80]:53"));
    let bound = |local: SocketAddr| Asker::bound_to(local).expect("a socket");
    cluster.client.run(|| {
        let own = pod_v4(10);
        assert_eq!(cluster.client.v4, own);
        let on_device = Asker::v4().expect("a socket");
        SockRef::from(on_device.socket()).bind_device(Some(b"eth0")).expect("SO_BINDTODEVICE");
        let shared = Asker::v4().expect("a socket");
        SockRef::from(shared.socket()).set_broadcast(true).expect("SO_BROADCAST");
        vec![
            Writer::over("IPv4", Asker::v4().expect("a socket"), v4),
            Writer::over("IPv6", Asker::v6().expect("a socket"), v6),
            Writer::over("v4-mapped", Asker::v6().expect("a socket"), mapped),
            Writer::over("bound to a port", bound((Ipv4Addr::UNSPECIFIED, 8126).into()), v4),
            Writer::over("bound to an address", bound((own, 0).into()), v4),
            Writer::over("bound to both", bound((own, 8127).into()), v4),
            Writer::over("bound to a device", on_device, v4),
            Writer::over("with SO_BROADCAST", shared, v4),
        ]
    })
}

/// Steps all of them until each has been answered by this server; `tolerate` says which errors may be seen.
fn assert_all_reach(writers: &[Writer], server: &str, tolerate: impl Fn(&io::Error) -> bool) {
    let start = Instant::now();
    let mut waiting: Vec<&Writer> = writers.iter().collect();
    while !waiting.is_empty() {
        waiting.retain(|writer| match writer.step() {
            Ok(answer) => answer.as_deref() != Some(server),
            Err(error) => {
                assert!(tolerate(&error), "{}: {error} after {:?}", writer.what, start.elapsed());
                true
            }
        });
        let kinds: Vec<&str> = waiting.iter().map(|writer| writer.what).collect();
        assert!(start.elapsed() < NOTICE, "not at {server} after {:?}: {kinds:?}", start.elapsed());
        sleep(PERIOD);
    }
    println!("all at {server} after {:?}", start.elapsed());
}

/// ST-5: the local port stays, and no call ever fails.
#[test]
fn a_program_that_only_writes_reaches_the_new_endpoint() {
    let cluster = new_cluster!(2);
    let _agent = start(&cluster);
    let writers = writers(&cluster);
    for backend in [0, 1, 0] {
        endpoints(&cluster, Some(backend));
        assert_all_reach(&writers, &format!("pod-{backend}"), |_| false);
    }
}

/// ST-5, PO-24: without an endpoint it hears ECONNREFUSED; then it reaches the next one.
#[test]
fn a_program_that_only_writes_hears_that_there_is_no_endpoint() {
    let cluster = new_cluster!(2);
    let _agent = start(&cluster);
    let writers = writers(&cluster);
    assert_all_reach(&writers, "pod-0", |_| false);
    endpoints(&cluster, None);
    let gone = Instant::now();
    let mut waiting: Vec<&Writer> = writers.iter().collect();
    while !waiting.is_empty() {
        waiting.retain(|writer| match writer.step() {
            Ok(_) => true,
            Err(error) => {
                assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused, "{}: {error}", writer.what);
                false
            }
        });
        let kinds: Vec<&str> = waiting.iter().map(|writer| writer.what).collect();
        assert!(gone.elapsed() < NOTICE, "not told after {:?}: {kinds:?}", gone.elapsed());
        sleep(PERIOD);
    }
    endpoints(&cluster, Some(1));
    assert_all_reach(&writers, "pod-1", |error| error.kind() == io::ErrorKind::ConnectionRefused);
    // Nothing is left over of the time without an endpoint.
    sleep(Duration::from_millis(300));
    for writer in &writers {
        writer.step().unwrap_or_else(|error| panic!("{}: {error}", writer.what));
    }
}

/// What is true of the pods' sockets is true of the node's own.
#[test]
fn a_process_of_the_node_that_only_writes_reaches_the_new_endpoint() {
    let cluster = new_cluster!(2);
    let _agent = start(&cluster);
    let vips = [at("10.96.0.80:53"), at("[fd00:10:96::80]:53")];
    let writers: Vec<Writer> = cluster.lab.node().run(|| {
        vips.map(|vip| Writer::over("on the node", Asker::for_address(vip).expect("a socket"), vip)).into()
    });
    assert_all_reach(&writers, "pod-0", |_| false);
    endpoints(&cluster, Some(1));
    assert_all_reach(&writers, "pod-1", |_| false);
}
