//! What works beside Sidestep on this node: programs of others at the hooks of ours, and other service proxies.

use std::{collections::BTreeMap, path::Path};

use serde::Serialize;

use super::{
    Error,
    node::kube_proxy,
    programs::{
        neighbours::{Neighbour, neighbours},
        service_proxies::ServiceProxy,
    },
};

/// How many programs of a service proxy are named.
const NAMED: usize = 4;

/// Everything found at one time.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Beside {
    /// Programs of others at our hooks.
    pub programs: Vec<Neighbour>,
    /// The modes of kube-proxy that have left rules here, whether it runs or not.
    pub kube_proxy: Vec<&'static str>,
}

impl Beside {
    /// Looks at the hooks of a cgroup and at netfilter, in the calling thread's network namespace.
    pub fn look(cgroup: &Path, pin_dir: &Path) -> Result<Self, Error> {
        Ok(Self { programs: neighbours(cgroup, pin_dir)?, kube_proxy: kube_proxy::modes() })
    }

    /// Programs that keep ours out: a sentence for each, with the remedy.
    pub fn excluded(&self) -> impl Iterator<Item = String> {
        self.programs.iter().filter_map(Neighbour::exclusion)
    }

    /// Programs that do not run where ours does: a sentence for each, with the remedy.
    pub fn displaced(&self) -> impl Iterator<Item = String> {
        self.programs.iter().filter_map(Neighbour::displacement)
    }

    /// Other service proxies: a sentence for each, with the remedy.
    pub fn service_proxies(&self) -> Vec<String> {
        let mut programs: BTreeMap<ServiceProxy, Vec<&Neighbour>> = BTreeMap::new();
        for neighbour in &self.programs {
            if let Some(proxy) = neighbour.service_proxy {
                programs.entry(proxy).or_default().push(neighbour);
            }
        }
        let mut sentences: Vec<String> = programs
            .into_iter()
            .map(|(proxy, programs)| {
                let mut named: Vec<String> =
                    programs.iter().take(NAMED).map(|program| program.described()).collect();
                if programs.len() > NAMED {
                    named.push(format!("and {} more", programs.len() - NAMED));
                }
                format!(
                    "{proxy} translates the same calls: its programs are attached at {} ({}): {}",
                    programs[0].cgroup.display(),
                    named.join(", "),
                    proxy.remedy()
                )
            })
            .collect();
        if !self.kube_proxy.is_empty() {
            let proxy = ServiceProxy::KubeProxy;
            let modes = self.kube_proxy.join(", ");
            sentences.push(format!("{proxy}'s rules are here (mode {modes}): {}", proxy.remedy()));
        }
        sentences
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::dataplane::programs::neighbours::Manners;

    fn program(hook: &'static str, id: u32, name: &str, manners: Manners) -> Neighbour {
        let service_proxy = ServiceProxy::of_program(hook, name);
        let (cgroup, name) = (PathBuf::from("/sys/fs/cgroup"), name.to_owned());
        Neighbour { hook, cgroup, id, name, manners, service_proxy }
    }

    #[test]
    fn each_service_proxy_is_named_once_with_its_programs() {
        let names = ["cil_sock4_conne", "tracer", "cil_sock4_sendm", "cil_sock4_recvm", "cil_sock6_conne"];
        let programs = (7..).zip(names).map(|(id, name)| program("connect4", id, name, Manners::Shares));
        let mut programs: Vec<Neighbour> = programs.collect();
        programs.push(program("release", 20, "cil_sock_releas", Manners::Shares));
        programs.push(program("connect4", 30, "calico_connect_", Manners::Shares));
        let beside = Beside { programs, kube_proxy: vec!["iptables"] };
        let sentences = beside.service_proxies();
        let [cilium, calico, kube_proxy] = sentences.as_slice() else { panic!("{sentences:?}") };
        assert!(cilium.starts_with("Cilium ") && cilium.contains("`cil_sock4_conne` (7)"), "{cilium}");
        assert!(cilium.contains("and 1 more") && !cilium.contains("tracer"), "{cilium}");
        assert!(
            calico.contains("connect4: `calico_connect_` (30)") && calico.contains("bpfEnabled"),
            "{calico}"
        );
        assert!(
            kube_proxy.contains("mode iptables") && kube_proxy.contains("sidestep takeover"),
            "{kube_proxy}"
        );
        assert_eq!((beside.excluded().count(), beside.displaced().count()), (0, 0));
    }

    #[test]
    fn an_exclusive_program_is_named_with_its_place_and_a_remedy() {
        let programs = vec![
            program("release", 7, "careless", Manners::Excludes),
            program("connect4", 8, "", Manners::GivesWay),
        ];
        let beside = Beside { programs, kube_proxy: Vec::new() };
        let excluded: Vec<String> = beside.excluded().collect();
        assert_eq!(excluded.len(), 1);
        for part in
            ["`careless` (7)", "/sys/fs/cgroup", "bpftool cgroup detach /sys/fs/cgroup sock_release id 7"]
        {
            assert!(excluded[0].contains(part), "{part}: {excluded:?}");
        }
        let displaced: Vec<String> = beside.displaced().collect();
        assert!(
            displaced[0].contains("program 8") && displaced[0].contains("BPF_F_ALLOW_MULTI"),
            "{displaced:?}"
        );
    }
}
