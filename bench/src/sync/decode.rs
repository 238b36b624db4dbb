//! Decoding the lists that the agent reads, and nothing else.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use proxy_agent::model::wire;
use serde::{Deserialize, de::DeserializeOwned};
use sidestep_tests::api_server::{ApiServer, Kind};

#[derive(Deserialize)]
struct List<T> {
    items: Vec<T>,
}

/// How long it takes to decode what the server would list, page by page as the agent reads it.
pub(super) fn time(server: &ApiServer) -> Result<Duration> {
    Ok(of::<wire::Service>(server, Kind::Service)? + of::<wire::EndpointSlice>(server, Kind::EndpointSlice)?)
}

fn of<T: DeserializeOwned>(server: &ApiServer, kind: Kind) -> Result<Duration> {
    let pages = server.pages(kind, 500);
    let start = Instant::now();
    let mut count = 0;
    for page in &pages {
        let List { items } = serde_json::from_slice::<List<T>>(page)?;
        count += items.len();
    }
    let time = start.elapsed();
    ensure!(count > 0, "no objects");
    Ok(time)
}
