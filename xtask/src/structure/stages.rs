//! Which folders may name which: data flows one way, and no stage names a later one.

use std::path::Path;

use super::uses::Uses;

/// A folder or file of a crate, and the others that it may name, including everything in them.
pub(super) struct Stage {
    name: &'static str,
    may_name: &'static [&'static str],
}

const fn stage(name: &'static str, may_name: &'static [&'static str]) -> Stage {
    Stage { name, may_name }
}

/// The agent's stages, each after those that it may name. A file belongs to the stage with the longest matching name.
pub(super) const AGENT: &[Stage] = &[
    stage("lib", &[]),
    // What stages share.
    stage("causes", &[]),
    stage("memory", &[]),
    stage("ports", &[]),
    stage("privileges", &[]),
    stage("timeouts", &[]),
    stage("model", &["memory"]),
    stage("plan", &["memory", "model"]),
    stage("source", &["causes", "model"]),
    stage("config", &["model", "plan", "ports", "timeouts"]),
    stage("dataplane/error", &[]),
    stage("dataplane/bpf", &["dataplane/error"]),
    stage("dataplane/btf", &[]),
    stage(
        "dataplane/tables",
        &["memory", "model", "plan", "ports", "dataplane/bpf", "dataplane/btf", "dataplane/error"],
    ),
    stage(
        "dataplane/programs",
        &["memory", "ports", "timeouts", "dataplane/bpf", "dataplane/error", "dataplane/tables", NODE],
    ),
    stage(
        NODE,
        &[
            "model",
            "ports",
            "dataplane/bpf",
            "dataplane/btf",
            "dataplane/error",
            "dataplane/programs",
            "dataplane/tables",
        ],
    ),
    stage(
        "dataplane/followers",
        &[
            "plan",
            "timeouts",
            "dataplane/bpf",
            "dataplane/error",
            "dataplane/tables",
            "dataplane/programs",
            NODE,
        ],
    ),
    stage(
        "dataplane",
        &[
            "plan",
            "timeouts",
            "dataplane/bpf",
            "dataplane/error",
            "dataplane/tables",
            "dataplane/programs",
            NODE,
            "dataplane/followers",
        ],
    ),
    stage("serve", &["causes", "model", "plan", "config", "dataplane"]),
    stage("announce", &["causes", "model"]),
    stage(
        "agent",
        &["memory", "privileges", "model", "plan", "source", "config", "dataplane", "serve", "announce"],
    ),
    stage("commands", &["privileges", "model", "plan", "source", "config", "dataplane", "agent"]),
];

/// The node's side of the dataplane: it attaches programs to devices, and configures them for the node.
const NODE: &str = "dataplane/node";

/// A line for each use of a stage that the file's own stage may not name.
pub(super) fn backward(uses: &Uses, stages: &[Stage]) -> Vec<String> {
    let mut faults = Vec::new();
    if stages.is_empty() {
        return faults;
    }
    for (from, to) in &uses.0 {
        let Some(here) = of(from, stages) else {
            faults.push(format!(
                "{} belongs to no stage; add one to xtask/src/structure/stages.rs",
                from.display()
            ));
            continue;
        };
        for (end, names) in to {
            let Some(there) = of(end, stages) else { continue };
            let may = |name: &&str| Path::new(there.name).starts_with(name);
            if here.name != there.name && !here.may_name.iter().any(may) {
                let names: Vec<&str> = names.iter().map(String::as_str).collect();
                let (file, end) = (from.display(), end.display());
                faults.push(format!(
                    "{file} names {} of {end}, but {} may not name {}",
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
    fn an_import_from_a_later_stage_is_reported_with_both_ends() {
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
                "plan/mod.rs names Edge of edge.rs, but plan may not name edge",
                "plan/other.rs names Part of plan/parts.rs, but plan may not name plan/parts",
                "plan/parts.rs names Edge of edge.rs, but plan/parts may not name edge",
            ]
        );
    }

    #[test]
    fn a_file_without_a_stage_is_reported() {
        let found = backward(&uses(&[("lib.rs", "mod new;"), ("new.rs", "")]), &[stage("lib", &[])]);
        assert_eq!(found, ["new.rs belongs to no stage; add one to xtask/src/structure/stages.rs"]);
    }
}
