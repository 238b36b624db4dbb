//! `deploy/monitoring/dashboard.json`: the parts of Grafana's model that a dashboard needs to be readable.

use std::collections::BTreeSet;

use serde_json::Value;

/// Values of Grafana's variables for a lab.
const VARIABLES: [(&str, &str); 4] =
    [("$__rate_interval", "10s"), ("$instance", ".*"), ("$namespace", ".*"), ("$service", ".*")];
/// The width of a dashboard in columns.
const WIDTH: u64 = 24;

pub(super) struct Dashboard(Value);

impl Dashboard {
    pub(super) fn read() -> Self {
        Self(serde_json::from_str(&super::text("deploy/monitoring/dashboard.json")).expect("JSON"))
    }

    fn panels(&self) -> impl Iterator<Item = &Value> {
        self.0["panels"].as_array().expect("panels").iter()
    }

    /// The title of each panel, its expressions with the variables replaced, and their legends.
    pub(super) fn targets(&self) -> impl Iterator<Item = (&str, String, &str)> {
        self.panels().filter(|panel| panel["type"] != "row").flat_map(|panel| {
            let targets = panel["targets"].as_array().expect("targets");
            targets.iter().map(|target| {
                let expr = replaced(target["expr"].as_str().expect("an expression"));
                (string(&panel["title"]), expr, string(&target["legendFormat"]))
            })
        })
    }

    /// The selector and label that give each variable its values.
    pub(super) fn variables(&self) -> impl Iterator<Item = (String, String)> {
        let list = self.0["templating"]["list"].as_array().expect("variables");
        list.iter().filter(|variable| variable["type"] == "query").map(|variable| {
            let query = string(&variable["query"]["query"]);
            let inner = query.strip_prefix("label_values(").and_then(|rest| rest.strip_suffix(')'));
            let (selector, label) = inner.and_then(|inner| inner.rsplit_once(", ")).expect("label_values(…)");
            (replaced(selector), label.to_owned())
        })
    }

    /// Panics if a part is missing, and names it.
    pub(super) fn inspect(&self) {
        let variables = self.0["templating"]["list"].as_array().expect("variables");
        let datasource =
            variables.iter().find(|variable| variable["type"] == "datasource").expect("a data source");
        assert_eq!((&datasource["name"], &datasource["query"]), (&"datasource".into(), &"prometheus".into()));
        let (mut ids, mut cells) = (BTreeSet::new(), BTreeSet::new());
        for panel in self.panels() {
            let title = string(&panel["title"]);
            assert!(!title.is_empty() && ids.insert(panel["id"].as_u64().expect("an id")), "{panel}");
            let [x, y, w, h] =
                ["x", "y", "w", "h"].map(|side| panel["gridPos"][side].as_u64().expect("a number"));
            assert!(x + w <= WIDTH, "{title}");
            for cell in (x..x + w).flat_map(|column| (y..y + h).map(move |line| (column, line))) {
                assert!(cells.insert(cell), "{title} overlaps another panel");
            }
            if panel["type"] == "row" {
                continue;
            }
            assert!(!string(&panel["description"]).is_empty(), "{title}: no description");
            assert!(!string(&panel["fieldConfig"]["defaults"]["unit"]).is_empty(), "{title}: no unit");
            for target in panel["targets"].as_array().expect("targets") {
                assert_eq!(target["datasource"]["uid"], "${datasource}", "{title}");
            }
        }
    }
}

fn string(value: &Value) -> &str {
    value.as_str().unwrap_or_else(|| panic!("not a string: {value}"))
}

fn replaced(expr: &str) -> String {
    let expr = VARIABLES.iter().fold(expr.to_owned(), |expr, (name, value)| expr.replace(name, value));
    assert!(!expr.contains('$'), "an unknown variable: {expr}");
    expr
}
