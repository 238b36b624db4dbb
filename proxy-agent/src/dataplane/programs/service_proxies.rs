//! The socket programs of other service proxies, by name (pure). Two of them at one hook translate the same calls: the
//! first gives an address an endpoint, the second sees that endpoint's address.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Another service proxy in the kernel.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ServiceProxy {
    /// Cilium's socket load balancer.
    Cilium,
    /// Calico's connect-time load balancer, of its eBPF dataplane.
    Calico,
    /// kube-proxy, in any mode.
    KubeProxy,
    /// Sidestep with other pins.
    Sidestep,
}

impl ServiceProxy {
    /// Whose program is attached at `hook` under `name`, if it is a service proxy's. The kernel keeps the first fifteen
    /// characters of a name, so these are beginnings.
    pub(crate) fn of_program(hook: &str, name: &str) -> Option<Self> {
        const BEGINNINGS: [(&str, ServiceProxy); 9] = [
            // `bpf/bpf_sock.c`; without `cil_` before Cilium 1.12.
            ("cil_sock", ServiceProxy::Cilium),
            ("sock4_", ServiceProxy::Cilium),
            ("sock6_", ServiceProxy::Cilium),
            // `felix/bpf-gpl/connect_balancer*.c`; `cali_ctlb_` before Calico 3.24.
            ("calico_connect", ServiceProxy::Calico),
            ("calico_sendmsg", ServiceProxy::Calico),
            ("calico_recvmsg", ServiceProxy::Calico),
            ("cali_ctlb_", ServiceProxy::Calico),
            ("cali_sendmsg_", ServiceProxy::Calico),
            ("cali_recvmsg_", ServiceProxy::Calico),
        ];
        let whose = BEGINNINGS.iter().find(|(beginning, _)| name.starts_with(beginning));
        // Ours are called like their hooks.
        whose.map(|(_, proxy)| *proxy).or_else(|| (name == hook).then_some(Self::Sidestep))
    }

    /// How to have only one.
    pub fn remedy(self) -> &'static str {
        match self {
            Self::Cilium => {
                "switch Cilium's off (Helm values `kubeProxyReplacement: false` and `socketLB.enabled: false`), or do \
                 not run Sidestep here"
            }
            Self::Calico => {
                "switch Calico's eBPF dataplane off (`bpfEnabled: false` in its FelixConfiguration), or do not run \
                 Sidestep here"
            }
            Self::KubeProxy => {
                "once kube-proxy does not run here any more, `sidestep takeover` removes its rules"
            }
            Self::Sidestep => {
                "run one agent for one cgroup; `sidestep cleanup --pin-dir DIR` removes the other's programs"
            }
        }
    }
}

impl fmt::Display for ServiceProxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Cilium => "Cilium",
            Self::Calico => "Calico",
            Self::KubeProxy => "kube-proxy",
            Self::Sidestep => "another Sidestep",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Names as the kernel keeps them, and as they are written.
    #[test]
    fn service_proxies_are_known_by_the_names_of_their_programs() {
        for (hook, name, whose) in [
            ("connect4", "cil_sock4_conne", Some(ServiceProxy::Cilium)),
            ("connect6", "cil_sock6_connect", Some(ServiceProxy::Cilium)),
            ("sendmsg4", "cil_sock4_sendm", Some(ServiceProxy::Cilium)),
            ("recvmsg6", "cil_sock6_recvm", Some(ServiceProxy::Cilium)),
            ("getpeername4", "cil_sock4_getpe", Some(ServiceProxy::Cilium)),
            ("release", "cil_sock_releas", Some(ServiceProxy::Cilium)),
            ("connect4", "sock4_connect", Some(ServiceProxy::Cilium)),
            ("connect4", "calico_connect_", Some(ServiceProxy::Calico)),
            ("sendmsg6", "calico_sendmsg_", Some(ServiceProxy::Calico)),
            ("connect4", "cali_ctlb_v4", Some(ServiceProxy::Calico)),
            ("connect4", "connect4", Some(ServiceProxy::Sidestep)),
            ("release", "release", Some(ServiceProxy::Sidestep)),
            // Programs that translate no Services: firewalls, tracers, meshes, those without a name.
            ("connect4", "cil_from_netdev", None),
            ("connect4", "calico_tc_main", None),
            ("connect4", "mb_sock4_connec", None),
            ("connect4", "sd_bind_allow", None),
            ("connect4", "connect6", None),
            ("connect4", "", None),
        ] {
            assert_eq!(ServiceProxy::of_program(hook, name), whose, "{name} at {hook}");
        }
    }
}
