//! Which Services a node cannot do without.

use crate::model::ObjectName;

/// Whether this is the API server's Service, `default/kubernetes`.
pub fn is_api_server(service: &ObjectName) -> bool {
    service.namespace() == "default" && service.name() == "kubernetes"
}

/// Whether the Service comes before all others where the tables have no room for everything: the API server's, and the
/// cluster's DNS, `kube-system/kube-dns` by convention whichever program answers.
pub fn goes_first(service: &ObjectName) -> bool {
    is_api_server(service) || (service.namespace() == "kube-system" && service.name() == "kube-dns")
}
