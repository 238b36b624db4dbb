//! Long-lived connections from outside through every address of the Service.

use std::net::IpAddr;

use anyhow::{Result, ensure};

use super::{TwoNodes, ways_in};
use crate::traffic::{Answer, Conversation, connect_from};

/// They have a client address of their own: two connections from one client port through two frontends to the same
/// endpoint cannot coexist.
const SOURCES: [&str; 2] = ["192.0.2.101", "2001:db8:192::101"];

/// Connections, each with its first answer.
#[derive(Debug)]
pub struct LongLived(Vec<(Conversation, Answer)>);

impl LongLived {
    /// Begins so many through each address.
    ///
    /// # Errors
    /// When one of them has no answer.
    pub fn begin(nodes: &TwoNodes, each: usize) -> Result<Self> {
        let [v4, v6] = SOURCES;
        let lines = format!("addr add {v4}/24 dev uplink\naddr add {v6}/64 dev uplink nodad\n");
        nodes.outside().namespace().ip_batch(&lines)?;
        let mut all = Vec::new();
        for way in ways_in() {
            let source: IpAddr = if way.tcp.is_ipv4() { v4 } else { v6 }.parse()?;
            for _ in 0..each {
                let mut connection =
                    Conversation::over(nodes.outside().run(|| connect_from(source, way.tcp))?)?;
                let answer = connection.ask()?;
                all.push((connection, answer));
            }
        }
        Ok(Self(all))
    }

    /// Whether each goes on with its endpoint, under its client's address.
    ///
    /// # Errors
    /// When one is broken, or another one answers.
    pub fn check(&mut self) -> Result<()> {
        for (connection, first) in &mut self.0 {
            let answer = connection.ask()?;
            ensure!(answer == *first, "{answer:?} instead of {first:?}");
        }
        Ok(())
    }
}
