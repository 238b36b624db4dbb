//! Messages of netfilter's subsystems, which no crate of the netlink family has: written and read by hand.

use std::io;

use netlink_packet_core::{
    NLA_F_NESTED, NLA_HEADER_SIZE, NetlinkDeserializable, NetlinkHeader, NetlinkPayload, NetlinkSerializable,
    NlasIterator,
};

/// A message that is written and read as bytes: what follows `struct nlmsghdr`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Message {
    /// Its type: the subsystem, and the kind of message.
    pub(super) kind: u16,
    /// `struct nfgenmsg`, then attributes.
    pub(super) body: Vec<u8>,
}

impl Message {
    /// A message about objects of an address family (`AF_UNSPEC` for all), without attributes.
    pub(super) fn new(kind: u16, family: u8) -> Self {
        Self { kind, body: vec![family, 0, 0, 0] }
    }

    /// The address family.
    pub(super) fn family(&self) -> u8 {
        self.body.first().copied().unwrap_or_default()
    }

    /// The attributes.
    pub(super) fn attributes(&self) -> Attributes<'_> {
        Attributes(self.body.get(4..).unwrap_or_default())
    }
}

/// A list of netlink attributes (RFC 3549, 2.3.2: length, type, value, padded to four bytes).
pub(super) trait Write {
    /// Adds an attribute.
    fn attribute(self, kind: u16, value: &[u8]) -> Self;

    /// Adds a text, which the kernel reads up to its zero.
    fn text(self, kind: u16, value: &str) -> Self;

    /// Adds a list of attributes.
    fn nested(self, kind: u16, value: &[u8]) -> Self;
}

impl Write for Vec<u8> {
    fn attribute(mut self, kind: u16, value: &[u8]) -> Self {
        let length = u16::try_from(4 + value.len()).unwrap_or(u16::MAX);
        self.extend(length.to_ne_bytes());
        self.extend(kind.to_ne_bytes());
        self.extend(value);
        self.resize(self.len().next_multiple_of(4), 0);
        self
    }

    fn text(self, kind: u16, value: &str) -> Self {
        self.attribute(kind, &[value.as_bytes(), &[0]].concat())
    }

    fn nested(self, kind: u16, value: &[u8]) -> Self {
        self.attribute(kind | NLA_F_NESTED, value)
    }
}

impl Write for Message {
    fn attribute(mut self, kind: u16, value: &[u8]) -> Self {
        self.body = self.body.attribute(kind, value);
        self
    }

    fn text(mut self, kind: u16, value: &str) -> Self {
        self.body = self.body.text(kind, value);
        self
    }

    fn nested(mut self, kind: u16, value: &[u8]) -> Self {
        self.body = self.body.nested(kind, value);
        self
    }
}

/// A list of attributes in a message. What is cut off is not there.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Attributes<'a>(pub(super) &'a [u8]);

impl<'a> Attributes<'a> {
    /// All of them: type and value.
    pub(super) fn iter(self) -> impl Iterator<Item = (u16, &'a [u8])> {
        let attributes = NlasIterator::new(self.0).map_while(Result::ok);
        attributes.map(|attribute| {
            let (kind, end) = (attribute.kind(), usize::from(attribute.length()));
            (kind, attribute.into_inner().get(NLA_HEADER_SIZE..end).unwrap_or_default())
        })
    }

    /// The value of one.
    pub(super) fn get(self, kind: u16) -> Option<&'a [u8]> {
        self.iter().find(|(found, _)| *found == kind).map(|(_, value)| value)
    }

    /// The attributes in one.
    pub(super) fn nested(self, kind: u16) -> Option<Self> {
        self.get(kind).map(Attributes)
    }

    /// A number in network byte order.
    pub(super) fn number<const SIZE: usize>(self, kind: u16) -> Option<[u8; SIZE]> {
        self.get(kind)?.try_into().ok()
    }

    /// A text, without its zero.
    pub(super) fn text(self, kind: u16) -> Option<String> {
        let bytes = self.get(kind)?;
        let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
        String::from_utf8(bytes[..end].to_vec()).ok()
    }
}

impl NetlinkSerializable for Message {
    fn message_type(&self) -> u16 {
        self.kind
    }
    fn buffer_len(&self) -> usize {
        self.body.len()
    }
    fn serialize(&self, buffer: &mut [u8]) {
        buffer.copy_from_slice(&self.body);
    }
}

impl NetlinkDeserializable for Message {
    type Error = io::Error;
    fn deserialize(header: &NetlinkHeader, body: &[u8]) -> Result<Self, io::Error> {
        Ok(Self { kind: header.message_type, body: body.to_vec() })
    }
}

impl From<Message> for NetlinkPayload<Message> {
    fn from(message: Message) -> Self {
        Self::InnerMessage(message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_read_as_they_were_written() {
        let message = Message::new(1, 2)
            .text(1, "kube-proxy")
            .nested(2, &Vec::new().attribute(3, &7_u32.to_be_bytes()).attribute(4, &[1]));
        assert_eq!((message.family(), message.body.len() % 4), (2, 0));
        let read = message.attributes();
        assert_eq!(read.text(1).as_deref(), Some("kube-proxy"));
        let nested = read.nested(2).expect("a list");
        assert_eq!(nested.number(3).map(u32::from_be_bytes), Some(7));
        assert_eq!((nested.number::<1>(4), nested.number::<4>(4), nested.get(5)), (Some([1]), None, None));
    }

    #[test]
    fn attributes_that_were_cut_off_are_no_panic() {
        let whole = Vec::new().text(1, "a name").attribute(2, &[1, 2, 3, 4]);
        for length in 0..whole.len() {
            let found = Attributes(&whole[..length]).iter().count();
            assert!(found < 2, "{length}");
        }
        assert_eq!(Attributes(&[3, 0, 1, 0]).iter().count(), 0, "shorter than its header");
    }
}
