//! One conversation with the kernel about the UDP sockets of one network namespace.

use std::{
    io,
    os::fd::{AsRawFd, OwnedFd, RawFd},
    path::Path,
};

use nix::{
    errno::Errno,
    sys::{
        socket::{
            AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, setsockopt, socket,
            sockopt::ReceiveTimeout,
        },
        time::TimeVal,
    },
};

use super::{
    super::Error,
    message::{self, Found, Message},
};

/// The kernel sends at most 32 KiB at once.
const BUFFER: usize = 1 << 16;
/// The kernel answers at once; this is for the day when it does not.
const PATIENCE: TimeVal = TimeVal::new(2, 0);

/// A `NETLINK_SOCK_DIAG` socket. It speaks of the namespace in which it was made.
#[derive(Debug)]
pub(super) struct Diag {
    socket: OwnedFd,
}

impl AsRawFd for Diag {
    fn as_raw_fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }
}

impl Diag {
    /// A socket in the namespace of the calling thread.
    pub(super) fn new() -> Result<Self, Error> {
        let make = || {
            let (family, protocol) = (AddressFamily::Netlink, SockProtocol::NetlinkSockDiag);
            let socket = socket(family, SockType::Raw, SockFlag::SOCK_CLOEXEC, protocol)?;
            setsockopt(&socket, ReceiveTimeout, &PATIENCE)?;
            Ok(socket)
        };
        let socket = make().map_err(failed("socket(NETLINK_SOCK_DIAG)"))?;
        Ok(Self { socket })
    }

    /// The connected UDP sockets of a family.
    ///
    /// Sockets that others close meanwhile may make the kernel miss one: ask again later.
    pub(super) fn connected(&self, family: i32) -> Result<Vec<Found>, Error> {
        let request = message::dump(u8::try_from(family).unwrap_or_default());
        let mut all = Vec::new();
        let end = self.exchange("SOCK_DIAG_BY_FAMILY", &request, |found| all.push(found))?;
        match end {
            // ENOENT: the kernel has no such family.
            0 | libc::ENOENT => Ok(all),
            code => Err(failed("SOCK_DIAG_BY_FAMILY")(Errno::from_raw(code))),
        }
    }

    /// Destroys a socket: its owner gets ECONNABORTED once, and may connect it again. `false` if it is gone.
    pub(super) fn destroy(&self, found: &Found) -> Result<bool, Error> {
        match self.exchange("SOCK_DESTROY", &message::destroy(found), |_| ())? {
            0 => Ok(true),
            libc::ENOENT => Ok(false),
            code => Err(failed("SOCK_DESTROY")(Errno::from_raw(code))),
        }
    }

    /// Sends a request and reads until the end of the answer, which is 0 or an error number.
    fn exchange(
        &self,
        call: &'static str,
        request: &[u8],
        mut each: impl FnMut(Found),
    ) -> Result<i32, Error> {
        let socket = self.socket.as_raw_fd();
        send(socket, request, MsgFlags::empty()).map_err(failed(call))?;
        let mut buffer = vec![0; BUFFER];
        loop {
            let length = match recv(socket, &mut buffer, MsgFlags::empty()) {
                Ok(length) => length,
                Err(Errno::EINTR) => continue,
                Err(errno) => return Err(failed(call)(errno)),
            };
            for message in message::messages(&buffer[..length]) {
                match message {
                    Message::Socket(found) => each(found),
                    Message::End(code) => return Ok(code),
                }
            }
        }
    }
}

fn failed(call: &'static str) -> impl FnOnce(Errno) -> Error {
    move |errno| Error::system(call, Path::new("(netlink)"))(io::Error::from(errno))
}
