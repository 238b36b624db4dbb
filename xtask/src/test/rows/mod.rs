//! Checks that every row of the service semantics has a test, or a reason why it has none.
//!
//! The tables of [`table::PAGE`] are the one list of rows; tests carry their ids. A row with neither a test nor a reason
//! fails the run, and so does a test with an unknown id.

mod id;
mod show;
mod source;
mod table;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, bail};

use self::id::Id;
use self::table::{EXPLAINED, PAGE, Table};
use crate::workspace;

/// The folders with tests that prove rows. xtask's own tests are not among them: they use ids as examples.
const SOURCES: [&str; 3] = ["proxy-common", "proxy-agent", "tests"];

/// The names of the tests that carry each id.
type Proofs = BTreeMap<Id, BTreeSet<String>>;

/// Which rows to show.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Rows to show, such as EP-7 [default: a list of all]
    ///
    /// Each with its text, the behaviour of kube-proxy, Cilium and Sidestep, and where its tests are.
    #[arg(value_name = "ID")]
    ids: Vec<String>,
}

/// Every row, with its tests.
#[derive(Debug)]
pub(crate) struct Rows {
    /// The page with the table.
    text: String,
    table: Table,
    proofs: Proofs,
}

impl Rows {
    /// Reads the page of rows and all test sources.
    pub(crate) fn read() -> Result<Self> {
        let text = fs::read_to_string(workspace::path(PAGE)).context(PAGE)?;
        let table = table::parse(&text).context(PAGE)?;
        let mut proofs = Proofs::new();
        for folder in SOURCES {
            collect(&workspace::path(folder), &mut proofs)?;
        }
        Ok(Self { text, table, proofs })
    }

    /// Prints a line of counts; fails if a row has neither a test nor a reason, if a test carries an unknown id, or if a
    /// test that carries an id is not among those that `ran`.
    pub(super) fn check(&self, ran: Option<&BTreeSet<String>>) -> Result<()> {
        let faults = self.faults(ran);
        println!("{self}");
        if faults.is_empty() {
            Ok(())
        } else {
            bail!("rows of service semantics (see CONTRIBUTING.md): {}", faults.join("; "))
        }
    }

    fn faults(&self, ran: Option<&BTreeSet<String>>) -> Vec<String> {
        let neither = self
            .neither()
            .map(|id| format!("{id} has no test, and {PAGE} does not say why (`{EXPLAINED} …`)"));
        let unknown = self.proofs.iter().filter(|(id, _)| !self.table.contains_key(id));
        let unknown =
            unknown.map(|(id, tests)| format!("{id} is not a row of {PAGE}, but {tests:?} carries it"));
        let tests: BTreeSet<&String> = self.proofs.values().flatten().collect();
        let idle = tests.into_iter().filter(|test| ran.is_some_and(|ran| !ran.contains(*test)));
        let idle = idle.map(|test| format!("{test} carries an id, but did not run"));
        neither.chain(unknown).chain(idle).collect()
    }

    fn proved(&self) -> impl Iterator<Item = Id> {
        self.table.keys().copied().filter(|id| self.proofs.contains_key(id))
    }

    fn explained(&self) -> impl Iterator<Item = Id> {
        let reasons =
            self.table.iter().filter(|(id, reason)| reason.is_some() && !self.proofs.contains_key(id));
        reasons.map(|(id, _)| *id)
    }

    fn neither(&self) -> impl Iterator<Item = Id> {
        let rest = self.table.iter().filter(|(id, reason)| reason.is_none() && !self.proofs.contains_key(id));
        rest.map(|(id, _)| *id)
    }

    /// `cargo xtask rows`: these rows with their text, or all in one line each.
    pub(crate) fn print(&self, args: &Args) -> Result<()> {
        if args.ids.is_empty() {
            self.list();
        }
        for text in &args.ids {
            let id = Id::parse(&text.to_ascii_uppercase()).filter(|id| self.table.contains_key(id));
            self.show(id.with_context(|| format!("{text} is not a row; `cargo xtask rows` lists all"))?)?;
        }
        Ok(())
    }

