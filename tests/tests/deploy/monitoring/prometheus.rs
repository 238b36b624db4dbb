//! A real Prometheus that scrapes an agent in a lab, with the rules of `deploy/`.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use serde_json::Value;
use sidestep_tests::Place;
use tempfile::TempDir;

/// The variable with the folder of promtool and Prometheus; `cargo xtask test` sets it.
const PROGRAMS: &str = "SIDESTEP_PROMETHEUS";
/// Where it listens in its namespace.
const ADDRESS: ([u8; 4], u16) = ([127, 0, 0, 1], 9090);

/// One of the programs, or why it is missing.
pub(super) fn program(name: &str) -> Result<PathBuf, String> {
    let folder = std::env::var_os(PROGRAMS).map(PathBuf::from);
    let program = folder.map_or_else(|| name.into(), |folder| folder.join(name));
    let output = Command::new(&program).arg("--version").output();
    output.map(|_| program.clone()).map_err(|error| format!("{}: {error}", program.display()))
}

/// A GET request; returns the body of the response, or nothing if no server listens.
pub(super) fn get(address: impl Into<SocketAddr>, path: &str) -> Option<String> {
    let mut stream = TcpStream::connect(address.into()).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(10))).ok()?;
    // HTTP/1.0 responses are not chunked.
    write!(stream, "GET {path} HTTP/1.0\r\nHost: node\r\n\r\n").ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    answer.split_once("\r\n\r\n").map(|(_, body)| body.to_owned())
}

/// A running Prometheus.
pub(super) struct Prometheus {
    process: Child,
    place: Place,
    _folder: TempDir,
}

impl Prometheus {
    /// Starts it in `place`; it scrapes the agent there each second and evaluates `rules`.
    pub(super) fn start(program: &Path, place: &Place, rules: &Path) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let configuration = format!(
            "global: {{scrape_interval: 1s, evaluation_interval: 1s}}\n\
             rule_files: ['{}']\n\
             scrape_configs:\n\
             - job_name: sidestep\n  static_configs: [{{targets: ['127.0.0.1:10249']}}]\n",
            rules.display()
        );
        let file = folder.path().join("prometheus.yaml");
        fs::write(&file, configuration).expect("written");
        let mut command = Command::new(program);
        command.arg("--config.file").arg(file).arg("--storage.tsdb.path").arg(folder.path().join("data"));
        command.args(["--web.listen-address=127.0.0.1:9090", "--log.level=warn"]);
        command.stdin(Stdio::null()).stdout(Stdio::null());
        let process = place.run(|| command.spawn()).expect("Prometheus starts");
        Self { process, place: place.clone(), _folder: folder }
    }

    /// The API's answer at `path`; nothing until it serves.
    pub(super) fn api(&self, path: &str, query: &[(&str, &str)]) -> Option<Value> {
        let query = form_urlencoded::Serializer::new(String::new()).extend_pairs(query).finish();
        let body = self.place.run(|| get(ADDRESS, &format!("/api/v1/{path}?{query}")))?;
        serde_json::from_str(&body).ok()
    }

    /// The rules with their state.
    pub(super) fn rules(&self) -> Vec<Value> {
        let answer = self.api("rules", &[]).unwrap_or_default();
        let groups = answer["data"]["groups"].as_array().into_iter().flatten();
        groups.flat_map(|group| group["rules"].as_array().into_iter().flatten().cloned()).collect()
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        if let Err(error) = self.process.kill().and_then(|()| self.process.wait()) {
            eprintln!("Prometheus: {error}");
        }
    }
}
