//! Where those call who were handed a socket.

use std::{
    sync::mpsc::{Sender, channel},
    thread::{self, JoinHandle},
};

use sidestep_tests::place::Place;

type Work = Box<dyn FnOnce() + Send>;

/// A thread in another network namespace, and in a cgroup that no program of ours sees: sockets are what they were made
/// as, whoever calls.
pub(super) struct Elsewhere {
    work: Option<Sender<Work>>,
    thread: Option<JoinHandle<()>>,
}

impl Elsewhere {
    /// Starts the thread.
    pub(super) fn start(place: &Place) -> Self {
        let (work, incoming) = channel::<Work>();
        let place = place.clone();
        let thread = thread::spawn(move || {
            place.enter().expect("the thread enters its place");
            for work in incoming {
                work();
            }
        });
        Self { work: Some(work), thread: Some(thread) }
    }

    /// Does something there.
    pub(super) fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> T {
        let (done, result) = channel();
        let work = Box::new(move || drop(done.send(work())));
        self.work.as_ref().expect("it runs").send(work).expect("it takes work");
        result.recv().expect("a result")
    }
}

impl Drop for Elsewhere {
    fn drop(&mut self) {
        drop(self.work.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
