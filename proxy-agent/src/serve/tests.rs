//! The sites, asked over real connections on the loopback address.

use std::{
    io::{Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr, TcpListener as StdListener, TcpStream},
    time::Instant,
};

use tokio::time::sleep;

use super::{
    guests::{Guests, Times},
    http::{Answer, Site},
    listen::{Families, bind},
    *,
};
use crate::{
    config::Flags,
    model::{ObjectName, Subject},
};

fn shared() -> Arc<Shared> {
    let health = Health::new(&[Family::V4], Duration::from_mins(1));
    Arc::new(Shared {
        health: Mutex::new(health),
        metrics: Metrics::new("n1", "nowhere"),
        problems: Mutex::default(),
    })
}

fn settings() -> Settings {
    Settings::read(&Flags::default()).expect("settings")
}

/// Serves at a port that is free.
fn at_any_port(site: impl Site) -> (SocketAddr, Task) {
    served(site, 64, Times::default())
}

/// The same with this room for clients, who may take this long.
fn served(site: impl Site, room: usize, times: Times) -> (SocketAddr, Task) {
    let listener = bind((Ipv4Addr::LOCALHOST, 0).into(), Families::Both).expect("a listener");
    let address = listener.local_addr().expect("an address");
    (address, Task(tokio::spawn(http::serve(listener, Arc::new(site), Guests::new(room, times)))))
}

/// The whole answer, or nothing if nobody listens.
async fn ask(address: SocketAddr, method: &'static str, path: &'static str) -> Option<String> {
    let asked = tokio::task::spawn_blocking(move || {
        let mut stream = TcpStream::connect(address).ok()?;
        let host = "Host: agent\r\nConnection: close";
        write!(stream, "{method} {path} HTTP/1.1\r\n{host}\r\n\r\n").ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        Some(answer)
    });
    asked.await.expect("the question")
}

async fn get(address: SocketAddr, path: &'static str) -> String {
    ask(address, "GET", path).await.expect("somebody listens")
}

/// HE-1, HE-2: 503 for a node that is not known, with the body that says so; alive all the same.
#[tokio::test]
async fn healthz_is_about_the_node_and_livez_is_not() {
    let shared = shared();
    let (address, _task) = at_any_port(Healthz(Arc::clone(&shared)));
    let answer = get(address, "/healthz").await;
    assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
    assert!(answer.contains("\"nodeEligible\":false"), "{answer}");
    assert!(get(address, "/livez").await.starts_with("HTTP/1.1 200 OK"));

    lock(&shared.health).set_node_eligible(true);
    let answer = get(address, "/healthz").await;
    assert!(answer.starts_with("HTTP/1.1 200 OK") && answer.contains("lastUpdated"), "{answer}");
    assert!(get(address, "/").await.starts_with("HTTP/1.1 404 "));
    assert!(ask(address, "POST", "/healthz").await.expect("an answer").starts_with("HTTP/1.1 405 "));

    let text = shared.metrics.text().expect("metrics");
    for line in
        ["kubeproxy_proxy_healthz_total{code=\"503\"} 1", "kubeproxy_proxy_livez_total{code=\"200\"} 1"]
    {
        assert!(text.contains(line), "{line}:\n{text}");
    }
}

/// HE-4: what people and their tools look at.
#[tokio::test]
async fn the_metrics_port_shows_metrics_mode_and_configuration() {
    let (address, _task) = at_any_port(Inspect::new(shared(), &settings()));
    assert!(get(address, "/healthz").await.ends_with("\r\n\r\nok"));
    assert!(get(address, "/proxyMode").await.ends_with("sidestep"));
    let configuration = get(address, "/configz").await;
    assert!(configuration.contains("\"kubeproxy.config.k8s.io\":{"), "{configuration}");
    assert!(configuration.contains("\"healthzBindAddress\":\"0.0.0.0:10256\""), "{configuration}");
    let metrics = get(address, "/metrics").await;
    assert!(metrics.contains("content-type: application/openmetrics-text"), "{metrics}");
    assert!(metrics.contains("sidestep_agent_info{version="), "{metrics}");
    assert!(metrics.ends_with("# EOF\n"), "{metrics}");
}

/// HE-3: the number of endpoints decides; the listener goes with the question.
#[tokio::test]
async fn a_health_check_port_says_how_many_endpoints_are_here() {
    let address =
        StdListener::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|free| free.local_addr()).expect("a port");
    let check = |local_endpoints| HealthCheck {
        service: ObjectName::new("default", "web"),
        listen: vec![address],
        local_endpoints,
    };
    let mut checks = HealthChecks::new(shared());
    checks.set(vec![check(0)]);
    sleep(Duration::from_millis(10)).await;
    let answer = get(address, "/any/path").await;
    assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
    assert!(answer.contains("x-load-balancing-endpoint-weight: 0\r\n"), "{answer}");

    checks.set(vec![check(2)]);
    let answer = get(address, "/").await;
    assert!(answer.starts_with("HTTP/1.1 200 OK"), "{answer}");
    assert!(answer.contains("x-load-balancing-endpoint-weight: 2\r\n"), "{answer}");
    let body =
        r#"{"service":{"namespace":"default","name":"web"},"localEndpoints":2,"serviceProxyHealthy":true}"#;
    assert!(answer.ends_with(body), "{answer}");

    checks.set(Vec::new());
    sleep(Duration::from_millis(10)).await;
    assert_eq!(ask(address, "GET", "/").await, None);
}

