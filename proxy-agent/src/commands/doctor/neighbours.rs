//! Programs of others at the hooks of ours, and other service proxies: worth knowing before anything is attached.

use super::{Check, Outcome};
use crate::{
    commands::Paths,
    dataplane::{Beside, Neighbour},
};

const PROGRAMS: &str = "programs on the cgroup";
const PROXIES: &str = "other service proxies";

pub(super) fn check(paths: &Paths) -> Vec<Check> {
    let looked = paths.cgroup_root().and_then(|cgroup| {
        let beside = Beside::look(&cgroup, &paths.pin_dir)?;
        Ok((cgroup, beside))
    });
    let (cgroup, beside) = match looked {
        Ok(looked) => looked,
        Err(error) => return vec![Check::new(PROGRAMS, Outcome::Failed, error.to_string())],
    };
    let mut checks = programs(&beside);
    if checks.is_empty() {
        let detail = format!("only ours at the hooks of {}", cgroup.display());
        checks.push(Check::new(PROGRAMS, Outcome::Ok, detail));
    }
    let proxies = beside.service_proxies();
    checks.push(if proxies.is_empty() {
        Check::new(PROXIES, Outcome::Ok, "none")
    } else {
        Check::new(PROXIES, Outcome::Warning, proxies.join("; "))
    });
    checks
}

/// Those that keep ours out are a failure; those that share a hook are worth knowing when an address is translated twice.
fn programs(beside: &Beside) -> Vec<Check> {
    let excluded: Vec<String> = beside.excluded().collect();
    if !excluded.is_empty() {
        return vec![Check::new(PROGRAMS, Outcome::Failed, excluded.join("; "))];
    }
    if beside.programs.is_empty() {
        return Vec::new();
    }
    let named: Vec<String> = beside.programs.iter().map(Neighbour::described).collect();
    let mut detail = format!("programs of others run at the same hooks: {}", named.join(", "));
    for told in beside.displaced() {
        detail = format!("{detail}; {told}");
    }
    vec![Check::new(PROGRAMS, Outcome::Warning, detail)]
}
