//! What many restarts and many changes leave behind: nothing; and everything at once, for a moment.

mod everything_at_once;
mod many_namespaces;
mod many_restarts;
mod many_services;
mod more_than_fits;
mod other_layouts;
mod previous_release;
mod staying;