/// CF-5, HE-3: a port that is taken is a problem by name, until it is free.
#[tokio::test]
async fn a_port_that_is_taken_is_named_and_tried_again() {
    let taken = StdListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a listener");
    let address = taken.local_addr().expect("an address");
    let shared = shared();
    let what = || (Subject::Healthz, "healthzBindAddress");
    let task = listen::start(&shared, what(), address, Healthz(Arc::clone(&shared)), false).expect("soft");
    sleep(Duration::from_millis(20)).await;
    let named: Vec<Problem> = lock(&shared.problems).values().cloned().collect();
    assert_eq!(named.len(), 1);
    assert_eq!(named[0].field, "healthzBindAddress");
    assert!(named[0].message.contains(&address.to_string()), "{}", named[0]);

    let error =
        listen::start(&shared, what(), address, Healthz(Arc::clone(&shared)), true).expect_err("hard");
    assert!(format!("{error:#}").contains(&address.to_string()), "{error:#}");

    drop(taken);
    let start = Instant::now();
    while !lock(&shared.problems).is_empty() {
        assert!(start.elapsed() < Duration::from_secs(10), "tried again every 5 seconds");
        sleep(Duration::from_millis(50)).await;
    }
    assert!(get(address, "/livez").await.starts_with("HTTP/1.1 200 OK"));
    drop(task);
}

/// Connections that stay open and silent, many times more than there is room for.
#[tokio::test]
async fn whoever_keeps_connections_open_keeps_nobody_out() {
    let (address, _task) = served(Healthz(shared()), 8, Times::default());
    let mut silent = Vec::new();
    for _ in 0..10 {
        silent.extend((0..20).map(|_| TcpStream::connect(address).expect("a connection")));
        assert!(get(address, "/livez").await.starts_with("HTTP/1.1 200 OK"));
    }
    // The first ones made room.
    let mut first = silent.swap_remove(0);
    first.set_read_timeout(Some(Duration::from_secs(5))).expect("set");
    assert_eq!(first.read(&mut [0]).unwrap_or_default(), 0, "it is still open");
}

/// Slow questions, and answers that nobody takes, end after a time.
#[tokio::test]
async fn whoever_is_too_slow_is_left() {
    let times = Times { question: Duration::from_millis(200), connection: Duration::from_millis(400) };
    let (address, _task) = served(Long, 8, times);
    let slow = tokio::task::spawn_blocking(move || {
        let mut stream = TcpStream::connect(address).expect("a connection");
        let began = Instant::now();
        // A byte at a time, as long as somebody listens.
        while began.elapsed() < Duration::from_secs(10) && stream.write_all(b"G").is_ok() {
            std::thread::sleep(Duration::from_millis(20));
        }
        began.elapsed()
    });
    let deaf = tokio::task::spawn_blocking(move || {
        let mut stream = TcpStream::connect(address).expect("a connection");
        write!(stream, "GET / HTTP/1.1\r\nHost: agent\r\n\r\n").expect("asked");
        std::thread::sleep(Duration::from_secs(2));
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        answer.len()
    });
    assert!(slow.await.expect("the client") < Duration::from_secs(5), "a question may take for ever");
    let taken = deaf.await.expect("the client");
    assert!(taken < Long::LENGTH, "the whole answer was still there after two seconds");
}

/// More than any client says.
#[tokio::test]
async fn questions_that_are_too_long_are_refused() {
    let (address, _task) = served(Healthz(shared()), 8, Times::default());
    let answer = tokio::task::spawn_blocking(move || {
        let mut stream = TcpStream::connect(address).expect("a connection");
        stream.set_read_timeout(Some(Duration::from_secs(5))).expect("set");
        let _ = write!(stream, "GET /livez HTTP/1.1\r\nHost: agent\r\nX: ");
        let mut sent = 0;
        while sent < 64 << 20 && stream.write_all(&[b'x'; 4096]).is_ok() {
            sent += 4096;
        }
        let mut answer = String::new();
        let _ = stream.read_to_string(&mut answer);
        (sent, answer)
    });
    let (sent, answer) = answer.await.expect("the client");
    assert!(sent < 64 << 20, "it reads whatever comes");
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 431 "), "{answer}");
    assert!(get(address, "/livez").await.starts_with("HTTP/1.1 200 OK"));
}

/// A site with an answer that no socket's buffers hold.
#[derive(Debug)]
struct Long;

impl Long {
    const LENGTH: usize = 64 << 20;
}

impl Site for Long {
    async fn answer(&self, _: &str) -> Answer {
        http::text(hyper::StatusCode::OK, vec![b'x'; Self::LENGTH])
    }
}
