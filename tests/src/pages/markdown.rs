//! The contents of one page.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

use pulldown_cmark::{CodeBlockKind, Event, Options, Parser, Tag, TagEnd};

/// The languages of command blocks; a block without a language counts as one, too.
const SHELL: [&str; 5] = ["", "bash", "console", "sh", "shell"];

/// A text in a page, with its line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// Counted from 1.
    pub line: usize,
    /// As written.
    pub text: String,
}

/// One page.
#[derive(Debug)]
pub struct Page {
    /// The path below the repository's root.
    pub path: PathBuf,
    /// The targets of links and images.
    pub links: Vec<Found>,
    /// The anchors of headings, as GitHub names them.
    pub anchors: BTreeSet<String>,
    /// Code within lines.
    pub spans: Vec<Found>,
    /// The lines of command blocks.
    pub shell: Vec<Found>,
    /// Tables by the text of their first header cell: the first cell of each row.
    pub tables: Vec<(String, Vec<String>)>,
}

impl Page {
    /// Reads the text of the page at `path`.
    pub fn parse(path: &Path, text: &str) -> Self {
        let mut page = Self {
            path: path.to_owned(),
            links: Vec::new(),
            anchors: BTreeSet::new(),
            spans: Vec::new(),
            shell: Vec::new(),
            tables: Vec::new(),
        };
        let mut reader = Reader::default();
        for (event, range) in Parser::new_ext(text, Options::ENABLE_TABLES).into_offset_iter() {
            let line = 1 + text[..range.start].matches('\n').count();
            reader.take(&event, line, &mut page);
        }
        page
    }
}

/// The state of the reader.
#[derive(Default)]
struct Reader {
    /// The text of the current heading or cell.
    text: Option<String>,
    /// The cells so far of the current row.
    cells: usize,
    /// Whether the current block is a command block.
    shell: bool,
    /// How often each heading name has occurred.
    headings: BTreeMap<String, usize>,
}

impl Reader {
    fn take(&mut self, event: &Event<'_>, line: usize, page: &mut Page) {
        match event {
            Event::Start(Tag::Link { dest_url, .. } | Tag::Image { dest_url, .. }) => {
                page.links.push(Found { line, text: dest_url.to_string() });
            }
            Event::Html(html) | Event::InlineHtml(html) => {
                page.links.extend(targets(html).map(|text| Found { line, text }));
            }
            Event::Start(Tag::Heading { .. } | Tag::TableCell) => self.text = Some(String::new()),
            Event::End(TagEnd::Heading(_)) => {
                let name = anchor(&self.text.take().unwrap_or_default());
                let count = self.headings.entry(name.clone()).or_default();
                page.anchors.insert(if *count == 0 { name } else { format!("{name}-{count}") });
                *count += 1;
            }
            Event::Start(Tag::TableHead | Tag::TableRow) => self.cells = 0,
            Event::End(TagEnd::TableCell) => {
                self.cells += 1;
                let cell = self.text.take().unwrap_or_default();
                if self.cells == 1
                    && let Some((_, rows)) = page.tables.last_mut()
                {
                    rows.push(cell);
                }
            }
            Event::Start(Tag::Table(_)) => page.tables.push((String::new(), Vec::new())),
            Event::End(TagEnd::TableHead) => {
                if let Some((header, rows)) = page.tables.last_mut() {
                    *header = rows.pop().unwrap_or_default();
                }
            }
            Event::Start(Tag::CodeBlock(kind)) => {
                self.shell = match kind {
                    CodeBlockKind::Fenced(language) => SHELL.contains(&language.trim()),
                    CodeBlockKind::Indented => true,
                };
            }
            Event::End(TagEnd::CodeBlock) => self.shell = false,
            Event::Code(code) => {
                page.spans.push(Found { line, text: code.to_string() });
                self.read(code);
            }
            Event::Text(text) => {
                if self.shell {
                    let lines = text.lines().enumerate();
                    page.shell.extend(
                        lines.map(|(after, text)| Found { line: line + after, text: text.to_owned() }),
                    );
                }
                self.read(text);
            }
            _ => {}
        }
    }

    fn read(&mut self, more: &str) {
        if let Some(text) = &mut self.text {
            text.push_str(more);
        }
    }
}

/// The targets of HTML attributes.
fn targets(html: &str) -> impl Iterator<Item = String> {
    ["src=\"", "srcset=\"", "href=\""].into_iter().flat_map(move |attribute| {
        html.split(attribute).skip(1).filter_map(|rest| Some(rest.split_once('"')?.0.to_owned()))
    })
}

/// The name that GitHub gives a heading: lower case, spaces as dashes, and no punctuation.
fn anchor(heading: &str) -> String {
    heading
        .trim()
        .chars()
        .filter(|character| character.is_alphanumeric() || [' ', '-', '_'].contains(character))
        .map(|character| if character == ' ' { '-' } else { character })
        .flat_map(char::to_lowercase)
        .collect()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::{Found, Page};

    fn page(text: &str) -> Page {
        Page::parse(Path::new("page.md"), text)
    }

    fn texts(found: &[Found]) -> Vec<(usize, &str)> {
        found.iter().map(|found| (found.line, found.text.as_str())).collect()
    }

    #[test]
    fn links_are_found_in_markdown_and_in_html() {
        let page = page("[a](b.md#c) ![d](e.svg)\n\n[f][g]\n\n<img src=\"h.svg\">\n\n[g]: i.md\n");
        assert_eq!(texts(&page.links), [(1, "b.md#c"), (1, "e.svg"), (3, "i.md"), (5, "h.svg")]);
    }

    #[test]
    fn headings_are_named_as_on_github() {
        let page = page("# What is *not* `served`?\n## The hooks, and tc\n## Again\n## Again\n");
        let anchors: Vec<&str> = page.anchors.iter().map(String::as_str).collect();
        assert_eq!(anchors, ["again", "again-1", "the-hooks-and-tc", "what-is-not-served"]);
    }

    #[test]
    fn only_blocks_of_commands_are_read_as_such() {
        let page = page("`x y`\n\n```sh\na\nb\n```\n\n```yaml\nc: d\n```\n");
        assert_eq!(texts(&page.spans), [(1, "x y")]);
        assert_eq!(texts(&page.shell), [(4, "a"), (5, "b")]);
    }

    #[test]
    fn tables_are_known_by_their_first_cell() {
        let page = page("| map | kind |\n|---|---|\n| `ONE` | hash |\n| TWO | array |\n");
        assert_eq!(page.tables, [("map".to_owned(), vec!["ONE".to_owned(), "TWO".to_owned()])]);
    }
}
