//! A conversation with the kernel: one question at a time, and its answers.
//!
//! By hand, since the crates that converse are asynchronous: their tasks run on threads that are in the wrong network
//! namespace, where these sockets are made and asked by a thread that has entered one.

use std::{
    cell::Cell,
    fmt::Debug,
    io,
    marker::PhantomData,
    os::fd::{AsRawFd, RawFd},
};

use netlink_packet_core::{
    DecodeError, DoneMessage, NLM_F_DUMP_INTR, NLM_F_REQUEST, NLMSG_DONE, NetlinkBuffer,
    NetlinkDeserializable, NetlinkHeader, NetlinkMessage, NetlinkPayload, NetlinkSerializable,
    Parseable as _,
};
use netlink_sys::Socket;
use nix::sys::{
    socket::{
        setsockopt,
        sockopt::{ReceiveTimeout, SndBufForce},
    },
    time::TimeVal,
};

use crate::dataplane::Error;

/// The kernel sends at most 32 KiB at once.
const BUFFER: usize = 1 << 16;
/// The timeout, in case the kernel does not answer at once.
const PATIENCE: TimeVal = TimeVal::new(2, 0);
/// How often to repeat a list that changed while it was read.
const ATTEMPTS: usize = 4;

/// A netlink socket that answers with messages of type `A`.
pub(super) struct Conversation<A> {
    socket: Socket,
    sequence: Cell<u32>,
    answers: PhantomData<fn() -> A>,
}

impl<A> Debug for Conversation<A> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Conversation").field("socket", &self.socket.as_raw_fd()).finish_non_exhaustive()
    }
}

impl<A> AsRawFd for Conversation<A> {
    fn as_raw_fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }
}

impl<A: NetlinkDeserializable + Debug> Conversation<A> {
    /// A socket in the namespace of the calling thread.
    pub(super) fn new(protocol: isize) -> Result<Self, Error> {
        let make = || {
            let socket = Socket::new(protocol)?;
            setsockopt(&socket, ReceiveTimeout, &PATIENCE)?;
            Ok(socket)
        };
        let socket = make().map_err(Error::system("socket", "(netlink)"))?;
        Ok(Self { socket, sequence: Cell::new(0), answers: PhantomData })
    }

