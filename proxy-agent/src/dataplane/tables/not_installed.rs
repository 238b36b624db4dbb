//! Parts of a plan that are not in the maps, and why.

use proxy_common::{Address, FrontendKey, FrontendKind, SourceRange};

use crate::{model::ObjectName, plan::ServicePortId};

/// Something that could not be installed; everything else was.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum NotInstalled {
    /// A Service port: it is not there, or as it was before.
    ServicePort {
        /// Whose.
        id: ServicePortId,
        /// The full map.
        full: FullTable,
    },
    /// An entry of FRONTENDS.
    Frontend {
        /// Whose.
        service: ObjectName,
        /// Its key.
        frontend: FrontendKey,
        /// What kind of frontend it would be.
        kind: FrontendKind,
        /// The kernel's answer.
        error: String,
    },
    /// An entry of NAMES: the Service works, and nobody can tell whose its entries are.
    Name {
        /// Whose.
        service: ObjectName,
        /// The kernel's answer.
        error: String,
    },
    /// An entry of SOURCE_RANGES, whose clients are refused.
    SourceRange {
        /// Whose.
        service: ObjectName,
        /// Which range.
        range: SourceRange,
        /// The kernel's answer.
        error: String,
    },
    /// An entry of ADDRESSES.
    Address {
        /// Its key.
        address: Address,
        /// The kernel's answer.
        error: String,
    },
}

impl NotInstalled {
    /// Whether bigger tables may have room for it.
    pub fn is_for_want_of_room(&self) -> bool {
        !matches!(self, Self::SourceRange { .. })
    }
}

/// A table that has no room for a Service port.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FullTable {
    /// SERVICES.
    Services,
    /// FRONTENDS, where another Service needs its place.
    Frontends,
    /// ENDPOINTS, or the ids of endpoints.
    Endpoints,
}
