//! The rules, the dashboard and their page: they use metrics that the agent exports, and Prometheus accepts them.

mod dashboard;
mod expression;
mod prometheus;
mod rules;
mod scenario;
mod scrape;

use std::{collections::BTreeSet, fs, path::PathBuf, process::Command, time::Duration};

use sidestep_tests::{eventually::wait_for, skip, two_nodes, two_nodes::Variant};

use self::{
    dashboard::Dashboard,
    expression::check,
    prometheus::{Prometheus, program},
    rules::alerts,
    scenario::Scenario,
    scrape::Scrape,
};

/// A file of the repository.
fn path(relative: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..").join(relative)
}

fn text(relative: &str) -> String {
    fs::read_to_string(path(relative)).unwrap_or_else(|error| panic!("{relative}: {error}"))
}

/// The labels that a template names after this prefix, as in `{{ $labels.instance }}`.
fn named_labels<'a>(template: &'a str, prefix: &str) -> BTreeSet<&'a str> {
    let ends = |letter: char| !letter.is_alphanumeric() && letter != '_';
    template.split(prefix).skip(1).filter_map(|rest| rest.split(ends).next()).collect()
}

/// HE-4: the agent exports every metric, label and value that alerts and panels use.
#[test]
fn every_metric_and_label_that_is_asked_for_is_in_a_scrape() {
    let nodes = two_nodes!(Variant::DIRECT);
    let scenario = Scenario::start(&nodes);
    let scrape = Scrape::read(&scenario.metrics());
    let mut wrong = Vec::new();
    for alert in alerts() {
        match check(&alert.expr, &scrape) {
            Ok(labels) => {
                let lacking = alert
                    .templates()
                    .flat_map(|template| named_labels(template, "$labels."))
                    .filter(|label| !labels.contains(*label));
                wrong.extend(lacking.map(|label| format!("{}: no label {label} in {labels:?}", alert.name)));
            }
            Err(error) => wrong.push(format!("{}: {error}", alert.name)),
        }
    }
    let dashboard = Dashboard::read();
    for (title, expr, legend) in dashboard.targets() {
        match check(&expr, &scrape) {
            Ok(labels) => {
                let lacking = named_labels(legend, "{{").into_iter().filter(|label| !labels.contains(*label));
                wrong.extend(lacking.map(|label| format!("{title}: no label {label} in {labels:?}")));
            }
            Err(error) => wrong.push(format!("{title}: {error}")),
        }
    }
    for (selector, label) in dashboard.variables() {
        match check(&selector, &scrape) {
            Ok(labels) if labels.contains(&label) => {}
            Ok(labels) => wrong.push(format!("{selector}: no label {label} in {labels:?}")),
            Err(error) => wrong.push(error),
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    // The page lists every metric and no other.
    let page = text("docs/monitoring.md");
    let ours =
        |name: &&str| ["sidestep_", "kubeproxy_", "process_"].iter().any(|prefix| name.starts_with(prefix));
    let shown: BTreeSet<&str> = scrape.metrics().filter(ours).map(family).collect();
    let words = page.split(|letter: char| !letter.is_alphanumeric() && letter != '_');
    let told: BTreeSet<&str> = words.filter(ours).map(family).collect();
    assert_eq!(told, shown);
}

/// The metric of which this is a series.
fn family(series: &str) -> &str {
    ["_bucket", "_sum", "_count"].iter().find_map(|suffix| series.strip_suffix(suffix)).unwrap_or(series)
}

/// Each alert has a promtool test that fires it, and a paragraph for the person on call.
#[test]
fn every_alert_has_a_case_that_fires_it_and_a_paragraph() {
    let (cases, page) = (text("deploy/monitoring/rules_test.yaml"), text("docs/monitoring.md"));
    let mut names = BTreeSet::new();
    for alert in alerts() {
        let name = &alert.name;
        assert!(names.insert(name.clone()), "two alerts are called {name}");
        assert!(["critical", "warning"].contains(&alert.severity.as_str()), "{name}: {}", alert.severity);
        assert!(cases.contains(&format!("alertname=\"{name}\"")), "{name} has no case in rules_test.yaml");
        assert!(page.contains(&format!("`{name}`")), "{name} is not in docs/monitoring.md");
    }
}

#[test]
fn promtool_takes_the_rules_and_each_alert_fires_when_it_should() {
    let promtool = match program("promtool") {
        Ok(program) => program,
        Err(reason) => skip!("promtool is needed: {reason}"),
    };
    for (arguments, file) in [
        (&["check", "rules", "--lint=all", "--lint-fatal"][..], "deploy/monitoring/rules.yaml"),
        (&["test", "rules"], "deploy/monitoring/rules_test.yaml"),
    ] {
        let output = Command::new(&promtool).args(arguments).arg(path(file)).output().expect("promtool");
        let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{file}: {said}");
    }
}

/// Panels have a title, a unit and a description, do not overlap, and query the chosen data source.
#[test]
fn the_dashboard_is_complete() {
    Dashboard::read().inspect();
}

/// Prometheus scrapes an agent, evaluates every rule, and has data for every panel.
#[test]
fn prometheus_answers_every_panel_and_evaluates_every_rule() {
    let nodes = two_nodes!(Variant::DIRECT);
    let prometheus = match program("prometheus") {
        Ok(program) => program,
        Err(reason) => skip!("prometheus is needed: {reason}"),
    };
    let scenario = Scenario::start(&nodes);
    let rules = path("deploy/monitoring/rules.yaml").canonicalize().expect("the rules");
    let prometheus = Prometheus::start(&prometheus, nodes.node(), &rules);
    let mut empty: Vec<(String, String, String)> = Dashboard::read()
        .targets()
        .map(|(title, expr, legend)| (title.to_owned(), expr, legend.to_owned()))
        .collect();
    assert!(!empty.is_empty());
    let filled = wait_for(Duration::from_secs(40), "every panel has data", || {
        scenario.ask();
        empty.retain(|(title, expr, _)| {
            let Some(answer) = prometheus.api("query", &[("query", expr)]) else { return true };
            assert_eq!(answer["status"], "success", "{title}: {answer}");
            answer["data"]["result"].as_array().is_none_or(Vec::is_empty)
        });
        empty.is_empty()
    });
    filled.unwrap_or_else(|error| panic!("{error}: {empty:#?}"));

    // Only the alert for a Service without endpoints that clients use may be pending or firing.
    let mut evaluated = Vec::new();
    let pending = wait_for(Duration::from_secs(20), "the alert for a used Service without endpoints", || {
        scenario.ask();
        evaluated = prometheus.rules();
        evaluated.iter().any(|rule| {
            (&rule["name"], &rule["state"]) == (&"SidestepServiceWithoutEndpoints".into(), &"pending".into())
        })
    });
    pending.unwrap_or_else(|error| panic!("{error}: {evaluated:#?}"));
    assert_eq!(evaluated.len(), alerts().len());
    for rule in &evaluated {
        assert_eq!(rule["health"], "ok", "{rule}");
        let name = rule["name"].as_str().expect("a name");
        let is_quiet = !name.starts_with("SidestepService");
        assert!(!is_quiet || rule["state"] == "inactive", "{rule}");
    }
}