    /// Sends a request, and passes on each answer until the last one. `what` names the call and its object in errors.
    ///
    /// With `flags` either `NLM_F_DUMP` or `NLM_F_ACK`, so that there is a last one. What cannot be read is left out.
    pub(super) fn ask<Q>(
        &self,
        what: (&'static str, &str),
        question: Q,
        flags: u16,
        mut each: impl FnMut(A),
    ) -> Result<(), Error>
    where
        Q: NetlinkSerializable + Debug,
        NetlinkPayload<Q>: From<Q>,
    {
        self.exchange(what, question, flags, &mut each).map(drop)
    }

    /// Lists all objects of a kind; repeats the request if they changed meanwhile.
    pub(super) fn list<Q>(
        &self,
        what: (&'static str, &str),
        question: &Q,
        flags: u16,
    ) -> Result<Vec<A>, Error>
    where
        Q: NetlinkSerializable + Debug + Clone,
        NetlinkPayload<Q>: From<Q>,
    {
        self.collect(what, question, flags, Some)
    }

    /// The same with what `read` keeps of each object. It is called again for all objects if they changed meanwhile.
    pub(super) fn collect<Q, T>(
        &self,
        what: (&'static str, &str),
        question: &Q,
        flags: u16,
        mut read: impl FnMut(A) -> Option<T>,
    ) -> Result<Vec<T>, Error>
    where
        Q: NetlinkSerializable + Debug + Clone,
        NetlinkPayload<Q>: From<Q>,
    {
        let mut all = Vec::new();
        for _ in 0..ATTEMPTS {
            all.clear();
            if self.exchange(what, question.clone(), flags, &mut |answer| all.extend(read(answer)))? {
                break;
            }
        }
        Ok(all)
    }

    /// Sends requests that the kernel takes as one transaction: all of them, or after an error none. The last one but
    /// the end has the flag `NLM_F_ACK`, and nothing else answers.
    pub(super) fn transact<Q>(
        &self,
        (call, about): (&'static str, &str),
        questions: impl IntoIterator<Item = (Q, u16)>,
    ) -> Result<(), Error>
    where
        Q: NetlinkSerializable + Debug,
        NetlinkPayload<Q>: From<Q>,
    {
        let first = self.sequence.get().wrapping_add(1);
        let mut bytes = Vec::new();
        for (question, flags) in questions {
            bytes.extend(self.request(question, flags));
        }
        // The kernel takes a transaction in one piece, however long.
        setsockopt(&self.socket, SndBufForce, &(2 * bytes.len() + BUFFER))
            .map_err(|errno| Error::system("SO_SNDBUFFORCE", "(netlink)")(errno.into()))?;
        self.socket.send(&bytes, 0).map_err(Error::system(call, about))?;
        let ours = first..=self.sequence.get();
        self.answer((call, about), |sequence| ours.contains(&sequence), &mut drop).map(drop)
    }

    /// The bytes of a request, with the next sequence number.
    fn request<Q>(&self, question: Q, flags: u16) -> Vec<u8>
    where
        Q: NetlinkSerializable + Debug,
        NetlinkPayload<Q>: From<Q>,
    {
        let sequence = self.sequence.get().wrapping_add(1);
        self.sequence.set(sequence);
        let mut header = NetlinkHeader::default();
        header.flags = NLM_F_REQUEST | flags;
        header.sequence_number = sequence;
        let mut message = NetlinkMessage::new(header, NetlinkPayload::from(question));
        message.finalize();
        let mut bytes = vec![0; message.buffer_len()];
        message.serialize(&mut bytes);
        bytes
    }

    /// Whether the answer is a consistent snapshot.
    fn exchange<Q>(
        &self,
        (call, about): (&'static str, &str),
        question: Q,
        flags: u16,
        each: &mut impl FnMut(A),
    ) -> Result<bool, Error>
    where
        Q: NetlinkSerializable + Debug,
        NetlinkPayload<Q>: From<Q>,
    {
        self.socket.send(&self.request(question, flags), 0).map_err(Error::system(call, about))?;
        let sequence = self.sequence.get();
        self.answer((call, about), |answered| answered == sequence, each)
    }

    /// Reads until the end of an answer, or an error; whether it is a consistent snapshot. `is_ours` knows the sequence
    /// numbers of the request.
    fn answer(
        &self,
        (call, about): (&'static str, &str),
        is_ours: impl Fn(u32) -> bool,
        each: &mut impl FnMut(A),
    ) -> Result<bool, Error> {
        let mut consistent = true;
        let mut buffer = Vec::with_capacity(BUFFER);
        loop {
            buffer.clear();
            match self.socket.recv(&mut buffer, 0) {
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(Error::system(call, about)(error)),
            }
            for message in messages::<A>(&buffer) {
                let message = match message {
                    Ok(message) => message,
                    Err(error) => {
                        tracing::debug!(%error, call, about, "cannot parse a netlink answer");
                        continue;
                    }
                };
                // The rest of an answer to an earlier request that timed out.
                if !is_ours(message.header.sequence_number) {
                    continue;
                }
                consistent &= message.header.flags & NLM_F_DUMP_INTR == 0;
                let code = match message.payload {
                    NetlinkPayload::InnerMessage(answer) => {
                        each(answer);
                        continue;
                    }
                    NetlinkPayload::Done(done) => done.code,
                    NetlinkPayload::Error(error) => error.raw_code(),
                    _ => continue,
                };
                return match code {
                    0 => Ok(consistent),
                    code => {
                        Err(Error::system(call, about)(io::Error::from_raw_os_error(code.saturating_neg())))
                    }
                };
            }
        }
    }
}

/// The messages in what the kernel sent at once. What is cut off is not there.
pub(super) fn messages<A: NetlinkDeserializable>(
    mut bytes: &[u8],
) -> impl Iterator<Item = Result<NetlinkMessage<A>, DecodeError>> {
    std::iter::from_fn(move || {
        let this = bytes;
        let buffer = NetlinkBuffer::new_checked(&this).ok()?;
        let length = usize::try_from(buffer.length()).ok()?;
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        // Some kernels end without an error number.
        if buffer.message_type() == NLMSG_DONE && buffer.payload_length() < size_of::<i32>() {
            let header = NetlinkHeader::parse(&buffer);
            return Some(
                header
                    .map(|header| NetlinkMessage::new(header, NetlinkPayload::Done(DoneMessage::default()))),
            );
        }
        Some(NetlinkMessage::deserialize(this.get(..length)?))
    })
}

#[cfg(test)]
mod tests {
    use netlink_packet_route::RouteNetlinkMessage;

    use super::*;

    /// `struct nlmsghdr` and what follows.
    fn message(kind: u16, body: &[u8]) -> Vec<u8> {
        let length = u32::try_from(16 + body.len()).expect("short");
        [&length.to_ne_bytes()[..], &kind.to_ne_bytes(), &[0; 10], body].concat()
    }

    fn kinds(bytes: &[u8]) -> Vec<&'static str> {
        let read = messages::<RouteNetlinkMessage>(bytes);
        read.map(|message| match message.map(|message| message.payload) {
            Ok(NetlinkPayload::Done(done)) if done.code == 0 => "done",
            Ok(NetlinkPayload::Error(error)) if error.raw_code() == -2 => "not there",
            Ok(_) => "other",
            Err(_) => "unreadable",
        })
        .collect()
    }

    #[test]
    fn what_cannot_be_read_does_not_hide_what_follows() {
        // A link (16) that is too short, the end with and without a number, an error.
        let error = [&(-2_i32).to_ne_bytes()[..], &[0; 16]].concat();
        let bytes = [
            message(16, &[1, 2, 3, 4, 5, 6, 7, 8]),
            message(3, &[0; 4]),
            message(3, &[]),
            message(2, &error),
        ]
        .concat();
        assert_eq!(kinds(&bytes), ["unreadable", "done", "done", "not there"]);
    }

    #[test]
    fn bytes_that_were_cut_off_are_no_panic() {
        let whole = message(3, &[0; 4]);
        for length in 0..whole.len() {
            assert_eq!(kinds(&whole[..length]), [""; 0], "{length}");
        }
    }
}
