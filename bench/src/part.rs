//! Parts of the benchmarks that have several.

/// A part of `connect`, of `nodeport`, or of both.
#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
pub(crate) enum Part {
    /// Connect and close
    Connections,
    /// Connect, exchange a byte, close (`connect` only)
    Requests,
    /// Exchange a byte on a persistent connection
    Persistent,
    /// Connect and close, in turns long enough to include deferred frees (`connect` only)
    Long,
    /// Small datagrams at rising rates until the node loses some (`nodeport` only)
    Datagrams,
    /// Connect and close, while nobody listens to events, while somebody does, and without any (`connect` only)
    Listening,
    /// Nanoseconds in the BPF programs
    Programs,
}
