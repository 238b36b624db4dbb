//! What an API server, or the network before it, does wrong.
//!
//! A [`Fault`] is what becomes of an answer, a [`Slip`] what becomes of one line of a watch. Each happens so often,
//! to requests or lines in the order in which they come, until [`Objects::mend`].

use std::{future::pending, io, time::Duration};

use http_body_util::{BodyExt as _, channel::Channel};
use hyper::{
    Response, StatusCode,
    body::{Body as _, Bytes},
};

use super::{Body, Kind, Objects, locked, respond::status, store::Store};

/// Happens until it is mended.
pub const FOR_EVER: u32 = u32::MAX;

/// A kind of request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Of {
    /// Lists: the first page.
    Lists,
    /// The second and later pages of a list.
    LaterPages,
    /// Watches, when they start.
    Watches,
}

/// What becomes of an answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fault {
    /// The connection breaks before there is an answer.
    Refuse,
    /// There is never an answer; the connection stays open.
    Silence,
    /// The head comes, then nothing; the connection stays open.
    Stall,
    /// An error with this HTTP status.
    Status(u16),
    /// Half of the body comes, then the connection breaks. A watch breaks before its first line.
    Cut,
    /// Half of the body comes, as if it were all. A watch ends at once.
    EndEarly,
    /// The body comes byte by byte, this far apart. A watch stalls.
    Drip(Duration),
    /// The list is of the time of [`Objects::freeze`].
    Lag,
}

/// What becomes of a line of a watch.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Slip {
    /// It never comes, and nothing after it; the connection stays open.
    Stall,
    /// Half of it comes, then the connection breaks.
    Cut,
    /// Half of it comes, then the watch ends.
    EndWithin,
    /// The watch ends before it.
    EndBefore,
    /// Half of it comes as if it were all, and the watch goes on.
    Halve,
    /// Something else comes first that is no event.
    Garbage,
    /// The server says 410 instead.
    Gone,
    /// It comes twice.
    Twice,
    /// The first line of this watch comes again after it.
    Again,
    /// It comes after the line that follows it.
    Swap,
    /// ADDED is called MODIFIED, and the other way round.
    Rename,
    /// Before it comes that an object is deleted that never was, with the version of the line.
    DeleteUnknown,
}

/// What is to go wrong.
#[derive(Default, Debug)]
pub(super) struct Faults {
    answers: Vec<(Of, Option<Kind>, Fault, u32)>,
    lines: Vec<(Slip, u32)>,
    /// How often all watches were cut.
    pub(super) cuts: u64,
    frozen: Option<Store>,
}

impl Faults {
    fn answer(&mut self, of: Of, kind: Kind) -> Option<Fault> {
        let meant = |rule: &&mut (Of, Option<Kind>, Fault, u32)| {
            rule.0 == of && rule.1.is_none_or(|only| only == kind) && rule.3 > 0
        };
        let rule = self.answers.iter_mut().find(meant)?;
        rule.3 = rule.3.saturating_sub(u32::from(rule.3 != FOR_EVER));
        Some(rule.2)
    }

    /// What becomes of the next line.
    pub(super) fn line(&mut self) -> Option<Slip> {
        let rule = self.lines.iter_mut().find(|rule| rule.1 > 0)?;
        rule.1 = rule.1.saturating_sub(u32::from(rule.1 != FOR_EVER));
        Some(rule.0)
    }
}

impl Objects {
    /// From now on so many answers go wrong.
    pub fn fault(&self, of: Of, fault: Fault, times: u32) {
        locked(&self.0.faults).answers.push((of, None, fault, times));
    }

    /// The same, of one kind of objects.
    pub fn fault_of(&self, kind: Kind, of: Of, fault: Fault, times: u32) {
        locked(&self.0.faults).answers.push((of, Some(kind), fault, times));
    }

    /// From now on so many lines of watches go wrong.
    pub fn slip(&self, slip: Slip, times: u32) {
        locked(&self.0.faults).lines.push((slip, times));
    }

    /// Every connection of a watch breaks.
    pub fn cut(&self) {
        locked(&self.0.faults).cuts += 1;
        // Whoever waits for a change wakes up and sees it.
        self.0.version.send_modify(|_| ());
    }

    /// The server is gone: nothing is answered, and every watch breaks.
    pub fn vanish(&self) {
        for of in [Of::Lists, Of::LaterPages, Of::Watches] {
            self.fault(of, Fault::Refuse, FOR_EVER);
        }
        self.cut();
    }

    /// Nothing goes wrong any more. What has stalled stays so.
    pub fn mend(&self) {
        let mut faults = locked(&self.0.faults);
        faults.answers.clear();
        faults.lines.clear();
    }

    /// Keeps the objects as they are now, for [`Fault::Lag`] and [`Objects::restore`].
    pub fn freeze(&self) {
        let frozen = locked(&self.0.store).clone();
        locked(&self.0.faults).frozen = Some(frozen);
    }

    /// Puts back the objects of [`Objects::freeze`], versions included, as from a backup. Watches break.
    pub fn restore(&self) {
        let Some(frozen) = locked(&self.0.faults).frozen.clone() else { return };
        *locked(&self.0.store) = frozen;
        locked(&self.0.pages).clear();
        self.cut();
    }

    /// What goes wrong with the next request of this kind.
    pub(super) fn draw(&self, of: Of, kind: Kind) -> Option<Fault> {
        locked(&self.0.faults).answer(of, kind)
    }

    /// The objects of [`Objects::freeze`].
    pub(super) fn frozen(&self) -> Option<Store> {
        locked(&self.0.faults).frozen.clone()
    }
}

/// What becomes of an answer. An error breaks the connection.
pub(super) async fn spoil(fault: Fault, of: Of, good: Response<Body>) -> io::Result<Response<Body>> {
    let (head, body) = good.into_parts();
    let (mut sender, spoiled) = Channel::<Bytes, io::Error>::new(1);
    match fault {
        Fault::Refuse => return Err(io::ErrorKind::ConnectionReset.into()),
        Fault::Silence => pending().await,
        Fault::Status(code) => {
            let code = StatusCode::from_u16(code).expect("an HTTP status");
            return Ok(status(code, "Fault", "as the test wants it"));
        }
        // Made by whoever makes the list.
        Fault::Lag => return Ok(Response::from_parts(head, body)),
        Fault::Stall | Fault::Drip(_) | Fault::Cut | Fault::EndEarly => {}
    }
    // What there is of the body; nothing is read of a watch, which would wait for it.
    let mut whole = Bytes::new();
    if of != Of::Watches && body.size_hint().exact().is_some() {
        whole = body.collect().await?.to_bytes();
    }
    tokio::spawn(async move {
        let half = whole.slice(..whole.len() / 2);
        // Errors are clients that went away.
        match fault {
            Fault::Drip(apart) => {
                for byte in 0..whole.len() {
                    tokio::time::sleep(apart).await;
                    if sender.send_data(whole.slice(byte..=byte)).await.is_err() {
                        return;
                    }
                }
                if of == Of::Watches {
                    pending::<()>().await;
                }
            }
            Fault::Cut => {
                let _ = sender.send_data(half).await;
                sender.abort(io::ErrorKind::ConnectionReset.into());
            }
            Fault::EndEarly => {
                let _ = sender.send_data(half).await;
            }
            _ => pending::<()>().await,
        }
    });
    Ok(Response::from_parts(head, spoiled.boxed()))
}
