//! Releases slots, indexes and ids only when no program can still read them.
//!
//! An update of an array of maps from user space makes the kernel wait for all running programs
//! (`maybe_wait_bpf_programs`), also on machines with one processor and on `nohz_full` kernels, where `membarrier`
//! does not. That takes milliseconds, so a separate thread waits for it, once for everything retired in the meantime,
//! and publishing never waits.

use std::{
    sync::mpsc::{Receiver, Sender, channel},
    thread::JoinHandle,
    time::Duration,
};

use aya::maps::{Array, ArrayOfMaps, MapData};

use super::retired::Retired;
use crate::dataplane::Error;

/// The waiting thread, and its work.
#[derive(Debug)]
pub(crate) struct Grace {
    /// `None` only while dropping: the thread ends when the sender is gone.
    retire: Option<Sender<Retired>>,
    /// What is free, and how many [`Grace::retire`] calls it comes from.
    free: Receiver<(Retired, usize)>,
    /// Calls whose grace period is not over.
    pending: usize,
    thread: Option<JoinHandle<()>>,
}

impl Grace {
    pub(crate) fn new(map: ArrayOfMaps<MapData, Array<MapData, u32>>) -> Result<Self, Error> {
        let readers = Readers::new(map)?;
        let (retire, retired) = channel();
        let (give, free) = channel();
        let thread = std::thread::Builder::new()
            .name("grace".to_owned())
            .spawn(move || wait_for_readers(readers, &retired, &give))
            .map_err(Error::system("starting a thread", "grace"))?;
        Ok(Self { retire: Some(retire), free, pending: 0, thread: Some(thread) })
    }

    /// Hands over what no table leads to any more.
    pub(crate) fn retire(&mut self, retired: Retired) {
        if !retired.is_empty() {
            self.send(retired);
        }
    }

    /// Waits until every program that runs now has ended. Gives what has become free.
    pub(crate) fn pass(&mut self) -> Retired {
        self.send(Retired::default());
        self.wait()
    }

    fn send(&mut self, retired: Retired) {
        if let Some(sender) = &self.retire
            && sender.send(retired).is_ok()
        {
            self.pending += 1;
        }
    }

    /// What has become free since the last call; never waits.
    pub(crate) fn freed(&mut self) -> Retired {
        let mut all = Retired::default();
        while let Ok(batch) = self.free.try_recv() {
            self.take(&mut all, batch);
        }
        all
    }

    /// Waits until everything retired so far is free: for when a table has no room left otherwise.
    pub(crate) fn wait(&mut self) -> Retired {
        let mut all = self.freed();
        while self.pending > 0 {
            let Ok(batch) = self.free.recv() else { break };
            self.take(&mut all, batch);
        }
        all
    }

    fn take(&mut self, all: &mut Retired, (batch, calls): (Retired, usize)) {
        self.pending -= calls;
        all.append(batch);
    }
}

impl Drop for Grace {
    fn drop(&mut self) {
        self.retire = None;
        if let Some(thread) = self.thread.take() {
            // It only ever waits for us or for one update; what it still held is found again by adoption.
            let _ = thread.join();
        }
    }
}

/// Waits for the programs that are running, one grace period for each call.
pub(crate) struct Readers {
    map: ArrayOfMaps<MapData, Array<MapData, u32>>,
    inner: Array<MapData, u32>,
}

impl Readers {
    pub(crate) fn new(map: ArrayOfMaps<MapData, Array<MapData, u32>>) -> Result<Self, Error> {
        let inner = Array::<MapData, u32>::create(1, 0).map_err(Error::map("GRACE"))?;
        Ok(Self { map, inner })
    }

    pub(crate) fn wait(&mut self) {
        // The one update that must not be skipped: again until it is done.
        while let Err(error) = self.map.set(0, &self.inner, 0) {
            tracing::error!(%error, "cannot wait for a grace period; trying again");
            std::thread::sleep(Duration::from_millis(100));
        }
    }
}

fn wait_for_readers(mut readers: Readers, retired: &Receiver<Retired>, give: &Sender<(Retired, usize)>) {
    while let Ok(mut batch) = retired.recv() {
        let mut calls = 1;
        while let Ok(more) = retired.try_recv() {
            batch.append(more);
            calls += 1;
        }
        readers.wait();
        if give.send((batch, calls)).is_err() {
            return;
        }
    }
}
