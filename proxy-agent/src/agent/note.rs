//! The agent's note in its lock file: who has the lock, and what becomes of it.
//!
//! It is written in place and never grows, so that it can be written where the report cannot: on a full disk.

use std::{fs::File, io, os::unix::fs::FileExt as _};

use serde::{Deserialize, Serialize};

/// What an agent says of itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Note {
    pub(super) pid: u32,
    pub(super) phase: Phase,
    /// What it waits for, why it cannot write its report, or why it failed.
    pub(super) detail: Option<String>,
}

/// What it does, or did last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) enum Phase {
    /// It has not written a report yet.
    Starting,
    /// It wrote a report, or tried to.
    Running,
    /// It ended because it was asked to.
    Stopped,
    /// It ended with an error.
    Failed,
}

/// The size of the file, of which one page of memory or one block of a disk is in use from the first write on.
const SIZE: usize = 1024;
/// The longest detail. JSON may need two bytes for each.
const DETAIL: usize = 400;
/// A reader may meet a half-written note.
const TRIES: usize = 3;

impl Note {
    /// Of this process.
    pub(super) fn own(phase: Phase, detail: Option<String>) -> Self {
        Self { pid: std::process::id(), phase, detail }
    }

    /// Overwrites the note in the file.
    pub(super) fn write(&self, file: &File) -> io::Result<()> {
        let detail = self.detail.as_deref().map(|detail| detail.chars().take(DETAIL).collect());
        let mut text = serde_json::to_vec(&Self { detail, ..self.clone() })?;
        text.resize(SIZE.max(text.len()), b'\n');
        file.write_all_at(&text, 0)
    }

    /// The note in the file, if there is one.
    pub(super) fn read(file: &File) -> Option<Self> {
        let mut bytes = [0; 4 * SIZE];
        (0..TRIES).find_map(|_| {
            let length = file.read_at(&mut bytes, 0).ok()?;
            // What an older version or a longer note left behind it does not count.
            let line = bytes.get(..length)?.split(|byte| *byte == b'\n').next()?;
            serde_json::from_slice(line).ok()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_note_is_overwritten_in_place_whatever_its_length() {
        let file = tempfile::tempfile().expect("a file");
        assert_eq!(Note::read(&file), None);
        for detail in [Some("\"ä\"\n".repeat(1000)), None, Some("no space".to_owned())] {
            let note = Note::own(Phase::Running, detail.clone());
            note.write(&file).expect("writable");
            let read = Note::read(&file).expect("a note");
            assert_eq!((read.pid, read.phase), (note.pid, note.phase));
            let expected = detail.map(|detail| detail.chars().take(DETAIL).collect());
            assert_eq!(read.detail, expected);
        }
    }
}
