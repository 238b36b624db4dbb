//! The list of all rows: the comparison tables of [`PAGE`].
//!
//! A row is a line `| EP-7 | what is asked | kube-proxy | Cilium | Sidestep |`. A row without a test says why in its
//! last cell, after the words [`EXPLAINED`].

use std::collections::BTreeMap;

use anyhow::{Result, bail, ensure};

use super::id::Id;

/// The page that lists the rows, from the workspace's root.
pub(super) const PAGE: &str = "docs/kube-proxy-parity.md";

/// The words before the reason why a row has no test.
pub(super) const EXPLAINED: &str = "No test:";

/// Every row, and the reason why it has no test if the table gives one.
pub(super) type Table = BTreeMap<Id, Option<String>>;

/// Reads the rows from the text of [`PAGE`].
pub(super) fn parse(text: &str) -> Result<Table> {
    let mut table = Table::new();
    for line in text.lines() {
        let Some(cells) = line.strip_prefix("| ").and_then(|line| line.strip_suffix(" |")) else { continue };
        let cells: Vec<&str> = cells.split(" | ").map(str::trim).collect();
        let Some(id) = cells.first().copied().and_then(Id::parse) else { continue };
        let [_, asked, others @ .., ours] = cells.as_slice() else {
            bail!("{id}: a row has five cells, not one")
        };
        ensure!(
            others.len() == 2 && ![asked, ours].iter().any(|cell| cell.is_empty()),
            "{id}: a row is `| id | what is asked | kube-proxy | Cilium | Sidestep |`, not `{line}`"
        );
        let reason = ours.split_once(EXPLAINED).map(|(_, reason)| reason.trim().to_owned());
        ensure!(reason.as_deref() != Some(""), "{id}: `{EXPLAINED}` without a reason");
        ensure!(table.insert(id, reason).is_none(), "{id} is in the table twice");
    }
    ensure!(!table.is_empty(), "the page has no row such as `| EP-7 | …`");
    let mut previous: Option<Id> = None;
    for id in table.keys() {
        let last = previous.filter(|last| last.group() == id.group()).map_or(0, |last| last.number);
        ensure!(id.number == last + 1, "{}-{} is missing before {id}", id.group(), last + 1);
        previous = Some(*id);
    }
    Ok(table)
}

#[cfg(test)]
mod tests {
    use super::{Id, parse};

    #[test]
    fn only_lines_that_begin_with_an_id_are_rows() {
        let text = "\
| id | what | kube-proxy | Cilium | Sidestep |
|---|---|---|---|---|
| EP-1 | asked | they | they too | so do we |
| EP-2 | asked | they | not checked | read and ignored. No test: nothing follows from it |
| FRONTENDS | a | b | c | d |
EP-9 in a sentence.
";
        let table = parse(text).unwrap();
        let reasons: Vec<_> = table.iter().map(|(id, reason)| (id.to_string(), reason.as_deref())).collect();
        assert_eq!(reasons, [("EP-1".into(), None), ("EP-2".into(), Some("nothing follows from it"))]);
        assert_eq!(table.keys().next().copied(), Id::parse("EP-1"));
    }

    #[test]
    fn a_table_without_one_of_its_rows_is_refused() {
        let row = |id: &str| format!("| {id} | a | b | c | d |\n");
        let refused = |text: String| parse(&text).unwrap_err().to_string();
        assert_eq!(refused(row("EP-1") + &row("EP-3")), "EP-2 is missing before EP-3");
        assert_eq!(refused(row("EP-1") + &row("PO-2")), "PO-1 is missing before PO-2");
        assert_eq!(refused(row("EP-1") + &row("EP-1")), "EP-1 is in the table twice");
        assert_eq!(refused(String::new()), "the page has no row such as `| EP-7 | …`");
    }

    #[test]
    fn an_incomplete_row_is_refused() {
        assert!(parse("| EP-1 | a | b | c |\n").is_err());
        assert!(parse("| EP-1 | a | b | c |  |\n").is_err());
        assert!(parse("| EP-1 | a | b | c | we do. No test: |\n").is_err());
    }
}
