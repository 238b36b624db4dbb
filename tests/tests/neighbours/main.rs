//! Programs of others, and other service proxies, on the same node: they stay where they are and keep working, and
//! whatever cannot work together is named.

mod cgroup_programs;
mod device_programs;
mod exclusive_programs;
mod service_proxies;

use serde_json::Value;
use sidestep_tests::Lab;

/// How a check of `doctor` ends, and its detail.
fn check(lab: &Lab, name: &str) -> (String, String) {
    let output = lab.sidestep(&["doctor", "-o", "json"]).expect("it runs");
    let checks: Vec<Value> = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&output.stderr)));
    let found = checks.iter().find(|check| check["name"] == name).expect("the check");
    let field = |name: &str| found[name].as_str().expect("text").to_owned();
    (field("outcome"), field("detail"))
}

/// What `status` prints.
fn status(lab: &Lab) -> String {
    let output = lab.sidestep(&["status"]).expect("it runs");
    String::from_utf8_lossy(&output.stdout).into_owned()
}
