//! An event with names, as a line for people or as JSON.

use std::{fmt, net::SocketAddr, time::Duration};

use jiff::Timestamp;
use proxy_common::{Address, Event, FrontendKey, Happening, LastRefusal, RefusedPair, connection::Seen};
use serde::Serialize;

use super::{
    guide::{Guide, socket},
    wanted::Wanted,
};
use crate::{
    commands::{
        clock::{self, Clock, before},
        names,
    },
    dataplane::{Error, Tables},
};

/// The thread of the agent that connects sockets again whose endpoint is gone.
const MOVES: &str = "stale";

/// A client, as far as it is known.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
struct Whom {
    /// The Pod, or `node`.
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    /// Of packets.
    #[serde(skip_serializing_if = "Option::is_none")]
    address: Option<String>,
    /// Of sockets: the cookie of their network namespace.
    #[serde(skip_serializing_if = "Option::is_none", rename = "netnsCookie")]
    namespace: Option<u64>,
    /// The process that called, in the node's process namespace.
    #[serde(skip_serializing_if = "Option::is_none")]
    process: Option<u32>,
    /// The name of its thread.
    #[serde(skip_serializing_if = "Option::is_none")]
    thread: Option<String>,
}

/// One event.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Told {
    time: Timestamp,
    event: &'static str,
    client: Whom,
    service: Option<String>,
    frontend: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    endpoint: Option<SocketAddr>,
    /// The endpoint's Pod, if it is on this node.
    #[serde(skip_serializing_if = "Option::is_none")]
    pod: Option<String>,
    /// Of a refusal.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'static str>,
    /// Of a reset: the side that sent it.
    #[serde(skip_serializing_if = "Option::is_none")]
    by: Option<&'static str>,
    /// Of what was recorded: how often it happened, and when first. `time` is when it happened last.
    #[serde(skip_serializing_if = "Option::is_none")]
    times: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    since: Option<Timestamp>,
}

impl Told {
    pub(super) fn of(event: &Event, guide: &mut Guide, clock: Clock) -> Self {
        let frontend = FrontendKey::new(event.frontend, event.frontend_port, event.protocol);
        let endpoint = socket(event.endpoint, event.endpoint_port.get());
        let is_caller_known = event.process != 0;
        let end = event.thread.iter().position(|byte| *byte == 0).unwrap_or(event.thread.len());
        let client = Whom {
            thread: is_caller_known.then(|| String::from_utf8_lossy(&event.thread[..end]).into_owned()),
            process: is_caller_known.then_some(event.process),
            ..Whom::of(event.client, event.client_port.get(), guide)
        };
        let happening = Happening::from_number(event.happening.into());
        let is_moved = happening == Some(Happening::Chosen)
            && Some(event.process) == guide.agent()
            && client.thread.as_deref() == Some(MOVES);
        let is_refused = happening == Some(Happening::Refused);
        Self {
            time: clock.at(event.time),
            event: if is_moved { "moved" } else { happening.map_or("unknown", Happening::name) },
            client,
            service: guide.service_of(event.service, &frontend),
            frontend: frontend.to_string(),
            endpoint,
            pod: endpoint.and_then(|endpoint| guide.pod(endpoint.ip())),
            reason: is_refused.then(|| proxy_common::last_refusals::name_of(event.what)),
            by: (happening == Some(Happening::Reset)).then(|| side(event.what)),
            times: None,
            since: None,
        }
    }

    fn recorded(pair: &RefusedPair, refusal: LastRefusal, guide: &mut Guide, clock: Clock) -> Self {
        Self {
            time: clock.at(refusal.last),
            event: Happening::Refused.name(),
            client: Whom::of(pair.client, 0, guide),
            // Its index may stand for another Service by now.
            service: guide.service_at(&pair.frontend),
            frontend: pair.frontend.to_string(),
            endpoint: None,
            pod: None,
            reason: Some(pair.name()),
            by: None,
            times: Some(refusal.count),
            since: Some(clock.at(refusal.first)),
        }
    }
}

/// What was recorded of the time until now, the oldest first.
pub(super) fn recorded(guide: &mut Guide, wanted: &Wanted, time: Duration) -> Result<Vec<Told>, Error> {
    let mut all = Tables::last_refusals(guide.pin_dir())?;
    let (clock, begin) = (Clock::now(), before(Timestamp::now(), time));
    all.retain(|(pair, refusal)| wanted.has_recorded(pair, guide) && clock.at(refusal.last) >= begin);
    all.sort_unstable_by_key(|(_, refusal)| refusal.last);
    Ok(all.iter().map(|(pair, refusal)| Told::recorded(pair, *refusal, guide, clock)).collect())
}

impl Whom {
    /// With a port, unless that is 0: not known.
    fn of(client: Address, port: u16, guide: &mut Guide) -> Self {
        if let Some(cookie) = client.namespace() {
            return Self { name: guide.client(cookie), namespace: Some(cookie), ..Self::default() };
        }
        let at = SocketAddr::new(client.into(), port);
        let address = if port == 0 { at.ip().to_string() } else { at.to_string() };
        Self { name: guide.pod(at.ip()), address: Some(address), ..Self::default() }
    }
}

/// Who reset a connection.
fn side(by: u32) -> &'static str {
    match u8::try_from(by) {
        Ok(Seen::BY_CLIENT) => "client",
        Ok(Seen::BY_ENDPOINT) => "endpoint",
        _ => "neither",
    }
}

impl fmt::Display for Whom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.name, &self.address, self.namespace) {
            (Some(name), Some(address), _) => write!(f, "{name} at {address}")?,
            (Some(name), None, _) => f.write_str(name)?,
            (None, Some(address), _) => f.write_str(address)?,
            (None, None, namespace) => f.write_str(&names::unknown(namespace.unwrap_or_default()))?,
        }
        match (&self.thread, self.process) {
            (Some(thread), Some(process)) => write!(f, " ({thread}[{process}])"),
            _ => Ok(()),
        }
    }
}

impl fmt::Display for Told {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { time, event, client, service, frontend, endpoint, pod, reason, by, times, since } = self;
        write!(f, "{} {event:<9} {client} -> ", time.strftime("%FT%T%.3fZ"))?;
        match service {
            Some(service) => write!(f, "{service} {frontend}")?,
            None => f.write_str(frontend)?,
        }
        if let Some(endpoint) = endpoint {
            write!(f, " -> {endpoint}")?;
        }
        if let Some(pod) = pod {
            write!(f, " (Pod {pod})")?;
        }
        if let Some(reason) = reason {
            write!(f, ": {reason}")?;
        }
        if let Some(by) = by {
            write!(f, ": by the {by}")?;
        }
        if let (Some(times @ 2..), Some(since)) = (times, since) {
            write!(f, ", {times} times since {}", clock::told(*since))?;
        }
        Ok(())
    }
}
