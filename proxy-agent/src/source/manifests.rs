//! Objects from a directory of manifests: no cluster needed.
//!
//! The directory is watched; a change is read when the writer is done (it closed the file, or renamed it into place),
//! so that half a file is rarely read, and rejected if it does not parse. What could not be read since the start is told,
//! so that what an earlier agent installed of it stays. If a notification gets lost, a scan every
//! few seconds finds the change. Reading blocks, so it has a thread of its own.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    path::{Path, PathBuf},
    sync::mpsc as std_mpsc,
    thread,
    time::{Duration, Instant},
};

use notify::{
    RecommendedWatcher, RecursiveMode, Watcher,
    event::{AccessKind, AccessMode, EventKind},
};
use tokio::sync::{mpsc, oneshot};

use super::{
    Batch, Event,
    catalog::Catalog,
    directory::{self, Stamp, is_manifest},
    documents,
};
use crate::model::{Flaw, Subject, Unread};

/// How long it must be quiet before files are read.
const QUIET: Duration = Duration::from_millis(25);
/// The same, while a file is open for writing.
const QUIET_WHILE_OPEN: Duration = Duration::from_millis(250);
/// How long reading can be put off by one change after another.
const PATIENCE: Duration = Duration::from_secs(1);
/// How often the files are looked at without a notice.
const RESCAN: Duration = Duration::from_secs(10);
/// The same, while there are no notices.
const RESCAN_UNWATCHED: Duration = Duration::from_secs(2);

/// Why the directory cannot be a source.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The directory cannot be listed.
    #[error("cannot list the manifests in {}: {error}", directory.display())]
    List {
        /// The directory.
        directory: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// No thread can be started.
    #[error("cannot start the thread that reads manifests: {0}")]
    Thread(#[source] io::Error),
}

/// Reads the directory and follows it until the receiver or this future is dropped.
pub async fn run(directory: &Path, events: mpsc::Sender<Batch>) -> Result<(), Error> {
    let (wake, woken) = std_mpsc::channel();
    let (ended, end) = oneshot::channel();
    let mut reader = Reader::new(directory.to_owned(), wake.clone());
    let _stop = StopOnDrop(wake);
    thread::Builder::new()
        .name("manifests".into())
        .spawn(move || {
            let result = reader.run(&woken, &events);
            // Nobody waits any more if the future was dropped.
            let _ = ended.send(result);
        })
        .map_err(Error::Thread)?;
    end.await.unwrap_or(Ok(()))
}

/// Ends the thread when the future goes.
struct StopOnDrop(std_mpsc::Sender<Wake>);

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        // The thread may have ended by itself.
        let _ = self.0.send(Wake::Stop);
    }
}

/// Why the thread wakes up.
enum Wake {
    /// Something changed.
    Notice(Notice),
    /// The receiver is gone.
    Stop,
}

/// What the kernel says of a change.
struct Notice {
    names: Vec<String>,
    /// Whether the writer may still be changing the files.
    open: bool,
}

struct Reader {
    directory: PathBuf,
    wake: std_mpsc::Sender<Wake>,
    watch: Option<(RecommendedWatcher, Stamp)>,
    stamps: BTreeMap<String, Stamp>,
    catalog: Catalog,
    /// What was last said to be unread.
    unread: Unread,
    /// Why the directory itself could not be read the last time.
    lost: Option<Flaw>,
    /// Why the directory is not watched.
    unwatched: Option<Flaw>,
    /// What was last said of the directory.
    told: Vec<Flaw>,
    rescan: Duration,
}

impl Reader {
    fn new(directory: PathBuf, wake: std_mpsc::Sender<Wake>) -> Self {
        let (stamps, catalog) = (BTreeMap::new(), Catalog::default());
        let unread = Unread::default();
        Self {
            directory,
            wake,
            watch: None,
            stamps,
            catalog,
            unread,
            lost: None,
            unwatched: None,
            told: Vec::new(),
            rescan: RESCAN,
        }
    }

    fn run(&mut self, woken: &std_mpsc::Receiver<Wake>, events: &mpsc::Sender<Batch>) -> Result<(), Error> {
        self.watch();
        let first = self.scan(&BTreeSet::new());
        let mut batch = first.map_err(|error| Error::List { directory: self.directory.clone(), error })?;
        self.catalog.begun();
        batch.extend(self.tell());
        batch.extend([Event::PodsListed, Event::Synced]);
        loop {
            if events.is_closed() || (!batch.is_empty() && events.blocking_send(batch).is_err()) {
                return Ok(());
            }
            let rescan = if self.unwatched.is_some() { RESCAN_UNWATCHED } else { self.rescan };
            let Some(changed) = wait(woken, rescan) else { return Ok(()) };
            self.watch();
            batch = self.scan(&changed).unwrap_or_else(|error| self.lost(&error));
            batch.extend(self.tell());
        }
    }

