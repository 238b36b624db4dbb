//! Shows one row: what Kubernetes asks for, what the others do, what Sidestep does, and the tests that prove it.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};

use super::id::Id;
use crate::workspace;

/// The cells of a row in the page's text, without its id.
pub(super) fn cells(text: &str, id: Id) -> Option<[&str; 4]> {
    text.lines().find_map(|line| {
        let (first, rest) = line.strip_prefix("| ")?.strip_suffix(" |")?.split_once(" | ")?;
        (Id::parse(first.trim())? == id).then_some(())?;
        let cells: Vec<&str> = rest.split(" | ").map(str::trim).collect();
        cells.try_into().ok()
    })
}

/// Where each test's function is defined below `folders`, as `path:line`, sorted.
pub(super) fn places<'a>(
    tests: impl Iterator<Item = &'a String>,
    folders: &[&str],
) -> Result<Vec<(String, &'a str)>> {
    let tests: Vec<(&str, String)> = tests.map(|test| (test.as_str(), format!("fn {test}("))).collect();
    let mut places = Vec::new();
    for folder in folders {
        search(&workspace::path(folder), &tests, &mut places)?;
    }
    places.sort_unstable();
    Ok(places)
}

fn search<'a>(folder: &Path, tests: &[(&'a str, String)], places: &mut Vec<(String, &'a str)>) -> Result<()> {
    for entry in fs::read_dir(folder).with_context(|| folder.display().to_string())? {
        let path = entry?.path();
        if path.is_dir() {
            search(&path, tests, places)?;
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
            let shown = path.strip_prefix(workspace::root()).unwrap_or(&path).display();
            for (number, line) in text.lines().enumerate() {
                for (test, definition) in tests {
                    if line.contains(definition) {
                        places.push((format!("{shown}:{}", number + 1), test));
                    }
                }
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{Id, cells};

    #[test]
    fn a_row_is_found_by_its_id() {
        let text = "| EP-1 | a | b | c | d |\nEP-2 in a sentence\n| EP-2 | e, EP-1 | f | g | h |\n";
        let row = |id| cells(text, Id::parse(id).unwrap());
        assert_eq!(row("EP-2"), Some(["e, EP-1", "f", "g", "h"]));
        assert_eq!(row("EP-3"), None);
    }
}
