//! The sites, asked over real connections on the loopback address.

use std::{
    io::{Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr, TcpListener as StdListener, TcpStream},
    time::Instant,
};

use tokio::time::sleep;

use super::{
    http::Site,
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
    let listener = bind((Ipv4Addr::LOCALHOST, 0).into(), Families::Both).expect("a listener");
    let address = listener.local_addr().expect("an address");
    (address, Task(tokio::spawn(http::serve(listener, Arc::new(site)))))
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
