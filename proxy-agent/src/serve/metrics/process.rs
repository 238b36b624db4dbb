//! The agent's process, by the names that every exporter uses.

use std::fmt;

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric},
    metrics::{MetricType, counter::ConstCounter, gauge::ConstGauge},
};

/// This process, as `/proc` has it.
#[derive(Debug)]
pub(super) struct Process;

impl Collector for Process {
    #[expect(clippy::cast_precision_loss, reason = "ticks of a processor")]
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let Ok(process) = procfs::process::Process::myself() else { return Ok(()) };
        if let Ok(stat) = process.stat() {
            let cpu = (stat.utime + stat.stime) as f64 / procfs::ticks_per_second() as f64;
            let help = "CPU time of the agent, in seconds";
            let metric = encoder.encode_descriptor("process_cpu_seconds", help, None, MetricType::Counter)?;
            ConstCounter::new(cpu).encode(metric)?;
            let help = "Resident memory of the agent, in bytes";
            let metric =
                encoder.encode_descriptor("process_resident_memory_bytes", help, None, MetricType::Gauge)?;
            ConstGauge::new(stat.rss * procfs::page_size()).encode(metric)?;
        }
        if let Ok(count) = process.fd_count() {
            let help = "Open file descriptors of the agent";
            let metric = encoder.encode_descriptor("process_open_fds", help, None, MetricType::Gauge)?;
            ConstGauge::new(count).encode(metric)?;
        }
        Ok(())
    }
}
