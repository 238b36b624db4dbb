//! Objects from an API server.
//!
//! One watch for each kind ([`follow`]), filtered by the server so that only what matters crosses the network. A
//! list that has to be taken again is a difference. While the server cannot be reached, what was last known stays.

use std::path::{Path, PathBuf};

use ::kube::{
    Client, Config,
    config::{KubeConfigOptions, Kubeconfig},
};
use tokio::sync::mpsc;

use super::{Batch, follow::follow, request::Requests, start_gate::StartGate};
use crate::model::wire;

/// Why no connection to an API server could be made.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Neither a kubeconfig nor a service account.
    #[error("neither a kubeconfig nor a service account of a pod says where the API server is: {0}")]
    Configuration(#[source] ::kube::config::InferConfigError),
    /// The kubeconfig that was asked for cannot be used.
    #[error("the kubeconfig {}: {error}", path.display())]
    Kubeconfig {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        error: ::kube::config::KubeconfigError,
    },
    /// The address given is not one.
    #[error("`{server}` is not the address of an API server (such as https://10.0.0.1:6443): {reason}")]
    Server {
        /// What was given.
        server: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The client cannot be built.
    #[error("cannot make a client of the API server: {0}")]
    Client(#[source] ::kube::Error),
}

/// A client from the kubeconfig (that of `path`, or in the usual places) or the pod's service account. `server` goes straight to an API server
/// instead of the address found there (CF-1: without a service proxy the in-cluster address does not work).
pub async fn connect(server: Option<&str>, path: Option<&Path>) -> Result<Client, Error> {
    let found = match path {
        None => Config::infer().await.map_err(Error::Configuration),
        Some(path) => from_file(path).await,
    };
    let config = match server {
        None => found?,
        Some(server) => {
            let reason = |reason| Error::Server { server: server.into(), reason };
            let address: hyper::Uri = server.parse().map_err(|error| reason(format!("{error}")))?;
            if address.scheme().is_none() {
                return Err(reason("it lacks https://".to_owned()));
            }
            match found {
                Ok(mut config) => {
                    config.cluster_url = address;
                    config
                }
                // A file that was asked for by name must not be missing silently.
                Err(error) if path.is_some() => return Err(error),
                Err(_) => Config::new(address),
            }
        }
    };
    Client::try_from(config).map_err(Error::Client)
}

/// CF-1: a kubeconfig that was asked for by name.
async fn from_file(path: &Path) -> Result<Config, Error> {
    let described = |error| Error::Kubeconfig { path: path.to_owned(), error };
    let file = Kubeconfig::read_from(path).map_err(described)?;
    Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await.map_err(described)
}

/// Watches everything that matters to the node of this name until nobody listens any more.
pub async fn run(client: Client, node_name: &str, events: mpsc::Sender<Batch>) {
    let gate = StartGate::new();
    let node = format!("metadata.name={node_name}");
    let services = Requests::<wire::Service>::new(
        client.clone(),
        Some("!service.kubernetes.io/service-proxy-name"), // IN-1
        Some("spec.clusterIP!=None"),
    );
    let slices = Requests::<wire::EndpointSlice>::new(
        client.clone(),
        Some("!service.kubernetes.io/headless"), // IN-3
        None,
    );
    let node = Requests::<wire::Node>::new(client, None, Some(&node)); // IN-5
    tokio::join!(
        follow(services, &gate, &events),
        follow(slices, &gate, &events),
        follow(node, &gate, &events),
    );
}

#[cfg(test)]
#[path = "kube_tests.rs"]
mod tests;