    /// Prints one row: its cells, and where its tests are.
    fn show(&self, id: Id) -> Result<()> {
        let [asked, kube_proxy, cilium, sidestep] =
            show::cells(&self.text, id).with_context(|| format!("{PAGE}: row {id} has too few cells"))?;
        println!("{id}  {asked}");
        println!("  kube-proxy  {kube_proxy}\n  Cilium      {cilium}\n  Sidestep    {sidestep}");
        let tests = self.proofs.get(&id).into_iter().flatten();
        for (place, test) in show::places(tests, &SOURCES)? {
            println!("  {test}\n    {place}");
        }
        Ok(())
    }

    /// Prints every row with its tests, or the reason why it has none.
    fn list(&self) {
        for (id, reason) in &self.table {
            match (self.proofs.get(id), reason) {
                (Some(tests), _) => tests.iter().for_each(|test| println!("{id}\t{test}")),
                (None, Some(reason)) => println!("{id}\tno test: {reason}"),
                (None, None) => println!("{id}\tNEITHER"),
            }
        }
    }
}

impl fmt::Display for Rows {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (proved, explained) = (self.proved().count(), self.explained().count());
        let neither = self.neither().count();
        write!(
            f,
            "rows of service semantics: {proved} covered by tests, {explained} explained in {PAGE}, {neither} neither"
        )?;
        // An obsolete reason does not fail a run, but is reported.
        for id in self.proved().filter(|id| self.table[id].is_some()) {
            write!(f, "\nrow {id} has a test, but {PAGE} still says `{EXPLAINED}`")?;
        }
        Ok(())
    }
}

/// Adds the tests of every Rust file below `folder`.
fn collect(folder: &Path, proofs: &mut Proofs) -> Result<()> {
    for entry in fs::read_dir(folder).with_context(|| folder.display().to_string())? {
        let path = entry?.path();
        if path.is_dir() {
            collect(&path, proofs)?;
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
            for test in source::tests(&text).with_context(|| path.display().to_string())? {
                for id in test.ids {
                    proofs.entry(id).or_default().insert(test.name.clone());
                }
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::{Id, Proofs, Rows, table};

    fn rows(text: &str, tests: &[(&str, &str)]) -> Rows {
        let mut proofs = Proofs::new();
        for (id, test) in tests {
            proofs.entry(Id::parse(id).unwrap()).or_default().insert((*test).to_owned());
        }
        Rows { text: text.to_owned(), table: table::parse(text).unwrap(), proofs }
    }

    const TABLE: &str = "\
| EP-1 | a | b | c | d |
| EP-2 | a | b | c | No test: of no use here |
| EP-3 | a | b | c | d |
";

    #[test]
    fn a_row_with_neither_a_test_nor_a_reason_is_a_fault() {
        let rows = rows(TABLE, &[("EP-1", "one")]);
        assert_eq!(
            rows.to_string(),
            "rows of service semantics: 1 covered by tests, 1 explained in docs/kube-proxy-parity.md, 1 neither"
        );
        assert_eq!(
            rows.faults(None),
            ["EP-3 has no test, and docs/kube-proxy-parity.md does not say why (`No test: …`)"]
        );
    }

    #[test]
    fn an_unknown_id_is_a_fault() {
        let rows = rows(TABLE, &[("EP-1", "one"), ("EP-3", "three"), ("PO-99", "typo")]);
        assert_eq!(
            rows.faults(None),
            [r#"PO-99 is not a row of docs/kube-proxy-parity.md, but {"typo"} carries it"#]
        );
    }

    #[test]
    fn a_test_that_did_not_run_is_a_fault() {
        let rows = rows(TABLE, &[("EP-1", "one"), ("EP-3", "three")]);
        let ran = BTreeSet::from(["one".to_owned(), "other".to_owned()]);
        assert_eq!(rows.faults(Some(&ran)), ["three carries an id, but did not run"]);
        assert_eq!(rows.faults(None), [""; 0], "unless only some were asked for");
    }

    #[test]
    fn an_obsolete_reason_is_reported() {
        let rows = rows(TABLE, &[("EP-1", "one"), ("EP-2", "two"), ("EP-3", "three")]);
        assert_eq!(rows.faults(None), [""; 0]);
        let overtaken = "row EP-2 has a test, but docs/kube-proxy-parity.md still says `No test:`";
        assert!(rows.to_string().ends_with(overtaken));
    }
}
