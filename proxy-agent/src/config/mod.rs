//! The agent's configuration: kube-proxy's `KubeProxyConfiguration` file, and flags that override its fields.
//!
//! | file | concept |
//! |---|---|
//! | `file` | the fields of the file, as they are written |
//! | `decode` | its text: what is unknown is named, and passed over (as kube-proxy does for v1alpha1) |
//! | `flags` | the flags that stand for fields |
//! | `kube_proxy_flags` | kube-proxy's flags that are not among those, each of which stands for a field too |
//! | `settings` | what both together mean |
//! | `ignored` | which fields say something that has no effect here, and why |
//! | `addresses` | where to listen |
//! | `duration` | durations as Go writes them |
//! | `change` | noticing that the file is another one |
//!
//! A field that cannot be used never ends the agent: it becomes a problem, and the default applies.

mod addresses;
mod change;
mod decode;
mod duration;
mod file;
mod flags;
mod ignored;
mod kube_proxy_flags;
mod settings;

pub use change::changed;
pub use decode::{Decoded, Error, decode};
pub use file::KubeProxyConfiguration;
pub use flags::Flags;
pub use kube_proxy_flags::KubeProxyFlags;
pub use settings::Settings;
