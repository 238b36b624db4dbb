//! The agent's configuration: kube-proxy's `KubeProxyConfiguration` file, and flags that override its fields.
//!
//! | file | concept |
//! |---|---|
//! | `file` | the fields of the file, as they are written |
//! | `decode` | its text: unknown fields are named and ignored (as kube-proxy does for v1alpha1) |
//! | `flags` | the flags that stand for fields |
//! | `kube_proxy_flags` | kube-proxy's other flags, each of which also stands for a field |
//! | `settings` | the result of both |
//! | `ignored` | which set fields have no effect here, and why |
//! | `addresses` | where to listen |
//! | `duration` | durations as Go writes them |
//! | `fuzzing` | the text of a file, for fuzzers |
//! | `change` | noticing a changed file |
//!
//! A field that cannot be used never ends the agent: it becomes a problem, and the default applies.

mod addresses;
mod change;
mod decode;
mod duration;
mod file;
mod flags;
#[doc(hidden)]
pub mod fuzzing;
mod ignored;
mod kube_proxy_flags;
mod settings;

pub use change::changed;
pub use decode::{Decoded, Error, decode};
pub use file::KubeProxyConfiguration;
pub use flags::Flags;
pub use kube_proxy_flags::KubeProxyFlags;
pub use settings::Settings;
