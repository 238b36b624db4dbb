//! The tables for those in this process that only look: whoever asks gets those of now, and those that were replaced go when
//! nobody looks at them any more.

use std::sync::{Arc, Mutex, PoisonError};

use super::pinned::Tables;

/// The present tables. A clone shows the same.
#[derive(Clone, Debug)]
pub struct SharedTables(Arc<Mutex<Arc<Tables>>>);

impl SharedTables {
    pub(crate) fn new(tables: Tables) -> Self {
        Self(Arc::new(Mutex::new(Arc::new(tables))))
    }

    /// Those of now. Not to be kept.
    pub fn now(&self) -> Arc<Tables> {
        Arc::clone(&self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Shows others from now on.
    pub(crate) fn replace(&self, tables: Tables) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(tables);
    }
}