    /// Watches the directory, again if another one has taken its place. Without a watch there is still the
    /// regular look.
    fn watch(&mut self) {
        let Ok(stamp) = Stamp::of(&self.directory) else { return };
        if self.watch.as_ref().is_some_and(|(_, watched)| watched.is_same_inode(&stamp)) {
            return;
        }
        let wake = self.wake.clone();
        let watch = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
            if let Some(notice) = notice(event) {
                // The thread may have ended.
                let _ = wake.send(Wake::Notice(notice));
            }
        });
        let watch = watch.and_then(|mut watch| {
            watch.watch(&self.directory, RecursiveMode::NonRecursive)?;
            Ok(watch)
        });
        match watch {
            Ok(watch) => (self.watch, self.unwatched) = (Some((watch, stamp)), None),
            Err(error) => {
                let message = format!(
                    "cannot be watched ({error}), so changes are found within {RESCAN_UNWATCHED:?} instead of at once; raise \
                     the sysctls fs.inotify.max_user_instances and fs.inotify.max_user_watches"
                );
                self.unwatched = Some(Flaw::new("inotify", message));
            }
        }
    }

    /// Reads what is new or different, and everything in `changed`: a file may change without looking so.
    fn scan(&mut self, changed: &BTreeSet<String>) -> io::Result<Batch> {
        let stamps = directory::manifests(&self.directory)?;
        let mut batch = Batch::new();
        self.lost = None;
        let gone: Vec<String> =
            self.catalog.names().filter(|name| !stamps.contains_key(*name)).map(Into::into).collect();
        for name in gone {
            batch.extend(self.catalog.remove(&name));
        }
        for (name, stamp) in &stamps {
            if self.stamps.get(name) != Some(stamp) || changed.contains(name) {
                batch.extend(self.read(name));
            }
        }
        self.stamps = stamps;
        let unread = self.catalog.unread();
        if unread != self.unread {
            self.unread = unread.clone();
            batch.push(Event::Unread(unread));
        }
        Ok(batch)
    }

    fn read(&mut self, name: &str) -> Vec<Event> {
        let text = fs::read(self.directory.join(name)).map_err(|error| error.to_string());
        let text = text.and_then(|bytes| {
            String::from_utf8(bytes).map_err(|_| "not UTF-8; save the file as UTF-8".to_owned())
        });
        match text {
            Ok(text) => self.catalog.replace(name, documents::parse(&text)),
            Err(message) => self.catalog.unreadable(name, Flaw::new("file", message)),
        }
    }

    /// The directory itself cannot be read: what it held stays.
    fn lost(&mut self, error: &io::Error) -> Batch {
        self.stamps.clear();
        let message = format!("cannot be listed ({error}); its last known objects stay installed");
        self.lost = Some(Flaw::new("directory", message));
        Batch::new()
    }

    /// What is wrong with the directory itself, if that has changed.
    fn tell(&mut self) -> Option<Event> {
        let flaws: Vec<Flaw> = self.lost.iter().chain(&self.unwatched).cloned().collect();
        if flaws == self.told {
            return None;
        }
        self.told.clone_from(&flaws);
        Some(Event::Found { subject: Subject::Directory { path: self.directory.clone() }, flaws })
    }
}

/// Waits for changes to come to rest; gives the names of the files. Nothing when it is time to stop.
fn wait(woken: &std_mpsc::Receiver<Wake>, rescan: Duration) -> Option<BTreeSet<String>> {
    let (mut names, mut open) = (BTreeSet::new(), BTreeSet::new());
    let mut latest = Instant::now() + rescan;
    let mut deadline = latest;
    let mut first = true;
    loop {
        match woken.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok(Wake::Notice(notice)) => {
                for name in notice.names {
                    if notice.open {
                        open.insert(name.clone())
                    } else {
                        open.remove(&name)
                    };
                    names.insert(name);
                }
                let now = Instant::now();
                if std::mem::take(&mut first) {
                    latest = now + PATIENCE;
                }
                deadline = latest.min(now + if open.is_empty() { QUIET } else { QUIET_WHILE_OPEN });
            }
            Err(std_mpsc::RecvTimeoutError::Timeout) => return Some(names),
            Ok(Wake::Stop) | Err(std_mpsc::RecvTimeoutError::Disconnected) => return None,
        }
    }
}

/// What a notice means; nothing if it is about our own reading. A notice about anything else in the
/// directory (such as the `..data` of a `ConfigMap`) is a reason to look, too.
fn notice(event: notify::Result<notify::Event>) -> Option<Notice> {
    let Ok(event) = event else { return Some(Notice { names: Vec::new(), open: false }) };
    let open = match event.kind {
        EventKind::Access(AccessKind::Close(AccessMode::Write)) => false,
        EventKind::Access(_) => return None,
        EventKind::Create(_) | EventKind::Modify(notify::event::ModifyKind::Data(_)) => true,
        _ => false,
    };
    let name = |path: &PathBuf| path.file_name()?.to_str().filter(|name| is_manifest(name)).map(Into::into);
    Some(Notice { names: event.paths.iter().filter_map(name).collect(), open })
}

#[cfg(test)]
#[path = "manifests_tests.rs"]
mod tests;
