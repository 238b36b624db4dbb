//! Parts of the benchmarks that have several.

/// A part of `connect`, of `nodeport`, or of both.
#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
pub(crate) enum Part {
    /// Connect and close
    Connections,
    /// Connect, one byte there and back, close; only `connect`
    Requests,
    /// One byte there and back on a connection that stays
    Persistent,
    /// Connect and close, in turns in which what is freed later counts too; only `connect`
    Long,
    /// Small datagrams until the node loses some; only `nodeport`
    Datagrams,
    /// Nanoseconds in the programs
    Programs,
}
