//! Notices that the configuration file has changed (CF-17).

use std::{path::Path, time::Duration};

use tokio::time::sleep;

/// How often the file is read. A ConfigMap's file changes by a swap of symbolic links, which watches easily miss.
const LOOK: Duration = Duration::from_secs(2);

/// Waits until the file says something other than `text`. A file that is missing for a while does not count as
/// changed.
pub async fn changed(file: Option<(&Path, &str)>) {
    let Some((path, text)) = file else { return std::future::pending().await };
    loop {
        sleep(LOOK).await;
        if std::fs::read_to_string(path).is_ok_and(|now| now != text) {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// CF-17: another text is a change; the same text, or none, is not.
    #[tokio::test(start_paused = true)]
    async fn only_another_text_is_a_change() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("config.yaml");
        let mut change = std::pin::pin!(changed(Some((path.as_path(), "a"))));
        for text in [None, Some("a")] {
            if let Some(text) = text {
                std::fs::write(&path, text).expect("written");
            }
            let waited = tokio::time::timeout(LOOK * 3, change.as_mut()).await;
            assert!(waited.is_err(), "{text:?} is no change");
        }
        std::fs::write(&path, "b").expect("written");
        tokio::time::timeout(LOOK * 3, change).await.expect("a change");
    }
}
