//! How nodes reach each other's pods, and whether a CNI has left rules; and macros for tests of every combination.

use std::process::{Command, Stdio};

use super::vxlan;
use crate::topology::ETHERNET_MTU;

/// How nodes reach each other's pods.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Routing {
    /// By routes via the nodes' addresses.
    Direct,
    /// Through a VXLAN, as flannel makes it.
    Vxlan,
}

/// The rules of a CNI.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Rules {
    /// None; the kernel tracks no connections.
    None,
    /// Those of flannel, with a FORWARD policy of DROP.
    Flannel,
}

/// One combination.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Variant {
    /// How nodes reach each other's pods.
    pub routing: Routing,
    /// The rules of a CNI.
    pub rules: Rules,
}

impl Variant {
    /// Routed directly, without rules.
    pub const DIRECT: Self = Self { routing: Routing::Direct, rules: Rules::None };
    /// Through a VXLAN, without rules.
    pub const VXLAN: Self = Self { routing: Routing::Vxlan, rules: Rules::None };
    /// Routed directly, with a CNI's rules.
    pub const DIRECT_WITH_CNI_RULES: Self = Self { routing: Routing::Direct, rules: Rules::Flannel };
    /// Through a VXLAN, with a CNI's rules.
    pub const VXLAN_WITH_CNI_RULES: Self = Self { routing: Routing::Vxlan, rules: Rules::Flannel };

    /// The MTU of pods' devices: a VXLAN needs room for its own headers.
    pub(super) const fn pod_mtu(self) -> u32 {
        match self.routing {
            Routing::Direct => ETHERNET_MTU,
            Routing::Vxlan => ETHERNET_MTU - vxlan::OVERHEAD,
        }
    }

    /// What this machine lacks for the variant; `None` if nothing.
    pub fn missing(self) -> Option<String> {
        if self.routing == Routing::Vxlan && !vxlan::is_there() {
            return Some("this kernel has no VXLAN".to_owned());
        }
        let nft = || Command::new("nft").arg("--version").stdout(Stdio::null()).status();
        if self.rules == Rules::Flannel && nft().is_err() {
            return Some("the program `nft` is not installed".to_owned());
        }
        None
    }
}

/// A [`TwoNodes`](crate::TwoNodes) of this variant, or a skipped test where it cannot run.
#[macro_export]
macro_rules! two_nodes {
    ($variant:expr) => {{
        if let Some(reason) = $crate::skip::missing().or_else(|| $variant.missing()) {
            $crate::skip!("{reason}");
        }
        $crate::TwoNodes::new($variant).expect("a lab")
    }};
}

/// Makes four tests of each function of a [`&TwoNodes`](crate::TwoNodes): `function::direct`, `::vxlan`,
/// `::direct_with_cni_rules` and `::vxlan_with_cni_rules`.
#[macro_export]
macro_rules! in_every_variant {
    ($($scenario:ident),+ $(,)?) => {$(
        mod $scenario {
            $crate::in_variant!($scenario, direct, DIRECT);
            $crate::in_variant!($scenario, vxlan, VXLAN);
            $crate::in_variant!($scenario, direct_with_cni_rules, DIRECT_WITH_CNI_RULES);
            $crate::in_variant!($scenario, vxlan_with_cni_rules, VXLAN_WITH_CNI_RULES);
        }
    )+};
}

/// Makes two tests of each long scenario, in the simplest and in the most complex variant.
#[macro_export]
macro_rules! in_both_extremes {
    ($($scenario:ident),+ $(,)?) => {$(
        mod $scenario {
            $crate::in_variant!($scenario, direct, DIRECT);
            $crate::in_variant!($scenario, vxlan_with_cni_rules, VXLAN_WITH_CNI_RULES);
        }
    )+};
}

/// One of those tests.
#[macro_export]
macro_rules! in_variant {
    ($scenario:ident, $test:ident, $variant:ident) => {
        #[test]
        fn $test() {
            let nodes = $crate::two_nodes!($crate::two_nodes::Variant::$variant);
            super::$scenario(&nodes);
        }
    };
}
