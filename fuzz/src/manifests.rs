//! The text of a manifest file, and what it says next: separated by a line of `+++`.

use proxy_agent::source::fuzzing::Manifest;

use crate::plans::Planned;

pub(crate) fn decode(bytes: &[u8]) {
    let Ok(text) = str::from_utf8(bytes) else { return };
    let (mut file, mut planned) = (Manifest::default(), Planned::new());
    for text in text.split("\n+++\n") {
        planned.take(file.replace(text));
        assert_eq!(file.replace(text), [], "what is read again says nothing new");
    }
    planned.take(file.remove());
    assert!(
        planned.installed().keys().all(|id| id.service.name() == "kubernetes"),
        "a file is gone, its Services stay"
    );
}
