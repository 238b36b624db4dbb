//! Nothing secret is told: not in the log at its highest level, in the report, by `status` or `doctor`, or over HTTP.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr, TcpStream},
    path::PathBuf,
};

use sidestep_tests::{
    Agent, Lab,
    api_server::{ApiServer, Objects},
    eventually, lab,
};

const TOKEN: &str = "t0ken-that-nobody-tells";
const PASSWORD: &str = "w0rd-that-nobody-tells";
/// Of no key, but it looks like one; base64 of "k3y-that-nobody-tells".
const KEY: &str = "azN5LXRoYXQtbm9ib2R5LXRlbGxz";

fn kubeconfig(lab: &Lab, server: &str, user: &str) -> PathBuf {
    let path = lab.run_directory().join("kubeconfig");
    let text = format!(
        "apiVersion: v1
kind: Config
current-context: c
contexts: [{{name: c, context: {{cluster: c, user: u}}}}]
clusters: [{{name: c, cluster: {{server: '{server}'}}}}]
users:
- name: u
  user: {user}
"
    );
    fs::write(&path, text).expect("written");
    path
}

/// The address of `server` with a user and a password.
fn with_user(server: &ApiServer) -> String {
    server.url().replacen("://", &format!("://somebody:{PASSWORD}@"), 1)
}

/// Everything that the agent and the commands tell.
fn told(lab: &Lab) -> String {
    let mut told = fs::read_to_string(lab.log_file()).unwrap_or_default();
    told += &fs::read_to_string(lab.run_directory().join("report.json")).unwrap_or_default();
    for arguments in
        [&["status", "-o", "json"][..], &["status"], &["doctor", "-o", "json"], &["flows", "-o", "json"]]
    {
        let output = lab.sidestep(arguments).expect("it runs");
        told += &String::from_utf8_lossy(&[output.stdout, output.stderr].concat());
    }
    for (port, path) in [(10256, "/healthz"), (10249, "/metrics"), (10249, "/configz")] {
        told += &lab.node().run(|| get(port, path)).unwrap_or_default();
    }
    told
}

fn get(port: u16, path: &str) -> Option<String> {
    let mut stream = TcpStream::connect(SocketAddr::from((Ipv4Addr::LOCALHOST, port))).ok()?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: node\r\nConnection: close\r\n\r\n").ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    Some(answer)
}

fn assert_kept_secret(lab: &Lab, what: &str) {
    let told = told(lab);
    assert!(told.contains(what), "it did not come that far: {what}");
    for secret in [TOKEN, PASSWORD, KEY] {
        let place =
            told.find(secret).map(|at| &told[at.saturating_sub(200)..(at + secret.len()).min(told.len())]);
        assert_eq!(place, None);
    }
}

#[test]
fn tokens_and_passwords_in_addresses_are_not_told() {
    let lab = lab!();
    let mut server = ApiServer::start(lab.node().namespace(), Objects::default()).expect("an API server");
    let path = kubeconfig(&lab, &with_user(&server), &format!("{{token: {TOKEN}}}"));
    let path = path.to_str().expect("UTF-8");
    let arguments = ["--log", "trace", "--kubeconfig", path, "--metrics-bind-address", "127.0.0.1:10249"];
    let mut agent =
        Agent::at(&lab, &with_user(&server)).arguments(arguments).started(&lab).expect("an agent");
    assert_kept_secret(&lab, &server.url().replace("http://", ""));
    // Requests that fail are told with their address.
    server.away();
    eventually("the report names the server", || {
        agent.report().is_ok_and(|report| report.names("watch of Services", ""))
    });
    assert_kept_secret(&lab, "watch of Services");
    agent.stop().expect("it stops");
}

#[test]
fn a_kubeconfig_that_cannot_be_used_is_told_without_its_content() {
    let lab = lab!();
    for user in [
        format!("{{token: {TOKEN}"),
        TOKEN.to_owned(),
        format!("{{token: [{TOKEN}]}}"),
        format!("{{client-certificate-data: {KEY}, client-key-data: {KEY}}}"),
        format!("{{client-key-data: '{TOKEN}', client-certificate-data: '{TOKEN}'}}"),
    ] {
        let server = format!("https://somebody:{PASSWORD}@192.0.2.1:6443");
        let path = kubeconfig(&lab, &server, &user);
        let path = path.to_str().expect("UTF-8");
        for named in [true, false] {
            let arguments =
                if named { vec!["--log", "trace", "--kubeconfig", path] } else { vec!["--log", "trace"] };
            let mut agent = Agent::at(&lab, &server).arguments(arguments).variable("KUBECONFIG", path);
            agent.launch(&lab).expect("it starts");
            eventually("it says something", || {
                let log = fs::read_to_string(lab.log_file()).unwrap_or_default();
                log.contains("kubeconfig") || log.contains("watch")
            });
            // Until it ends, or tries to reach the server.
            std::thread::sleep(std::time::Duration::from_millis(500));
            assert_kept_secret(&lab, "starting");
            agent.kill().ok();
        }
    }
}
