//! The tests of a source file, and the row ids that each of them carries.
//!
//! The file is read as Rust tokens, which finds `#[test]` functions anywhere, in modules and in macros such as
//! `proptest!`, and the functions of which `in_every_variant!(…)` makes tests. Comments are not tokens; an id counts
//! if it lies between the first line of a test's doc comment and the end of its body, or in its name.

use std::collections::BTreeSet;
use std::ops::Range;
use std::str::FromStr as _;

use anyhow::{Result, anyhow};
use proc_macro2::{Delimiter, Group, TokenStream, TokenTree};

use super::id::Id;

/// A test and the rows that it claims to prove.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Test {
    /// The function's name.
    pub(super) name: String,
    /// The ids, in the order of the text, possibly with duplicates.
    pub(super) ids: Vec<Id>,
}

/// Every test of a file that runs by default: an `#[ignore]`d one proves nothing.
pub(super) fn tests(text: &str) -> Result<Vec<Test>> {
    let tokens = TokenStream::from_str(text).map_err(|error| anyhow!("not Rust: {error}"))?;
    let (scenarios, mut found) = (scenarios(tokens.clone()), Vec::new());
    walk(tokens, &scenarios, &mut found);
    let test = |(name, span): (String, Range<usize>)| {
        let mut ids = Id::leading(&name);
        ids.extend(Id::all_in(text.get(span).unwrap_or_default()));
        Test { name, ids }
    };
    Ok(found.into_iter().map(test).collect())
}

/// The functions that calls of `in_every_variant!(…)` in this file name.
fn scenarios(tokens: TokenStream) -> BTreeSet<String> {
    let tokens: Vec<TokenTree> = tokens.into_iter().collect();
    let called = tokens.windows(3).filter_map(|window| match window {
        [TokenTree::Ident(word), TokenTree::Punct(_), TokenTree::Group(names)]
            if word == "in_every_variant" =>
        {
            Some(names.stream())
        }
        _ => None,
    });
    called.flatten().map(|name| name.to_string()).collect()
}

/// The attributes before an item.
#[derive(Default)]
struct Attributes {
    /// Where the first one begins, including doc comments.
    start: Option<usize>,
    test: bool,
    ignored: bool,
}

impl Attributes {
    fn add(&mut self, start: usize, attribute: &Group) {
        self.start.get_or_insert(start);
        // `test`, or a path that ends in it, such as `tokio::test(…)`.
        let path: Vec<String> = attribute
            .stream()
            .into_iter()
            .take_while(|token| !matches!(token, TokenTree::Group(_) | TokenTree::Literal(_)))
            .filter(|token| matches!(token, TokenTree::Ident(_)))
            .map(|token| token.to_string())
            .collect();
        self.test |= path.last().is_some_and(|last| last == "test");
        self.ignored |= path.first().is_some_and(|first| first == "ignore");
    }
}

/// Collects the names of tests and their spans, in bytes.
fn walk(tokens: TokenStream, scenarios: &BTreeSet<String>, found: &mut Vec<(String, Range<usize>)>) {
    let mut tokens = tokens.into_iter().peekable();
    let mut attributes = Attributes::default();
    let mut function: Option<String> = None;
    while let Some(token) = tokens.next() {
        match token {
            TokenTree::Punct(sign) if sign.as_char() == '#' => {
                if let Some(TokenTree::Group(group)) = tokens.peek()
                    && group.delimiter() == Delimiter::Bracket
                {
                    attributes.add(sign.span().byte_range().start, group);
                    tokens.next();
                }
            }
            TokenTree::Punct(sign) if sign.as_char() == ';' => {
                (attributes, function) = (Attributes::default(), None);
            }
            TokenTree::Ident(word) if word == "fn" => {
                function = tokens.peek().map(ToString::to_string);
            }
            TokenTree::Group(group) if group.delimiter() == Delimiter::Brace => {
                match (function.take(), std::mem::take(&mut attributes)) {
                    (Some(name), Attributes { start: Some(start), test, ignored })
                        if test || scenarios.contains(&name) =>
                    {
                        if !ignored {
                            found.push((name, start..group.span_close().byte_range().end));
                        }
                    }
                    _ => walk(group.stream(), scenarios, found),
                }
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::tests;

    /// The tests of `text` as `name: ids`.
    fn found(text: &str) -> Vec<String> {
        let line = |test: super::Test| {
            let ids: Vec<String> = test.ids.iter().map(ToString::to_string).collect();
            format!("{}: {}", test.name, ids.join(" "))
        };
        tests(text).unwrap().into_iter().map(line).collect()
    }

    #[test]
    fn an_id_belongs_to_the_test_around_it() {
        let text = r#"
            //! PO-1 of the file is nobody's.
            /// PO-2 of a function that is no test.
            fn helper() { /* PO-3 */ }
            #[cfg(test)]
            mod tests {
                /// EP-1, ä:
                /// EP-2.
                #[test]
                fn fe_3_first() -> Result<(), [u8; 2]> {
                    // EP-4
                    assert!(works(), "EP-5: it works");
                    { nested(); }
                }
                // PO-4 between two tests.
                const PO: &str = "PO-5";
                #[test]
                fn second() {}
            }
            fn after() { "PO-6"; }
        "#;
        assert_eq!(found(text), ["fe_3_first: FE-3 EP-1 EP-2 EP-4 EP-5", "second: "]);
    }

    #[test]
    fn tests_in_macros_and_with_other_attributes_are_found() {
        let text = "
            proptest! {
                #![proptest_config(ProptestConfig::default())]
                /// EP-1..EP-3: always.
                #[test]
                fn property(a in 0..3, b in prop::collection::vec(x(), 1..4)) { body(); }
            }
            /// EP-4.
            #[tokio::test(start_paused = true)]
            async fn later() {}
        ";
        assert_eq!(found(text), ["property: EP-1 EP-2 EP-3", "later: EP-4"]);
    }

    #[test]
    fn functions_that_run_in_every_variant_are_tests() {
        let text = "
            in_every_variant!(first, second);
            /// PO-4
            fn first(nodes: &TwoNodes) {}
            /// PO-5
            fn helper() {}
            /// PO-6
            fn second(nodes: &TwoNodes) { vec![1].first(); }
        ";
        assert_eq!(found(text), ["first: PO-4", "second: PO-6"]);
    }

    #[test]
    fn an_ignored_test_proves_nothing() {
        let text = r#"
            /// EP-1
            #[test]
            #[ignore = "slow"]
            fn ignored() {}
            /// EP-2
            #[cfg(test)]
            fn not_a_test() {}
            extern "C" { fn foreign(); }
        "#;
        assert_eq!(found(text), [""; 0]);
    }
}
