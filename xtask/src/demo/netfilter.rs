//! Shows that netfilter has neither a rule nor a conntrack entry of a Service.

use std::{path::Path, process::Command};

use anyhow::{Context, Result, ensure};
use sidestep_tests::Lab;

/// Text that identifies a Service of the demo.
const SERVICES: [&str; 5] = ["10.96.", "fd00:10:96:", "30080", "30081", "DNAT"];

/// The commands that run in every namespace.
const QUESTIONS: [&[&str]; 4] = [
    &["iptables-save", "-t", "nat"],
    &["ip6tables-save", "-t", "nat"],
    &["nft", "list", "ruleset"],
    &["conntrack", "-L"],
];

/// Runs them on the node and in every pod; prints the entries of Services, and returns whether there are none.
pub(super) fn show(lab: &Lab) -> Result<bool> {
    let names = lab_namespaces(lab)?;
    println!("Netfilter in the lab's {} namespaces:", names.len());
    let mut clean = true;
    for question in QUESTIONS {
        let command = question.join(" ");
        if !is_installed(question[0]) {
            println!("  {command:<24} not installed here");
            continue;
        }
        let (mut lines, mut found) = (0, Vec::new());
        for name in &names {
            let output = Command::new("ip")
                .args(["netns", "exec", name])
                .args(question)
                .output()
                .with_context(|| format!("cannot start `ip netns exec {name} {command}`"))?;
            let errors = String::from_utf8_lossy(&output.stderr);
            ensure!(output.status.success(), "`ip netns exec {name} {command}` failed: {}", errors.trim());
            let text = String::from_utf8_lossy(&output.stdout);
            let entries =
                text.lines().filter(|line| !line.is_empty() && !line.starts_with(['#', ':', '*', 'C']));
            for line in entries {
                lines += 1;
                if SERVICES.iter().any(|service| line.contains(service)) {
                    found.push(format!("    {name}: {line}"));
                }
            }
        }
        println!("  {command:<24} {lines} entries, {} of them of a Service", found.len());
        found.iter().take(5).for_each(|line| println!("{line}"));
        clean &= found.is_empty();
    }
    Ok(clean)
}

/// The names of the lab's namespaces.
fn lab_namespaces(lab: &Lab) -> Result<Vec<String>> {
    let node = lab.node().namespace().path();
    let directory = node.parent().with_context(|| format!("{} is in no directory", node.display()))?;
    let prefix = format!("{}-", lab.name());
    let mut names: Vec<String> = std::fs::read_dir(directory)?
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter(|name| name.starts_with(&prefix))
        .collect();
    names.sort();
    Ok(names)
}

fn is_installed(program: &str) -> bool {
    std::env::var_os("PATH").is_some_and(|path| {
        std::env::split_paths(&path)
            .chain([Path::new("/usr/sbin").to_owned()])
            .any(|folder| folder.join(program).exists())
    })
}
