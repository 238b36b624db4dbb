//! The state of an installed Service port.

use std::ops::Range;

use proxy_common::{FrontendKey, FrontendKind};

/// Where an installed Service port is. Its endpoints are read from its slots, not kept twice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Installed {
    /// Index into SERVICES.
    pub index: u32,
    /// Its slots in ENDPOINTS.
    pub block: Range<u32>,
    /// Its entries in FRONTENDS, sorted.
    pub frontends: Box<[(FrontendKey, FrontendKind)]>,
    /// Whether the whole plan that came last names it.
    pub planned: bool,
}
