//! Notifications that devices, addresses or routes have changed. The receiver reads everything again, so messages
//! that the kernel drops lose nothing.

use std::{
    io,
    os::fd::{AsRawFd, RawFd},
    time::{Duration, Instant},
};

use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};
use tokio::{io::unix::AsyncFd, time::sleep_until};

use crate::dataplane::Error;

/// `RTNLGRP_LINK`, `RTNLGRP_IPV4_IFADDR`, `RTNLGRP_IPV4_ROUTE`, `RTNLGRP_IPV6_IFADDR`, `RTNLGRP_IPV6_ROUTE`.
const GROUPS: [u32; 5] = [1, 5, 7, 9, 11];
/// Passes take at most this part of the time, however much changes: a router may announce all that it knows.
const SHARE: u32 = 10;
/// But so much of the time that they may take they may have in advance: a pod may have come, whose device is changed a few times
/// while it is set up, and whose first packet is on its way.
const ADVANCE: Duration = Duration::from_secs(2);
/// The interval of passes without a notification.
const IDLE: Duration = Duration::from_secs(30);

/// Listens to the kernel.
#[derive(Debug)]
pub(crate) struct Notifications {
    socket: AsyncFd<Listener>,
    /// When the next pass is due.
    due: Instant,
    /// Whether a notification has arrived since the last pass.
    heard: bool,
    /// When as much time will have passed as passes may have taken until then.
    settled: Instant,
}

/// A socket with the groups.
struct Listener(Socket);

impl std::fmt::Debug for Listener {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Listener").field(&self.0.as_raw_fd()).finish()
    }
}

impl AsRawFd for Listener {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

impl Notifications {
    /// Listens in the calling thread's namespace for changes from now on.
    pub(crate) fn listen() -> Result<Self, Error> {
        let make = || {
            let mut socket = Socket::new(NETLINK_ROUTE)?;
            socket.bind(&SocketAddr::new(0, 0))?;
            socket.set_non_blocking(true)?;
            for group in GROUPS {
                socket.add_membership(group)?;
            }
            // SAFETY: the listener owns its descriptor and names the same one as long as it lives.
            Ok(unsafe { AsyncFd::register(Listener(socket)) }?)
        };
        let socket = make().map_err(Error::system("socket(NETLINK_ROUTE)", "(netlink)"))?;
        let now = Instant::now();
        Ok(Self { socket, due: now + IDLE, heard: false, settled: now })
    }

    /// Waits until a pass is due, and returns whether a notification is the reason. Cancel safe.
    pub(crate) async fn changed(&mut self) -> bool {
        loop {
            tokio::select! {
                ready = self.socket.readable_mut() => {
                    let Ok(mut ready) = ready else { return std::future::pending().await };
                    drain(&ready.get_inner().0);
                    ready.clear_ready();
                    if !self.heard {
                        self.heard = true;
                        let now = Instant::now();
                        self.due = now + self.settled.saturating_duration_since(now).saturating_sub(ADVANCE);
                    }
                }
                () = sleep_until(self.due.into()) => return self.heard,
            }
        }
    }

    /// Records the end of a pass that took this long.
    pub(crate) fn looked(&mut self, took: Duration) {
        let now = Instant::now();
        self.heard = false;
        self.settled = self.settled.max(now) + took * SHARE;
        self.due = now + IDLE;
    }
}

/// Drains the socket. The content does not matter, nor that messages were lost (ENOBUFS).
fn drain(socket: &Socket) {
    let mut buffer = Vec::with_capacity(1 << 16);
    loop {
        buffer.clear();
        match socket.recv(&mut buffer, 0) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
            Ok(_) => {}
            Err(error)
                if error.raw_os_error() == Some(libc::ENOBUFS)
                    || error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => {
                tracing::debug!(%error, "cannot listen for device changes");
                return;
            }
        }
    }
}
