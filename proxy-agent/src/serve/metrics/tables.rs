//! Fill levels of the maps, flows, and totals of the node.

use std::fmt;

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric},
    metrics::{MetricType, counter::ConstCounter, gauge::ConstGauge},
};
use proxy_common::{NodeEvent, Reason};

use crate::dataplane::{SharedTables, Tables};

/// The tables as a whole.
#[derive(Debug)]
pub(super) struct Fill(pub(super) SharedTables);

impl Fill {
    /// Entries and room of each table that can be full.
    fn levels(tables: &Tables, flows: usize) -> [(&'static str, usize, u32); 5] {
        let used = |id: &u32| tables.states.load(*id).is_some_and(|state| state.bits != 0);
        let room = tables.frontends_room();
        // A key that is deleted under the walk starts it anew; it ends all the same.
        let frontends = tables.frontends.keys().take(room as usize).count();
        let ranges_room = tables.source_ranges_room();
        let ranges = tables.source_ranges.keys().take(ranges_room as usize).count();
        [
            (
                "services",
                tables.names.keys().take(tables.services.len() as usize).count(),
                tables.services.len(),
            ),
            ("frontends", frontends, room),
            ("source-ranges", ranges, ranges_room),
            ("flows", flows, tables.flows.room()),
            ("endpoints", (0..tables.states.len()).filter(used).count(), tables.endpoints.len()),
        ]
    }
}

impl Collector for Fill {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let tables = self.0.now();
        let total = |index| tables.totals.load(index).unwrap_or(0);
        let (elements, confirmed) = tables.flows.count();
        let levels = Self::levels(&tables, elements);
        let help = "Entries in a map";
        let mut metric =
            encoder.encode_descriptor("sidestep_table_entries", help, None, MetricType::Gauge)?;
        for (name, entries, _) in &levels {
            ConstGauge::new(*entries).encode(metric.encode_family(&[("table", *name)])?)?;
        }
        let help = "Capacity of a map, in entries";
        let mut metric = encoder.encode_descriptor("sidestep_table_room", help, None, MetricType::Gauge)?;
        for (name, _, room) in &levels {
            ConstGauge::new(*room).encode(metric.encode_family(&[("table", *name)])?)?;
        }
        let help = "North-south connections and UDP flows, by state";
        let mut metric = encoder.encode_descriptor("sidestep_flows", help, None, MetricType::Gauge)?;
        // Those that are not confirmed make way for others, so there are as many as there is room for.
        ConstGauge::new(confirmed).encode(metric.encode_family(&[("state", "confirmed")])?)?;
        let help = "Refused connections and datagrams on this node, by reason";
        let mut metric = encoder.encode_descriptor("sidestep_refusals", help, None, MetricType::Counter)?;
        for reason in Reason::ALL {
            let counter = ConstCounter::new(total(reason as u32));
            counter.encode(metric.encode_family(&[("reason", reason.name())])?)?;
        }
        for (name, help, of_packets) in [
            ("sidestep_sockets", "Events of sockets beyond selection and refusal, by event", false),
            (
                "sidestep_packets",
                "Events of north-south packets beyond translation and refusal, by event",
                true,
            ),
        ] {
            let mut metric = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
            for event in NodeEvent::ALL.into_iter().filter(|event| event.is_of_packet() == of_packets) {
                let counter = ConstCounter::new(total(event as u32));
                counter.encode(metric.encode_family(&[("what", event.name())])?)?;
            }
        }
        Ok(())
    }
}
