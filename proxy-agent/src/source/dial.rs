//! Connects to the API server, bypassing the installed Services or through them.
//!
//! A service proxy whose own connection went through its maps could not repair them once they are wrong. So the agent
//! marks its sockets ([`MarkSocket`]) and the socket programs leave them alone: a configured address (`--server`, a
//! kubeconfig) always bypasses the installed Services. The pod's service account names the one address that needs a
//! service proxy (`KUBERNETES_SERVICE_HOST`, a ClusterIP): the agent tries it through the installed Services first, and
//! bypasses them if no TLS connection results, since another service proxy may still serve it.

use std::{
    fmt, io,
    net::SocketAddr,
    os::fd::{AsFd as _, BorrowedFd},
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use futures_util::future::BoxFuture;
use hyper::Uri;
use hyper_util::rt::TokioIo;
use socket2::{SockRef, TcpKeepalive};
use tokio::{
    net::{TcpSocket, TcpStream, lookup_host},
    time::timeout,
};
use tower::{BoxError, Service, ServiceExt as _};
use tracing::{debug, info, warn};

/// How long one address may take.
const ADDRESS: Duration = Duration::from_secs(10);
/// How long one way may take while there is another, TLS included.
const WAY: Duration = Duration::from_secs(5);
/// How long the last one may take.
const LAST_WAY: Duration = Duration::from_secs(30);
/// How long a server may leave what was sent unanswered before the connection is given up.
const SILENCE: Duration = Duration::from_secs(30);

/// A way to an address.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Way {
    /// Through the installed Services, like every process.
    Through,
    /// With sockets that the socket programs leave alone.
    Past,
}

impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Through => "through the installed Services",
            Self::Past => "bypassing the installed Services",
        })
    }
}

/// The ways to an API server in the order in which they are tried. `service_account` is the host of the pod's
/// service account, if this is a pod.
pub(super) fn ways(server: &Uri, service_account: Option<&str>) -> &'static [Way] {
    let bare = |host: &str| host.trim_matches(['[', ']']).to_ascii_lowercase();
    let cluster_ip = service_account.map(bare);
    if server.host().map(bare).is_some_and(|host| Some(host) == cluster_ip) {
        &[Way::Through, Way::Past]
    } else {
        &[Way::Past]
    }
}

/// Marks a TCP socket before it connects, so that the socket programs leave it alone.
pub type MarkSocket = dyn Fn(BorrowedFd<'_>) -> Result<(), BoxError> + Send + Sync;

/// Makes TCP connections, on marked sockets if it has a [`MarkSocket`].
#[derive(Clone)]
pub(super) struct Dial(pub(super) Option<Arc<MarkSocket>>);

impl Dial {
    async fn connect(self, server: Uri) -> io::Result<TokioIo<TcpStream>> {
        let host = server.host().ok_or_else(|| io::Error::other("the API server's address names no host"))?;
        let default = if server.scheme_str() == Some("http") { 80 } else { 443 };
        let port = server.port_u16().unwrap_or(default);
        let mut failed = None;
        for address in lookup_host((host.trim_matches(['[', ']']), port)).await? {
            let late = || io::Error::new(io::ErrorKind::TimedOut, format!("no answer within {ADDRESS:?}"));
            match timeout(ADDRESS, self.to(address)).await.unwrap_or_else(|_| Err(late())) {
                Ok(stream) => return Ok(TokioIo::new(stream)),
                Err(error) => failed = Some(io::Error::new(error.kind(), format!("{address}: {error}"))),
            }
        }
        Err(failed.unwrap_or_else(|| io::Error::other(format!("{host} resolves to no address"))))
    }

    async fn to(&self, address: SocketAddr) -> io::Result<TcpStream> {
        let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
        socket.set_nodelay(true)?;
        // A server that lost its power says nothing; a watch would wait for it.
        let options = SockRef::from(&socket);
        options.set_tcp_keepalive(&TcpKeepalive::new().with_time(SILENCE / 2).with_interval(SILENCE / 6))?;
        options.set_tcp_user_timeout(Some(SILENCE))?;
        if let Some(mark) = &self.0
            && let Err(error) = mark(socket.as_fd())
        {
            warn!(%error, "cannot mark the socket to the API server: the connection goes through the Services \
                           that this agent installs");
        }
        socket.connect(address).await
    }
}

impl Service<Uri> for Dial {
    type Response = TokioIo<TcpStream>;
    type Error = io::Error;
    type Future = BoxFuture<'static, io::Result<Self::Response>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, server: Uri) -> Self::Future {
        Box::pin(self.clone().connect(server))
    }
}

/// Tries one connector after the other, each with all that makes a connection (TLS included).
#[derive(Clone)]
pub(super) struct InTurn<C>(pub(super) Vec<(Way, C)>);

impl<C> Service<Uri> for InTurn<C>
where
    C: Service<Uri, Error = BoxError> + Clone + Send + Sync + 'static,
    C::Response: Send,
    C::Future: Send,
{
    type Response = C::Response;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<C::Response, BoxError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, server: Uri) -> Self::Future {
        let Self(mut connectors) = self.clone();
        Box::pin(async move {
            let Some((last, connector)) = connectors.pop() else {
                return Err("no connector is configured".into());
            };
            let detour = !connectors.is_empty();
            for (way, connector) in connectors {
                match timeout(WAY, connector.oneshot(server.clone())).await {
                    Ok(Ok(stream)) => return Ok(stream),
                    Ok(Err(error)) => debug!(%server, %way, error, "no connection"),
                    Err(_) => debug!(%server, %way, "no connection within {WAY:?}"),
                }
            }
            let stream = match timeout(LAST_WAY, connector.oneshot(server.clone())).await {
                Ok(connected) => connected?,
                Err(_) => return Err(format!("no connection to {server} within {LAST_WAY:?}").into()),
            };
            if detour {
                info!(%server, "connected to the API server {last}, after the other way failed");
            }
            Ok(stream)
        })
    }
}

#[cfg(test)]
#[path = "dial_tests.rs"]
mod tests;
