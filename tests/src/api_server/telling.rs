//! The lines of one watch, with their faults.

use serde_json::json;

use super::{Kind, Slip, watching::expired};

/// How a watch ends early.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum End {
    /// Properly.
    Whole,
    /// The connection breaks.
    Broken,
    /// Not at all: it sends nothing more.
    Never,
}

/// Writes lines, with faults.
#[derive(Default, Debug)]
pub(super) struct Teller {
    said: Vec<u8>,
    /// A line held back until after the next one.
    held: Vec<u8>,
    /// The first line.
    first: Vec<u8>,
}

impl Teller {
    /// Writes the line of an event, including its line ending. Nothing may follow an end.
    pub(super) fn tell(&mut self, kind: Kind, version: u64, line: &[u8], slip: Option<Slip>) -> Option<End> {
        let half = &line[..line.len() / 2];
        let mut end = None;
        match slip {
            None => self.line(line),
            Some(Slip::Stall) => end = Some(End::Never),
            Some(Slip::Cut) => {
                self.said.extend_from_slice(half);
                end = Some(End::Broken);
            }
            Some(Slip::EndWithin) => {
                self.said.extend_from_slice(half);
                end = Some(End::Whole);
            }
            Some(Slip::EndBefore) => end = Some(End::Whole),
            Some(Slip::Halve) => {
                self.line(half);
                self.said.push(b'\n');
            }
            Some(Slip::Garbage) => {
                self.line(b"<html>502 Bad Gateway</html>\n");
                self.line(line);
            }
            Some(Slip::Gone) => {
                self.line(&expired());
                end = Some(End::Whole);
            }
            Some(Slip::Twice) => {
                self.line(line);
                self.line(line);
            }
            Some(Slip::Again) => {
                self.line(line);
                let first = self.first.clone();
                self.line(&first);
            }
            // Before a line that is already held back.
            Some(Slip::Swap) => self.held.splice(..0, line.iter().copied()).for_each(drop),
            Some(Slip::Rename) => self.line(&renamed(line)),
            Some(Slip::DeleteUnknown) => {
                self.line(&deletion(kind, version - 1));
                self.line(line);
            }
        }
        if self.first.is_empty() {
            self.first = line.to_vec();
        }
        end
    }

    /// Writes a bookmark. A line that is held back follows it: late, not lost.
    pub(super) fn tell_bookmark(&mut self, line: &[u8]) {
        self.line(line);
    }

    /// Takes the bytes to send.
    pub(super) fn take(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.said)
    }

    fn line(&mut self, line: &[u8]) {
        self.said.extend_from_slice(line);
        self.said.append(&mut self.held);
    }
}

fn renamed(line: &[u8]) -> Vec<u8> {
    let line = String::from_utf8_lossy(line);
    let (added, modified) = (r#"{"type":"ADDED""#, r#"{"type":"MODIFIED""#);
    let renamed = match line.strip_prefix(added) {
        Some(rest) => format!("{modified}{rest}"),
        None => line.replacen(modified, added, 1),
    };
    renamed.into_bytes()
}

/// The deletion of an object that never existed.
fn deletion(kind: Kind, version: u64) -> Vec<u8> {
    let (api_version, name) = kind.type_meta();
    let object = json!({"kind": name, "apiVersion": api_version,
        "metadata": {"name": "never-was", "namespace": "default", "resourceVersion": version.to_string()}});
    format!("{}\n", json!({"type": "DELETED", "object": object})).into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(slips: &[Option<Slip>]) -> (String, Option<End>) {
        let mut teller = Teller::default();
        let mut end = None;
        for (number, slip) in (1..).zip(slips) {
            let line = format!("line {number}\n");
            end = teller.tell(Kind::Node, number, line.as_bytes(), *slip);
        }
        (String::from_utf8(teller.take()).expect("text"), end)
    }

    #[test]
    fn lines_have_the_injected_faults() {
        assert_eq!(told(&[None, None]), ("line 1\nline 2\n".into(), None));
        assert_eq!(told(&[None, Some(Slip::Twice)]).0, "line 1\nline 2\nline 2\n");
        assert_eq!(told(&[None, None, Some(Slip::Again)]).0, "line 1\nline 2\nline 3\nline 1\n");
        assert_eq!(told(&[Some(Slip::Swap), None, None]).0, "line 2\nline 1\nline 3\n");
        assert_eq!(told(&[Some(Slip::Halve), None]).0, "lin\nline 2\n");
        assert_eq!(told(&[None, Some(Slip::Cut)]), ("line 1\nlin".into(), Some(End::Broken)));
        assert_eq!(told(&[None, Some(Slip::Stall)]), ("line 1\n".into(), Some(End::Never)));
        assert_eq!(renamed(br#"{"type":"ADDED","object"#), br#"{"type":"MODIFIED","object"#);
        assert_eq!(renamed(br#"{"type":"MODIFIED","object"#), br#"{"type":"ADDED","object"#);
    }
}
