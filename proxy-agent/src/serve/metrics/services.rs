//! Counts of each Service's clients, read from the maps, index by index.

use std::{collections::HashSet, fmt};

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric, MetricEncoder},
    metrics::{MetricType, counter::ConstCounter, gauge::ConstGauge},
};
use proxy_common::{FrontendKind, Reason, Service, ServiceCounters, ServiceRefusals, Span};

use super::super::health;
use crate::{
    dataplane::{SharedTables, Tables, Unanswered, identity, list_flows, unanswered, uptime},
    plan::ServicePortId,
};

/// All installed Service ports.
#[derive(Debug)]
pub(super) struct Services(pub(super) SharedTables);

/// Which clients of a Service a figure is about.
type Choice = fn(&Service) -> Span;

/// The metrics of one.
struct Row {
    index: u32,
    labels: [(&'static str, String); 5],
    record: Service,
    counted: ServiceCounters,
    refused: ServiceRefusals,
}

impl Services {
    /// The arrays are memory; only the name of an index that is used costs a system call.
    fn rows(tables: &Tables) -> Vec<Row> {
        // An index that nobody had in these tables has at most a generation.
        let is_used = |record: &Service| {
            *record != Service { generation: record.generation, ..bytemuck::Zeroable::zeroed() }
        };
        let used = |index| tables.services.load(index).filter(is_used);
        let rows = (0..tables.services.len()).filter_map(|index| {
            let record = used(index)?;
            let name = tables.names.get(&index, 0).ok()?;
            let (counted, refused) = (tables.counted(index), tables.refused(index));
            Some(Row { index, labels: labels(identity(&name)?), record, counted, refused })
        });
        rows.collect()
    }
}

fn labels(id: ServicePortId) -> [(&'static str, String); 5] {
    let ServicePortId { service, port, protocol, family } = id;
    [
        ("namespace", service.namespace().to_owned()),
        ("service", service.name().to_owned()),
        ("port", port.into()),
        ("protocol", protocol.to_string()),
        ("ip_family", health::name(family).to_owned()),
    ]
}

impl Collector for Services {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let tables = self.0.now();
        let rows = Self::rows(&tables);
        let mut per_service =
            |name, help, metric_type, value: &dyn Fn(&Row, MetricEncoder<'_>) -> fmt::Result| {
                let mut metric = encoder.encode_descriptor(name, help, None, metric_type)?;
                rows.iter().try_for_each(|row| value(row, metric.encode_family(&row.labels)?))
            };
        per_service(
            "sidestep_service_connections",
            "Connections and UDP flows that got an endpoint",
            MetricType::Counter,
            &|row, metric| ConstCounter::new(row.counted.connections()).encode(metric),
        )?;
        per_service(
            "sidestep_service_affinity_hits",
            "Connections and UDP flows that got their client's previous endpoint by ClientIP affinity",
            MetricType::Counter,
            &|row, metric| ConstCounter::new(row.counted.remembered).encode(metric),
        )?;
        per_service(
            "sidestep_service_unrecorded",
            "UDP translations that OVERFLOW had no room for: their replies carry the endpoint's address",
            MetricType::Counter,
            &|row, metric| ConstCounter::new(row.refused.unrecorded).encode(metric),
        )?;
        per_service(
            "sidestep_service_endpoints",
            "Usable endpoints for clients of the ClusterIP",
            MetricType::Gauge,
            &|row, metric| ConstGauge::new(row.record.cluster.count).encode(metric),
        )?;
        per_service(
            "sidestep_service_external_endpoints",
            "Usable endpoints for north-south traffic",
            MetricType::Gauge,
            &|row, metric| ConstGauge::new(row.record.outside.count).encode(metric),
        )?;

        // The second is a share of the first.
        let flows = unanswered(&list_flows(&tables), uptime());
        for (name, help, count) in [
            (
                "sidestep_service_flows",
                "Recorded north-south connections; only Services that have some",
                (|flows: &Unanswered| flows.connections) as fn(&Unanswered) -> usize,
            ),
            (
                "sidestep_service_unanswered",
                "Recorded north-south connections that were never answered; only Services that have some",
                |flows| flows.unanswered,
            ),
        ] {
            let mut metric = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
            for row in &rows {
                let count = flows.get(&row.index).map_or(0, count);
                if count > 0 {
                    ConstGauge::new(count).encode(metric.encode_family(&row.labels)?)?;
                }
            }
        }

        let mut metric = encoder.encode_descriptor(
            "sidestep_service_refusals",
            "Refused connections and datagrams of a Service, by reason; only reasons that occurred",
            None,
            MetricType::Counter,
        )?;
        for row in &rows {
            for reason in Reason::ALL.into_iter().filter(|reason| row.refused.of(*reason) > 0) {
                let labels: Vec<_> =
                    row.labels.iter().cloned().chain([("reason", reason.name().to_owned())]).collect();
                ConstCounter::new(row.refused.of(reason)).encode(metric.encode_family(&labels)?)?;
            }
        }

        let lacking = |span: Choice| {
            let lacks = |span: Span| span.count == 0 && span.base == Reason::NoLocalEndpoints as u32;
            rows.iter()
                .filter(move |row| lacks(span(&row.record)))
                .map(|row| row.index)
                .collect::<HashSet<_>>()
        };
        let internal = lacking(|record| record.cluster);
        // Without an external frontend there is no external policy: its span is that of the ClusterIP.
        let mut external = lacking(|record| record.outside);
        if !external.is_empty() {
            let entries = tables.frontends.iter().filter_map(Result::ok);
            let with: HashSet<u32> = entries
                .filter(|(_, value)| value.kind != FrontendKind::ClusterIp as u8)
                .map(|(_, value)| value.service)
                .collect();
            external.retain(|index| with.contains(index));
        }
        let mut metric = encoder.encode_descriptor(
            "kubeproxy_sync_proxy_rules_no_local_endpoints_total",
            "Service ports with traffic policy Local whose endpoints are all on other nodes",
            None,
            MetricType::Gauge,
        )?;
        for (policy, lacking) in [("internal", internal), ("external", external)] {
            ConstGauge::new(lacking.len()).encode(metric.encode_family(&[("traffic_policy", policy)])?)?;
        }
        Ok(())
    }
}
