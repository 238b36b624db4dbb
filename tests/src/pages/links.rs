//! Checks that the targets of links, and paths in code, exist.

use std::path::{Component, Path, PathBuf};

use super::{Page, root};

/// Every relative link without a target file or heading, and every path in code that does not exist. Links to other
/// sites are not checked, as tests do not use the network.
pub fn faults(pages: &[Page]) -> Vec<String> {
    let mut faults = Vec::new();
    for page in pages {
        let mut fault = |line, what: String| faults.push(format!("{}:{line}: {what}", page.path.display()));
        for link in
            page.links.iter().filter(|link| !link.text.contains("://") && !link.text.starts_with("mailto:"))
        {
            if let Some(what) = broken(page, &link.text, pages) {
                fault(link.line, format!("the link `{}`: {what}", link.text));
            }
        }
        for span in &page.spans {
            if let Some(path) = repository_path(&span.text)
                && !root().join(path).exists()
            {
                fault(span.line, format!("`{path}` does not exist"));
            }
        }
    }
    faults
}

fn broken(page: &Page, link: &str, pages: &[Page]) -> Option<String> {
    let (path, anchor) = link.split_once('#').map_or((link, None), |(path, anchor)| (path, Some(anchor)));
    let path = if path.is_empty() {
        page.path.clone()
    } else {
        plain(&page.path.parent().unwrap_or(Path::new("")).join(path))
    };
    if !root().join(&path).exists() {
        return Some(format!("{} does not exist", path.display()));
    }
    let anchor = anchor?;
    let target = pages.iter().find(|other| other.path == path)?;
    (!target.anchors.contains(anchor)).then(|| format!("{} has no heading #{anchor}", path.display()))
}

/// `docs/../README.md` as `README.md`.
fn plain(path: &Path) -> PathBuf {
    path.components().fold(PathBuf::new(), |mut plain, part| {
        match part {
            Component::CurDir => {}
            Component::ParentDir => {
                plain.pop();
            }
            other => plain.push(other),
        }
        plain
    })
}

/// The path in a span such as `tests/src/lab.rs` or `tests/src/lab.rs::Lab`; nothing for a pattern, for a command, or
/// for a path that does not begin at the repository's root.
fn repository_path(span: &str) -> Option<&str> {
    let path = span.split("::").next()?.trim_end_matches('/');
    let path = path.split_once(':').map_or(path, |(path, _)| path);
    let (first, rest) = path.split_once('/')?;
    let known = root().join(first).is_dir() && !["", "target"].contains(&first) && !first.starts_with("..");
    let plain =
        !path.contains(|character: char| character.is_whitespace() || "…*<>{}[]$()|".contains(character));
    // `deploy/overlays/NAME` is a placeholder.
    let stands_for_others = rest.rsplit('/').next()?.chars().all(char::is_uppercase);
    (known && plain && !stands_for_others).then_some(path)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::{Page, faults, repository_path};

    fn page(path: &str, text: &str) -> Page {
        Page::parse(Path::new(path), text)
    }

    #[test]
    fn a_broken_link_is_named_with_its_line() {
        let here = page("docs/a.md", "[x](gone.md)\n[y](../tests/Cargo.toml)\n[z](#no)\n[z](#yes)\n# Yes\n");
        assert_eq!(
            faults(&[here]),
            [
                "docs/a.md:1: the link `gone.md`: docs/gone.md does not exist",
                "docs/a.md:3: the link `#no`: docs/a.md does not exist",
                "docs/a.md:4: the link `#yes`: docs/a.md does not exist",
            ]
        );
        let here = page("README.md", "[z](#no)\n[z](#yes)\n\n# Yes\n[w](https://example.org/#a)\n");
        assert_eq!(faults(&[here]), ["README.md:1: the link `#no`: README.md has no heading #no"]);
    }

    #[test]
    fn a_path_in_code_is_one_from_the_root() {
        for (span, path) in [
            ("tests/src/lab.rs", Some("tests/src/lab.rs")),
            ("tests/src/lab.rs::Lab", Some("tests/src/lab.rs")),
            ("tests/src/lab.rs:12", Some("tests/src/lab.rs")),
            ("deploy/overlays/", Some("deploy/overlays")),
            ("deploy/overlays/*", None),
            ("deploy/overlays/NAME", None),
            ("plan/frontends.rs", None),
            ("/run/sidestep", None),
            ("kubectl apply -k deploy/demo", None),
        ] {
            assert_eq!(repository_path(span), path, "{span}");
        }
    }
}
