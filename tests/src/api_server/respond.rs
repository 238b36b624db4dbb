//! Requests and answers: a page of a list, a watch, or a written event.

use std::{collections::HashMap, io, time::Instant};

use http_body_util::{BodyExt as _, Full, combinators::BoxBody};
use hyper::{Method, Request, Response, StatusCode, body::Bytes};
use serde_json::{Value, json};

use super::{
    Asked, Fault, Kind, Objects, Of, Recorded, faults, locked,
    selector::Selector,
    store::Store,
    watching::{self, Watch},
};

/// The body of an answer. An error breaks the connection at that point.
pub type Body = BoxBody<Bytes, io::Error>;

/// The default number of objects of a page.
const PAGE: usize = usize::MAX;

impl Objects {
    /// Answers one request. This is the whole server, without a network.
    ///
    /// An error is a connection that breaks without an answer.
    pub async fn respond<B>(&self, request: Request<B>) -> io::Result<Response<Body>>
    where
        B: hyper::body::Body<Error: std::fmt::Debug>,
    {
        let (head, body) = request.into_parts();
        let path = head.uri.path();
        let query: HashMap<String, String> =
            form_urlencoded::parse(head.uri.query().unwrap_or_default().as_bytes()).into_owned().collect();
        let (within, everywhere) = namespace(path);
        let Some(kind) = Kind::ALL.into_iter().find(|kind| kind.path() == everywhere) else {
            if path.ends_with("/events") || path.contains("/events/") {
                let body = body.collect().await.expect("the request's body").to_bytes();
                return Ok(self.record(&head.method, path, &body));
            }
            return Ok(status(StatusCode::NOT_FOUND, "NotFound", &format!("the double has no {path}")));
        };
        if head.method != Method::GET {
            let message = "the double only reads these";
            return Ok(status(StatusCode::METHOD_NOT_ALLOWED, "MethodNotAllowed", message));
        }
        let query = match Query::read(&query) {
            Ok(query) => Query { selector: query.selector.within(within), ..query },
            Err(message) => return Ok(status(StatusCode::BAD_REQUEST, "BadRequest", &message)),
        };
        let of = match &query {
            Query { watch: true, .. } => Of::Watches,
            Query { token: Some(_), .. } => Of::LaterPages,
            Query { .. } => Of::Lists,
        };
        let fault = self.draw(of, kind);
        let answer = if query.watch {
            self.watch(kind, &query)
        } else {
            self.page(kind, &query, fault == Some(Fault::Lag))
        };
        let bytes = if query.watch { 0 } else { hyper::body::Body::size_hint(answer.body()).lower() };
        locked(&self.0.journal).asked.push(Asked {
            kind,
            watch: query.watch,
            version: query.version,
            status: match fault {
                Some(Fault::Status(code)) => code,
                Some(Fault::Refuse | Fault::Silence) => 0,
                _ => answer.status().as_u16(),
            },
            bytes: bytes.try_into().unwrap_or(usize::MAX),
            at: Instant::now(),
        });
        match fault {
            Some(fault) => faults::spoil(fault, of, answer).await,
            None => Ok(answer),
        }
    }

    fn page(&self, kind: Kind, query: &Query, lags: bool) -> Response<Body> {
        // `<version>-<number of the list>-<objects so far>`
        let token: Option<Vec<u64>> =
            query.token.as_ref().map(|token| token.split('-').filter_map(|part| part.parse().ok()).collect());
        let mut pages = locked(&self.0.pages);
        let (version, number, start, items) = match token.as_deref() {
            None => {
                let frozen = if lags { self.frozen() } else { None };
                let list = |store: &Store| (store.version(), store.list(kind, &query.selector));
                let (version, items) = frozen.as_ref().map_or_else(|| list(&locked(&self.0.store)), list);
                (version, pages.keep(items.into()), 0, pages.newest())
            }
            Some(&[version, number, start]) => match pages.of(number) {
                Some(items) => (version, number, usize::try_from(start).unwrap_or(usize::MAX), items),
                None => return gone("the provided continue parameter is too old"),
            },
            Some(_) => {
                return status(StatusCode::BAD_REQUEST, "BadRequest", "not a continue token of the double");
            }
        };
        let start = start.min(items.len());
        let end = start.saturating_add(query.limit).min(items.len());
        let left = items.len() - end;
        let token = (left > 0).then(|| (format!("{version}-{number}-{end}"), left));
        answer(StatusCode::OK, full(list(kind, version, &items[start..end], token)))
    }

