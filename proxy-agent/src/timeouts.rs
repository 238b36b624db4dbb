//! How long a flow may be idle.

use std::time::Duration;

/// The timeouts, with kube-proxy's defaults or, where it leaves them to the kernel, the kernel's.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Timeouts {
    /// A TCP connection that both sides keep open.
    pub tcp_established: Duration,
    /// A TCP connection that one side has closed.
    pub tcp_close_wait: Duration,
    /// A UDP flow without an answer. The programs' affair: such a flow is not confirmed.
    pub udp: Duration,
    /// A UDP flow that was answered.
    pub udp_stream: Duration,
}

impl Timeouts {
    /// [`Timeouts::udp`] for the programs, at least a second.
    pub fn udp_seconds(&self) -> u32 {
        u32::try_from(self.udp.as_millis().div_ceil(1000)).unwrap_or(u32::MAX).max(1)
    }
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            tcp_established: Duration::from_hours(24),
            tcp_close_wait: Duration::from_hours(1),
            udp: Duration::from_secs(30),
            udp_stream: Duration::from_mins(2),
        }
    }
}
