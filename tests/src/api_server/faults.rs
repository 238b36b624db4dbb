//! Faults of an API server, or of the network before it.
//!
//! A [`Fault`] replaces an answer, a [`Slip`] a line of a watch. Each affects a given number of requests or lines, in
//! the order of their arrival, until [`Objects::mend`].

use std::{future::pending, io, time::Duration};

use http_body_util::{BodyExt as _, channel::Channel};
use hyper::{
    Response, StatusCode,
    body::{Body as _, Bytes},
};

use super::{Body, Kind, Objects, locked, respond::status, store::Store};

/// Until [`Objects::mend`].
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

/// A faulty answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fault {
    /// The connection breaks before the answer.
    Refuse,
    /// The server never answers; the connection stays open.
    Silence,
    /// The server sends the head, then nothing; the connection stays open.
    Stall,
    /// An error with this HTTP status.
    Status(u16),
    /// The connection breaks after half of the body. A watch breaks before its first line.
    Cut,
    /// The answer properly ends after half of the body. A watch ends at once.
    EndEarly,
    /// The server sends the body byte by byte, this far apart. A watch stalls.
    Drip(Duration),
    /// The list shows the objects of [`Objects::freeze`].
    Lag,
}

/// A faulty line of a watch.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Slip {
    /// Neither it nor any later line arrives; the connection stays open.
    Stall,
    /// The connection breaks after half of it.
    Cut,
    /// The watch ends after half of it.
    EndWithin,
    /// The watch ends before it.
    EndBefore,
    /// The line ends after half of it, and the watch goes on.
    Halve,
    /// A line that is not an event comes first.
    Garbage,
    /// The server sends 410 instead.
    Gone,
    /// It comes twice.
    Twice,
    /// The first line of this watch comes again after it.
    Again,
    /// It comes after the line that follows it.
    Swap,
    /// ADDED becomes MODIFIED, and MODIFIED becomes ADDED.
    Rename,
    /// A deletion of an object that never existed precedes it, with the line's version.
    DeleteUnknown,
}

/// The pending faults.
#[derive(Default, Debug)]
pub(super) struct Faults {
    answers: Vec<(Of, Option<Kind>, Fault, u32)>,
    lines: Vec<(Slip, u32)>,
    /// How often all watches were broken.
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
    /// Makes this many answers faulty from now on.
    pub fn fault(&self, of: Of, fault: Fault, times: u32) {
        locked(&self.0.faults).answers.push((of, None, fault, times));
    }

    /// The same, for one kind of objects.
    pub fn fault_of(&self, kind: Kind, of: Of, fault: Fault, times: u32) {
        locked(&self.0.faults).answers.push((of, Some(kind), fault, times));
    }

    /// Makes this many lines of watches faulty from now on.
    pub fn slip(&self, slip: Slip, times: u32) {
        locked(&self.0.faults).lines.push((slip, times));
    }

    /// Breaks every connection of a watch.
    pub fn cut(&self) {
        locked(&self.0.faults).cuts += 1;
        // Wakes the watches, which wait for a change.
        self.0.version.send_modify(|_| ());
    }

    /// Makes the server unavailable: it answers nothing, and every watch breaks.
    pub fn vanish(&self) {
        for of in [Of::Lists, Of::LaterPages, Of::Watches] {
            self.fault(of, Fault::Refuse, FOR_EVER);
        }
        self.cut();
    }

    /// Ends all faults. Connections that have stalled stay so.
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

    /// The fault of the next request of this kind.
    pub(super) fn draw(&self, of: Of, kind: Kind) -> Option<Fault> {
        locked(&self.0.faults).answer(of, kind)
    }

    /// The objects of [`Objects::freeze`].
    pub(super) fn frozen(&self) -> Option<Store> {
        locked(&self.0.faults).frozen.clone()
    }
}

/// Applies a fault to an answer. An error breaks the connection.
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
        // The code that makes the list handles this.
        Fault::Lag => return Ok(Response::from_parts(head, body)),
        Fault::Stall | Fault::Drip(_) | Fault::Cut | Fault::EndEarly => {}
    }
    // The whole body; nothing of a watch, whose next line may never come.
    let mut whole = Bytes::new();
    if of != Of::Watches && body.size_hint().exact().is_some() {
        whole = body.collect().await?.to_bytes();
    }
    tokio::spawn(async move {
        let half = whole.slice(..whole.len() / 2);
        // An error means that the client has disconnected.
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
