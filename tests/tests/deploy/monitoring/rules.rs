//! The alerts of `deploy/monitoring/rules.yaml`.

use serde::Deserialize;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    groups: Vec<Group>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Group {
    #[serde(rename = "name")]
    _name: String,
    rules: Vec<Rule>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Rule {
    alert: String,
    expr: String,
    #[serde(rename = "for", default)]
    _lasts: String,
    labels: Labels,
    annotations: Annotations,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Labels {
    severity: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Annotations {
    summary: String,
    description: String,
}

/// An alert.
pub(super) struct Alert {
    pub(super) name: String,
    pub(super) expr: String,
    pub(super) severity: String,
    annotations: Annotations,
}

impl Alert {
    /// Its texts, which are templates with values of labels.
    pub(super) fn templates(&self) -> impl Iterator<Item = &str> {
        [&*self.annotations.summary, &*self.annotations.description].into_iter()
    }
}

/// All of them.
pub(super) fn alerts() -> Vec<Alert> {
    let file: File = serde_saphyr::from_str(&super::text("deploy/monitoring/rules.yaml")).expect("rules");
    let rules = file.groups.into_iter().flat_map(|group| group.rules);
    rules
        .map(|rule| {
            let Rule { alert: name, expr, labels, annotations, _lasts } = rule;
            Alert { name, expr, severity: labels.severity, annotations }
        })
        .collect()
}
