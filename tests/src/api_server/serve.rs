//! The test double on a socket, with a thread of its own.

use std::{
    net::{Ipv4Addr, SocketAddr, TcpListener},
    ops::Deref,
    thread::JoinHandle,
};

use anyhow::{Context as _, Result};
use hyper::{server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::sync::oneshot;

use super::Objects;
use crate::namespace::Namespace;

/// A server that runs until it is dropped, and ends its connections then. It dereferences to its [`Objects`].
#[derive(Debug)]
pub struct ApiServer {
    objects: Objects,
    address: SocketAddr,
    running: Option<Running>,
}

#[derive(Debug)]
struct Running {
    stop: oneshot::Sender<()>,
    thread: JoinHandle<()>,
}

impl ApiServer {
    /// Serves these objects on a free loopback port of this network namespace.
    pub fn start(namespace: &Namespace, objects: Objects) -> Result<Self> {
        Self::start_at(namespace, (Ipv4Addr::LOCALHOST, 0).into(), objects)
    }

    /// Serves these objects on an address of this network namespace.
    pub fn start_at(namespace: &Namespace, address: SocketAddr, objects: Objects) -> Result<Self> {
        let listener = namespace.run(|| TcpListener::bind(address))?.context("listen")?;
        let address = listener.local_addr()?;
        let running = Some(Running::start(listener, objects.clone())?);
        Ok(Self { objects, address, running })
    }

    /// The value for `--server`.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Its objects, which it keeps sharing.
    pub fn objects(&self) -> Objects {
        self.objects.clone()
    }

    /// Stops abruptly, like a machine that is switched off; [`ApiServer::back`] brings it back.
    pub fn away(&mut self) {
        let Some(Running { stop, thread }) = self.running.take() else { return };
        drop(stop);
        if thread.join().is_err() {
            eprintln!("the test double of the API server panicked");
        }
    }

    /// Serves again at the same address, in the namespace in which it was started.
    pub fn back(&mut self, namespace: &Namespace) -> Result<()> {
        let listener = namespace.run(|| TcpListener::bind(self.address))?.context("listen again")?;
        self.running = Some(Running::start(listener, self.objects.clone())?);
        Ok(())
    }
}

impl Deref for ApiServer {
    type Target = Objects;

    fn deref(&self) -> &Objects {
        &self.objects
    }
}

impl Running {
    fn start(listener: TcpListener, objects: Objects) -> Result<Self> {
        listener.set_nonblocking(true)?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (stop, stopped) = oneshot::channel();
        let thread = std::thread::Builder::new().name("api-server".to_owned()).spawn(move || {
            runtime.block_on(async {
                tokio::select! {
                    () = accept(listener, objects) => {}
                    _ = stopped => {}
                }
            });
            // Dropping the runtime ends every connection and watch.
        })?;
        Ok(Self { stop, thread })
    }
}

impl Drop for ApiServer {
    fn drop(&mut self) {
        self.away();
    }
}

async fn accept(listener: TcpListener, objects: Objects) {
    let listener = tokio::net::TcpListener::from_std(listener).expect("a listener that does not block");
    loop {
        let Ok((stream, _)) = listener.accept().await else { continue };
        let _ = stream.set_nodelay(true);
        let objects = objects.clone();
        tokio::spawn(async move {
            let service = service_fn(|request| {
                let objects = objects.clone();
                async move { objects.respond(request).await }
            });
            // An error means that the client disconnected, or that the body was to break off.
            let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
        });
    }
}