    /// Every page of a list of this kind, as a client with this limit and without selectors gets them.
    pub fn pages(&self, kind: Kind, limit: usize) -> Vec<Bytes> {
        let store = locked(&self.0.store);
        let items = store.list(kind, &Selector::default());
        items.chunks(limit).map(|page| list(kind, store.version(), page, None).into()).collect()
    }

    fn watch(&self, kind: Kind, query: &Query) -> Response<Body> {
        let from = query.version.unwrap_or_else(|| self.version());
        if locked(&self.0.store).since(from).is_none() {
            return gone("too old resource version");
        }
        let Query { selector, bookmarks, seconds, .. } = query;
        let watch =
            Watch { kind, selector: selector.clone(), bookmarks: *bookmarks, seconds: *seconds, from };
        answer(StatusCode::OK, watching::start(self.clone(), watch))
    }

    fn record(&self, method: &Method, path: &str, body: &[u8]) -> Response<Body> {
        let Ok(object) = serde_json::from_slice::<Value>(body) else {
            return status(StatusCode::BAD_REQUEST, "BadRequest", "not JSON");
        };
        let written = Recorded { method: method.to_string(), path: path.to_owned(), object: object.clone() };
        locked(&self.0.journal).recorded.push(written);
        let code = if *method == Method::POST { StatusCode::CREATED } else { StatusCode::OK };
        answer(code, full(object.to_string()))
    }
}

/// The namespace in a path, and the path of the same kind in all namespaces.
fn namespace(path: &str) -> (Option<&str>, String) {
    let parts = path.split_once("/namespaces/").and_then(|(head, rest)| {
        let (namespace, kind) = rest.split_once('/')?;
        Some((namespace, format!("{head}/{kind}")))
    });
    parts.map_or_else(|| (None, path.to_owned()), |(namespace, path)| (Some(namespace), path))
}

/// The parameters of a request for a kind.
struct Query {
    watch: bool,
    bookmarks: bool,
    selector: Selector,
    limit: usize,
    token: Option<String>,
    version: Option<u64>,
    seconds: Option<u64>,
}

impl Query {
    fn read(query: &HashMap<String, String>) -> Result<Self, String> {
        let text = |name: &str| query.get(name).map(String::as_str).unwrap_or_default();
        let number = |name: &str| -> Result<Option<u64>, String> {
            let some = query.get(name).filter(|text| !text.is_empty());
            some.map(|text| text.parse().map_err(|_| format!("{name}={text} is no number"))).transpose()
        };
        let limit = number("limit")?.filter(|limit| *limit > 0);
        Ok(Self {
            watch: matches!(text("watch"), "1" | "true"),
            bookmarks: matches!(text("allowWatchBookmarks"), "1" | "true"),
            selector: Selector::parse(text("labelSelector"), text("fieldSelector"))?,
            limit: limit.map_or(PAGE, |limit| limit.try_into().unwrap_or(PAGE)),
            token: query.get("continue").filter(|token| !token.is_empty()).cloned(),
            // 0 means "any".
            version: number("resourceVersion")?.filter(|version| *version > 0),
            seconds: number("timeoutSeconds")?,
        })
    }
}

/// A page of a list; `token` is the `continue` of the next one, and how many objects are left.
fn list(kind: Kind, version: u64, items: &[Bytes], token: Option<(String, usize)>) -> Vec<u8> {
    let mut metadata = json!({"resourceVersion": version.to_string()});
    if let Some((token, left)) = token {
        metadata["continue"] = json!(token);
        metadata["remainingItemCount"] = json!(left);
    }
    let (api_version, name) = kind.type_meta();
    let head = json!({"kind": format!("{name}List"), "apiVersion": api_version, "metadata": metadata});
    let mut text = head.to_string().into_bytes();
    text.pop();
    text.extend_from_slice(br#","items":["#);
    for (number, item) in items.iter().enumerate() {
        if number > 0 {
            text.push(b',');
        }
        text.extend_from_slice(item);
    }
    text.extend_from_slice(b"]}");
    text
}

fn gone(message: &str) -> Response<Body> {
    status(StatusCode::GONE, "Expired", message)
}

/// A `Status` object, the body of an error.
pub(super) fn status(code: StatusCode, reason: &str, message: &str) -> Response<Body> {
    let body = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "message": message, "reason": reason, "code": code.as_u16()});
    answer(code, full(body.to_string()))
}

fn answer(code: StatusCode, body: Body) -> Response<Body> {
    let answer = Response::builder().status(code).header("content-type", "application/json").body(body);
    answer.expect("a response of constants")
}

fn full(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).map_err(|never| match never {}).boxed()
}
