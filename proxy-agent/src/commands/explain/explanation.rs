//! The answer, and how people read it.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    net::SocketAddr,
};

use serde::Serialize;

use super::{probe::Probe, refused::Refused};
use crate::commands::{counts, names::Pods};

/// The answer.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Explanation {
    /// Who and where the client is, if it was named as a pod.
    pub(super) client: Option<String>,
    pub(super) destination: String,
    /// Where this client's traffic to Services is translated.
    pub(super) path: String,
    pub(super) lookups: Vec<String>,
    pub(super) service: Option<String>,
    /// The Service's index.
    #[serde(skip)]
    pub(super) index: Option<u32>,
    pub(super) candidates: Vec<SocketAddr>,
    /// Candidates that see an address of the node instead of the client's.
    pub(super) masqueraded: Vec<SocketAddr>,
    /// Endpoints that serve, and get no new connections here: terminating, or left out by topology or policy. The tables do
    /// not tell which, and do not have those that do not serve.
    pub(super) unused: Vec<SocketAddr>,
    pub(super) decision: &'static str,
    pub(super) reason: Option<&'static str>,
    /// The rows of docs/kube-proxy-parity.md that require the refusal.
    pub(super) rows: &'static [&'static str],
    pub(super) endpoint: Option<SocketAddr>,
    /// Whether clients keep their endpoint.
    pub(super) affinity: bool,
    pub(super) because: String,
    /// How often this Service has refused clients, of all kinds, by reason.
    pub(super) refused_before: BTreeMap<&'static str, u64>,
    /// How often this client was refused at this address, the last first.
    pub(super) refused_client: Vec<Refused>,
    /// Who else was refused there in the last hour.
    pub(super) refused_others: BTreeSet<String>,
    /// What of this Service could not be used or installed.
    pub(super) problems: Vec<String>,
    /// What others do to this client's traffic: a sentence each.
    pub(super) beside: Vec<String>,
    /// What became of real connections, to the Service first (`--probe`).
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) probes: Vec<Probe>,
    /// Why there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) not_probed: Option<String>,
}

impl Explanation {
    /// Lines with titles, and with the names of Pods.
    pub(super) fn in_words(&self, pods: &Pods<'_>) -> String {
        let mut text = format!("{}\n", self.destination);
        let mut say = |title: &str, lines: Vec<String>| {
            if !lines.is_empty() {
                let _ = writeln!(text, "{title:<12}{}", lines.join("\n            "));
            }
        };
        let line = |line: &Option<String>| line.iter().cloned().collect::<Vec<_>>();
        say("client", line(&self.client));
        say("lookups", self.lookups.clone());
        say("path", if self.service.is_some() { vec![self.path.clone()] } else { Vec::new() });
        say("service", line(&self.service));
        let candidate = |address: &SocketAddr| {
            let is_elsewhere = self.masqueraded.contains(address);
            let note = if is_elsewhere { " (elsewhere by its EndpointSlice: masqueraded)" } else { "" };
            format!("{}{note}", pods.told(*address))
        };
        say("candidates", self.candidates.iter().map(candidate).collect());
        let unused = |address: &SocketAddr| {
            format!("{}: serves, but is terminating, or left out by topology or policy", pods.told(*address))
        };
        say("unused", self.unused.iter().map(unused).collect());
        say("decision", vec![format!("{}: {}", self.reason.unwrap_or(self.decision), self.because)]);
        if !self.rows.is_empty() {
            say("rows", vec![format!("{} (docs/kube-proxy-parity.md)", self.rows.join(", "))]);
        }
        say("endpoint", self.endpoint.iter().map(ToString::to_string).collect());
        say("refused", self.refused());
        say("problems", self.problems.clone());
        say("in the way", self.beside.clone());
        say("probe", self.probed(pods));
        text
    }

    /// Whom this client's Service and address refused so far.
    fn refused(&self) -> Vec<String> {
        /// How many others are named.
        const NAMED: usize = 3;
        let mut lines: Vec<String> = self.refused_client.iter().map(Refused::in_words).collect();
        let others: Vec<&str> = self.refused_others.iter().map(String::as_str).collect();
        if let Some(named) = others.get(..others.len().min(NAMED)).filter(|named| !named.is_empty()) {
            let more = others.len() - named.len();
            let rest = if more > 0 { format!(" and {more} more") } else { String::new() };
            lines.push(format!("others in the last hour: {}{rest}", named.join(", ")));
        }
        let all = counts(&self.refused_before, ", ");
        lines.extend(all.map(|all| format!("{all}, of all its clients so far")));
        lines
    }

    fn probed(&self, pods: &Pods<'_>) -> Vec<String> {
        if let Some(why) = &self.not_probed {
            return vec![format!("none: {why}")];
        }
        let mut lines: Vec<String> =
            self.probes.iter().map(|probe| format!("{}: {probe}", pods.told(probe.address))).collect();
        let Some(tried) = self.probes.len().checked_sub(1) else { return lines };
        let failed = self.probes.iter().skip(1).filter(|probe| probe.error.is_some()).count();
        let (all, share) = (self.candidates.len(), format!("{failed} of {tried} endpoints failed"));
        let own = self.probes.iter().skip(1).find(|probe| Some(probe.address) == self.endpoint);
        lines.push(match (own, failed) {
            (Some(own), _) if own.error.is_some() => format!("the client's own endpoint failed ({share})"),
            (Some(_), _) => format!("the client's own endpoint answers ({share})"),
            (None, 0) if tried < all => format!("the first {tried} of {all} endpoints answer"),
            (None, 0) => "every endpoint answers".to_owned(),
            (None, _) if failed == tried => "no endpoint answers".to_owned(),
            (None, _) if self.affinity => format!("{share}: which of them is this client's is not decided"),
            (None, _) => format!("{share}: expect it of that share of new connections"),
        });
        lines
    }
}
