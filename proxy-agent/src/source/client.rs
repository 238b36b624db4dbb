//! A client of the API server: where it is, who we are, and how to get there.

use std::{path::Path, sync::Arc};

use ::kube::{
    Client, Config,
    client::{ClientBuilder, ConfigExt as _, retry::RetryPolicy},
    config::{KubeConfigOptions, Kubeconfig, KubeconfigError},
};
use hyper_util::rt::TokioExecutor;
use tower::{BoxError, ServiceBuilder, retry::RetryLayer};

use super::{
    dial::{Dial, InTurn, MarkSocket, Way, ways},
    secrets::{told, without_user},
};
use crate::causes::Causes;

/// Where a pod finds its service account's API server: a ClusterIP.
const SERVICE_ACCOUNT_HOST: &str = "KUBERNETES_SERVICE_HOST";

/// Why no connection to an API server could be made.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Neither a kubeconfig nor a service account.
    #[error("cannot find the API server: neither a kubeconfig nor a pod's service account names it: {}", Causes(.0))]
    Configuration(::kube::config::InferConfigError),
    /// The kubeconfig that was asked for cannot be used.
    #[error("cannot use the kubeconfig {path}: {reason}")]
    Kubeconfig {
        /// The file.
        path: String,
        /// What is wrong with it, without its text.
        reason: String,
    },
    /// The address given is not one.
    #[error("`{server}` is not the address of an API server (such as https://10.0.0.1:6443): {reason}")]
    Server {
        /// What was given.
        server: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Proxies are not supported.
    #[error(
        "the kubeconfig names the proxy {0} for the API server, but sidestep cannot use proxies: pass an \
         address that works without one with --server"
    )]
    Proxy(String),
    /// The client cannot be built.
    #[error("cannot create a client for the API server: {}", Causes(.0))]
    Client(::kube::Error),
}

/// A client from the kubeconfig (that of `path`, or in the usual places) or the pod's service account. `server`
/// goes straight to an API server instead of the address found there (CF-1: without a service proxy the
/// in-cluster address does not work). With `mark`, connections bypass the tables ([`super::dial`]).
pub async fn connect(
    server: Option<&str>,
    path: Option<&Path>,
    mark: Option<Arc<MarkSocket>>,
) -> Result<Client, Error> {
    let found = match path {
        None => inferred().await,
        Some(path) => from_file(path).await,
    };
    let mut config = match server {
        None => found?,
        Some(server) => {
            let reason = |reason| Error::Server { server: without_user(server), reason };
            let address: hyper::Uri =
                without_user(server).parse().map_err(|error| reason(format!("{error}")))?;
            if address.scheme().is_none() {
                return Err(reason("it does not begin with https://".to_owned()));
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
    if let Some(proxy) = config.proxy_url {
        return Err(Error::Proxy(without_user(&proxy.to_string())));
    }
    // A user in the address is not used, but would be in every message about a request.
    if let Ok(address) = without_user(&config.cluster_url.to_string()).parse() {
        config.cluster_url = address;
    }
    client(&config, mark.as_ref()).map_err(Error::Client)
}

/// CF-1: the kubeconfig in the usual places, or the pod's service account.
async fn inferred() -> Result<Config, Error> {
    if let Err(error @ KubeconfigError::Parse(_)) = Kubeconfig::read() {
        return Err(Error::Kubeconfig {
            path: "of $KUBECONFIG or ~/.kube/config".to_owned(),
            reason: told(&error),
        });
    }
    Config::infer().await.map_err(Error::Configuration)
}

/// Whether the kubeconfig (as [`connect`] finds it) gets credentials by executing a program.
pub fn runs_programs(path: Option<&Path>) -> bool {
    let file = path.map_or_else(Kubeconfig::read, Kubeconfig::read_from);
    let users = file.map(|file| file.auth_infos).unwrap_or_default();
    let mut infos = users.into_iter().filter_map(|user| user.auth_info);
    infos.any(|info| info.exec.is_some() || info.auth_provider.is_some())
}

/// CF-1: a kubeconfig that was asked for by name.
async fn from_file(path: &Path) -> Result<Config, Error> {
    let described =
        |error: KubeconfigError| Error::Kubeconfig { path: path.display().to_string(), reason: told(&error) };
    let file = Kubeconfig::read_from(path).map_err(described)?;
    Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await.map_err(described)
}

/// A kube client for this configuration, on connections of our own.
fn client(config: &Config, mark: Option<&Arc<MarkSocket>>) -> Result<Client, ::kube::Error> {
    let service_account = std::env::var(SERVICE_ACCOUNT_HOST).ok();
    let mut connectors = Vec::new();
    for way in ways(&config.cluster_url, service_account.as_deref()) {
        let dial = Dial(mark.filter(|_| *way == Way::Past).cloned());
        connectors.push((*way, config.rustls_https_connector_with_connector(dial)?));
    }
    let http = hyper_util::client::legacy::Client::builder(TokioExecutor::new()).build(InTurn(connectors));
    let service = ServiceBuilder::new()
        .layer(config.base_uri_layer())
        .option_layer(config.default_retry.then(|| RetryLayer::new(RetryPolicy::server_retry())))
        .option_layer(config.auth_layer()?)
        .layer(config.extra_headers_layer()?)
        .map_err(BoxError::from)
        .service(http);
    Ok(ClientBuilder::new(service, config.default_namespace.clone()).build())
}
