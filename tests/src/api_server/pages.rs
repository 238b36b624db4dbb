//! Lists that clients are reading page by page.

use std::{collections::VecDeque, sync::Arc};

use hyper::body::Bytes;

/// How many lists clients can read at the same time.
const KEPT: usize = 8;

/// The last few lists, each as of its first page.
#[derive(Default, Debug)]
pub(super) struct Pages {
    lists: VecDeque<(u64, Arc<[Bytes]>)>,
    started: u64,
}

impl Pages {
    /// Keeps a list, and returns its number.
    pub(super) fn keep(&mut self, items: Arc<[Bytes]>) -> u64 {
        self.started += 1;
        self.lists.push_back((self.started, items));
        if self.lists.len() > KEPT {
            self.lists.pop_front();
        }
        self.started
    }

    /// The list that was kept last.
    pub(super) fn newest(&self) -> Arc<[Bytes]> {
        self.lists.back().map(|(_, items)| Arc::clone(items)).unwrap_or_default()
    }

    /// The list with this number, if it is still kept.
    pub(super) fn of(&self, number: u64) -> Option<Arc<[Bytes]>> {
        self.lists.iter().find(|(its, _)| *its == number).map(|(_, items)| Arc::clone(items))
    }

    /// Forgets them all.
    pub(super) fn clear(&mut self) {
        self.lists.clear();
    }
}
