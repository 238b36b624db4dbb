//! A real API server with its etcd, from the folder that `KUBEBUILDER_ASSETS` names (as envtest has it).
//!
//! Both run in a network namespace, keep everything in a directory of their own, and end when the value is dropped. The
//! token gives all permissions.
//!
//! This was written against the flags of kube-apiserver 1.29 to 1.36 and envtest's own use of them; no machine on which
//! it was developed had those programs.

use std::{
    fs::{self, File},
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::Arc,
};

use anyhow::{Context, Result, ensure};

use crate::{kept::Kept, lab::Lab, namespace::Namespace, topology::NODE_V4};

/// The variable that names the folder with `etcd` and `kube-apiserver`.
pub const ASSETS: &str = "KUBEBUILDER_ASSETS";
/// The token of a user in `system:masters`.
const TOKEN: &str = "sidestep-test";

/// The folder with both programs; an error says what is missing.
pub fn assets() -> Result<PathBuf, String> {
    let folder = std::env::var_os(ASSETS).filter(|folder| !folder.is_empty());
    let folder = PathBuf::from(folder.ok_or_else(|| format!("{ASSETS} is not set"))?);
    for program in ["etcd", "kube-apiserver"] {
        if !folder.join(program).is_file() {
            return Err(format!("{ASSETS}={} contains no {program}", folder.display()));
        }
    }
    if !Command::new("openssl")
        .arg("version")
        .stdout(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
    {
        return Err("openssl, which makes the key of service accounts, is missing".to_owned());
    }
    Ok(folder)
}

/// An API server and its etcd; ended on drop, the API server first.
#[derive(Debug)]
pub struct ControlPlane {
    _api_server: Kept,
    _etcd: Kept,
    url: String,
    kubeconfig: PathBuf,
    log: PathBuf,
}

impl ControlPlane {
    /// Starts both on the lab's node. They need some seconds before they answer.
    pub fn start(assets: &Path, lab: &Lab) -> Result<Self> {
        let directory = lab.run_directory().join("control-plane");
        fs::create_dir_all(&directory)?;
        let path = |name: &str| directory.join(name);
        let text = |name: &str| path(name).display().to_string();
        let namespace = &lab.node().namespace;
        let [clients, peers, secure] = free_ports(namespace)?;

        let etcd_url = format!("http://127.0.0.1:{clients}");
        let peer_url = format!("http://127.0.0.1:{peers}");
        let mut etcd = Command::new(assets.join("etcd"));
        etcd.arg(format!("--data-dir={}", text("etcd")))
            .arg(format!("--listen-client-urls={etcd_url}"))
            .arg(format!("--advertise-client-urls={etcd_url}"))
            .arg(format!("--listen-peer-urls={peer_url}"))
            .arg(format!("--initial-advertise-peer-urls={peer_url}"))
            .arg(format!("--initial-cluster=default={peer_url}"))
            .arg("--unsafe-no-fsync=true");
        let etcd = start(etcd, &path("etcd.log"), namespace)?;

        let key = Command::new("openssl").args(["genrsa", "-out", &text("sa.key"), "2048"]).output()?;
        ensure!(key.status.success(), "openssl genrsa: {}", String::from_utf8_lossy(&key.stderr));
        fs::write(path("tokens.csv"), format!("{TOKEN},test,test,system:masters\n"))?;
        let mut api_server = Command::new(assets.join("kube-apiserver"));
        api_server
            .arg(format!("--etcd-servers={etcd_url}"))
            .arg(format!("--cert-dir={}", text("certificates")))
            .arg("--bind-address=127.0.0.1")
            .arg(format!("--secure-port={secure}"))
            // Not loopback: the API server writes it into its own EndpointSlice.
            .arg(format!("--advertise-address={NODE_V4}"))
            .arg("--service-cluster-ip-range=10.96.0.0/16")
            .arg("--authorization-mode=AlwaysAllow")
            .arg(format!("--token-auth-file={}", text("tokens.csv")))
            .arg("--disable-admission-plugins=ServiceAccount")
            .arg("--service-account-issuer=https://sidestep.test")
            .arg(format!("--service-account-key-file={}", text("sa.key")))
            .arg(format!("--service-account-signing-key-file={}", text("sa.key")));
        let log = path("kube-apiserver.log");
        let api_server = start(api_server, &log, namespace)?;

        let url = format!("https://127.0.0.1:{secure}");
        let kubeconfig = path("kubeconfig");
        fs::write(&kubeconfig, kubeconfig_text(&url))?;
        Ok(Self { _api_server: api_server, _etcd: etcd, url, kubeconfig, log })
    }

    /// The API server's address.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The kubeconfig with the address and the token.
    pub fn kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }

    /// The API server's log.
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }
}

fn start(mut command: Command, log: &Path, namespace: &Arc<Namespace>) -> Result<Kept> {
    let log = File::create(log).with_context(|| log.display().to_string())?;
    command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
    let namespace = Arc::clone(namespace);
    Kept::start(command, move || namespace.enter())
}

/// The ports, which are free: no other server runs in the namespace.
fn free_ports(namespace: &Namespace) -> Result<[u16; 3]> {
    let listeners = namespace.run(|| [(); 3].map(|()| TcpListener::bind("127.0.0.1:0")))?;
    let mut ports = [0; 3];
    for (port, listener) in ports.iter_mut().zip(listeners) {
        *port = listener?.local_addr()?.port();
    }
    Ok(ports)
}

/// The API server has a self-signed certificate.
fn kubeconfig_text(url: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Config\ncurrent-context: test\nclusters:\n- name: test\n  cluster:\n    server: {url}\n    \
         insecure-skip-tls-verify: true\nusers:\n- name: test\n  user:\n    token: {TOKEN}\ncontexts:\n- name: test\n  \
         context:\n    cluster: test\n    user: test\n"
    )
}
