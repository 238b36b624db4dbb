//! Listening, and trying again (CF-5).

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use anyhow::Context as _;
use socket2::{Domain, Socket, Type};
use tokio::{net::TcpListener, time::sleep};

use super::{
    Shared, Task,
    guests::{Guests, Times},
    http::{self, Site},
    lock,
};
use crate::model::{Problem, Subject};

/// How long until another try, as kube-proxy has it.
const RETRY: Duration = Duration::from_secs(5);

/// How many connections may wait to be accepted: a flood fills the queue while the agent does something else.
const BACKLOG: i32 = 1024;
/// How many clients of one listener are served at the same time.
const CLIENTS: usize = 64;

/// Who else is served at the same port.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Families {
    /// `[::]` is for IPv4, too.
    Both,
    /// Each family has a listener of its own.
    Own,
}

/// A listener at this address.
pub(super) fn bind(address: SocketAddr, families: Families) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    if address.is_ipv6() {
        socket.set_only_v6(families == Families::Own || !address.ip().is_unspecified())?;
    }
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

/// Listens for as long as the task lives. `what` is the listener, and the field that asks for it. With
/// `hard_fail` the first failure is the last.
pub(super) fn start<S: Site>(
    shared: &Arc<Shared>,
    what: (Subject, &'static str),
    address: SocketAddr,
    site: S,
    hard_fail: bool,
) -> anyhow::Result<Task> {
    let guests = Guests::new(CLIENTS, Times::default());
    if hard_fail {
        let listener = bind(address, Families::Both)
            .with_context(|| format!("{} is {address}, but this process cannot listen there", what.1))?;
        return Ok(Task(tokio::spawn(http::serve(listener, Arc::new(site), guests))));
    }
    let named = Named { shared: Arc::clone(shared), key: (what.0.clone(), address) };
    let problem = problem(what, address);
    Ok(keep_listening(named, problem, (address, Families::Both), site, guests))
}

/// Listens, and tries again if it cannot; meanwhile the problem is named.
pub(super) fn keep_listening<S: Site>(
    named: Named,
    problem: impl Fn(&io::Error) -> Problem + Send + Sync + 'static,
    (address, families): (SocketAddr, Families),
    site: S,
    guests: Arc<Guests>,
) -> Task {
    Task(tokio::spawn(async move {
        let site = Arc::new(site);
        loop {
            match bind(address, families) {
                Ok(listener) => {
                    named.clear();
                    http::serve(listener, Arc::clone(&site), Arc::clone(&guests)).await;
                }
                Err(error) => {
                    lock(&named.shared.problems).insert(named.key.clone(), problem(&error));
                    sleep(RETRY).await;
                }
            }
        }
    }))
}

/// The problem with one address; it disappears with the listener.
#[derive(Debug)]
pub(super) struct Named {
    /// Where problems are kept.
    pub(super) shared: Arc<Shared>,
    /// What the problem is about.
    pub(super) key: (Subject, SocketAddr),
}

impl Named {
    fn clear(&self) {
        lock(&self.shared.problems).remove(&self.key);
    }
}

impl Drop for Named {
    fn drop(&mut self) {
        self.clear();
    }
}

/// What to say of an address that cannot be listened on.
pub(super) fn problem(
    (subject, field): (Subject, &'static str),
    address: SocketAddr,
) -> impl Fn(&io::Error) -> Problem + Send + Sync {
    move |error| Problem {
        subject: subject.clone(),
        field: field.to_owned(),
        message: format!(
            "cannot listen on {address} ({error}), trying again every {} s; stop the process that listens there \
             (such as kube-proxy), or choose another port",
            RETRY.as_secs()
        ),
    }
}
