//! Which folders may name which: data flows one way, and nothing names what comes after it.

use std::path::Path;

use super::uses::Uses;

/// A folder or file of a crate, and the others that it may name, with all that is in those.
pub(super) struct Stage {
    name: &'static str,
    may_name: &'static [&'static str],
}

const fn stage(name: &'static str, may_name: &'static [&'static str]) -> Stage {
    Stage { name, may_name }
}

/// The agent's stages, each after those that it may name. Of a file the longest name counts that it begins with.
pub(super) const AGENT: &[Stage] = &[
    stage("lib", &[]),
    // What stages share.
    stage("causes", &[]),
    stage("ports", &[]),
    stage("timeouts", &[]),
    stage("model", &[]),
    stage("plan", &["model"]),
    stage("source", &["causes", "model"]),
    stage("config", &["model", "plan", "ports", "timeouts"]),
    stage("dataplane/error", &[]),
    stage("dataplane/bpf", &["dataplane/error"]),
    stage("dataplane/tables", &["model", "plan", "ports", "dataplane/bpf", "dataplane/error"]),
    stage(
        "dataplane/programs",
        &["ports", "timeouts", "dataplane/bpf", "dataplane/error", "dataplane/tables", NODE],
    ),
    stage(
        NODE,
        &["model", "ports", "dataplane/bpf", "dataplane/error", "dataplane/programs", "dataplane/tables"],
    ),
    stage(
        "dataplane/followers",
        &["plan", "timeouts", "dataplane/bpf", "dataplane/error", "dataplane/tables", NODE],
    ),
    stage(
        "dataplane",
        &["plan", "dataplane/error", "dataplane/tables", "dataplane/programs", NODE, "dataplane/followers"],
    ),
    stage("serve", &["causes", "model", "plan", "config", "dataplane"]),
    stage("announce", &["causes", "model"]),
    stage("agent", &["model", "plan", "source", "config", "dataplane", "serve", "announce"]),
    stage("commands", &["model", "plan", "source", "config", "dataplane", "agent"]),
];

/// The node's side of the dataplane. It attaches programs to devices, and programs are told of the node.
const NODE: &str = "dataplane/node";

/// A line for each file that names something of a stage that it may not name.
pub(super) fn backward(uses: &Uses, stages: &[Stage]) -> Vec<String> {
    let mut faults = Vec::new();
    if stages.is_empty() {
        return faults;
    }
    for (from, to) in &uses.0 {
        let Some(here) = of(from, stages) else {
            faults.push(format!("{} is of no stage", from.display()));
            continue;
        };
        for (end, names) in to {
            let Some(there) = of(end, stages) else { continue };
            let may = |name: &&str| Path::new(there.name).starts_with(name);
            if here.name != there.name && !here.may_name.iter().any(may) {
                let names: Vec<&str> = names.iter().map(String::as_str).collect();
                let (file, end) = (from.display(), end.display());
                faults.push(format!(
                    "{file} names {} of {end}, and {} may not name {}",
                    names.join(", "),
                    here.name,
                    there.name
                ));
            }
        }
    }
    faults
}

/// The stage of a file.
fn of<'a>(file: &Path, stages: &'a [Stage]) -> Option<&'a Stage> {
    let path = file.with_extension("");
    stages.iter().filter(|stage| path.starts_with(stage.name)).max_by_key(|stage| stage.name.len())
}

#[cfg(test)]
mod tests {
    use super::{super::uses::tests::uses, backward, stage};

    #[test]
    fn an_import_from_a_later_stage_is_told_with_both_ends() {
        let stages =
            [stage("lib", &[]), stage("plan", &[]), stage("plan/parts", &["plan"]), stage("edge", &["plan"])];
        let found = backward(
            &uses(&[
                ("lib.rs", "mod plan; mod edge;"),
                (
                    "plan/mod.rs",
                    "mod other; mod parts; pub struct Plan(crate::edge::Edge); pub use parts::Part;",
                ),
                ("plan/other.rs", "pub struct Other(super::Part);"),
                ("plan/parts.rs", "pub struct Part(super::Plan, crate::edge::Edge);"),
                ("edge.rs", "use crate::plan::{Part, Plan}; pub struct Edge;"),
            ]),
            &stages,
        );
        assert_eq!(
            found,
            [
                "plan/mod.rs names Edge of edge.rs, and plan may not name edge",
                "plan/other.rs names Part of plan/parts.rs, and plan may not name plan/parts",
                "plan/parts.rs names Edge of edge.rs, and plan/parts may not name edge",
            ]
        );
    }

    #[test]
    fn a_file_of_no_stage_has_to_be_put_into_one() {
        let found = backward(&uses(&[("lib.rs", "mod new;"), ("new.rs", "")]), &[stage("lib", &[])]);
        assert_eq!(found, ["new.rs is of no stage"]);
    }
}
