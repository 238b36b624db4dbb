//! Answering HTTP requests.
//!
//! By hand around hyper: a handful of paths, each answered to a GET, need no framework.

use std::{convert::Infallible, future::Future, pin::pin, sync::Arc, time::Duration};

use http_body_util::Full;
use hyper::{
    Method, Request, Response, StatusCode,
    body::{Bytes, Incoming},
    header::{CONTENT_TYPE, HeaderValue},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    net::{TcpListener, TcpStream},
    task::{JoinSet, yield_now},
    time::{sleep, timeout},
};
use tracing::debug;

use super::guests::{Busy, Guests, Times};

/// An answer.
pub(super) type Answer = Response<Full<Bytes>>;

/// The longest question, with its headers: more is answered with 431. At least 8 KiB, says hyper.
const LONGEST: usize = 16 << 10;

/// The site at one listener.
pub(super) trait Site: Send + Sync + 'static {
    /// The answer to a GET of this path.
    fn answer(&self, path: &str) -> impl Future<Output = Answer> + Send;
}

/// Answers requests until it is dropped, which closes its connections.
pub(super) async fn serve<S: Site>(listener: TcpListener, site: Arc<S>, guests: Arc<Guests>) {
    let mut clients = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, address)) => {
                    let busy = Busy::default();
                    let task = clients.spawn(talk(stream, Arc::clone(&site), guests.times(), busy.clone()));
                    guests.admit(address.ip(), task, busy);
                    // Whoever has just come gets a turn before the next one takes its place.
                    yield_now().await;
                }
                // Too many open files, or a client that has gone: neither is helped by trying at once.
                Err(_) => sleep(Duration::from_millis(100)).await,
            },
            Some(_) = clients.join_next(), if !clients.is_empty() => {}
        }
    }
}

async fn talk<S: Site>(stream: TcpStream, site: Arc<S>, times: Times, busy: Busy) {
    let service = service_fn(|request: Request<Incoming>| {
        let (site, answering) = (Arc::clone(&site), busy.begin());
        async move {
            let answer = match *request.method() {
                Method::GET | Method::HEAD => site.answer(request.uri().path()).await,
                _ => text(StatusCode::METHOD_NOT_ALLOWED, "only GET\n"),
            };
            drop(answering);
            Ok::<_, Infallible>(answer)
        }
    });
    let mut server = http1::Builder::new();
    server.timer(TokioTimer::new()).header_read_timeout(times.question).max_buf_size(LONGEST);
    let mut connection = pin!(server.serve_connection(TokioIo::new(stream), service));
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = sleep(times.connection) => {
            // The answer at hand is the last one, and has to be taken.
            connection.as_mut().graceful_shutdown();
            match timeout(times.question, connection).await {
                Ok(ended) => ended,
                Err(_) => return,
            }
        }
    };
    if let Err(error) = ended {
        debug!(%error, "a connection to the agent's HTTP listeners failed");
    }
}

/// An answer of this type.
pub(super) fn answer(status: StatusCode, content_type: &'static str, body: impl Into<Bytes>) -> Answer {
    let mut answer = Response::new(Full::new(body.into()));
    *answer.status_mut() = status;
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    answer
}

/// An answer in words.
pub(super) fn text(status: StatusCode, body: impl Into<Bytes>) -> Answer {
    answer(status, "text/plain; charset=utf-8", body)
}

/// An answer in JSON.
pub(super) fn json(status: StatusCode, body: &impl serde::Serialize) -> Answer {
    match serde_json::to_vec(body) {
        Ok(body) => answer(status, "application/json", body),
        Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
    }
}

/// There is nothing at this path.
pub(super) fn not_found() -> Answer {
    text(StatusCode::NOT_FOUND, "404 page not found\n")
}

/// 200 or 503.
pub(super) const fn status(good: bool) -> StatusCode {
    if good { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }
}
