//! A netlink socket connected to the kernel, and the framing of what it answers.
//!
//! The kernel handles a netlink request inside `sendmsg(2)`: its answer, or the first part of a dump, is queued when
//! that call returns, and each further part is queued while the one before it is being received. So the socket is
//! non-blocking: an empty queue means that there is no answer, never that one has to be waited for (netlink(7)).
//! A connected netlink socket takes messages from its peer only, so nobody else can inject one.

use std::io;

use netlink_packet_core::{NLMSG_ALIGNTO, NetlinkBuffer};
use netlink_sys::{Socket, SocketAddr};

use crate::attribute::Attributes;

/// The kernel never makes a larger datagram for a dump (`NLMSG_GOODSIZE`, at most 32 KiB since Linux 4.9).
const LARGEST_DATAGRAM: usize = 64 * 1024;

/// `NLMSG_ERROR`, netlink(7): the verdict on a request; code 0 is an acknowledgement.
const ERROR: u16 = 2;
/// `NLMSG_DONE`, netlink(7): the end of a dump, with its verdict.
const DONE: u16 = 3;

#[derive(Debug)]
pub(crate) struct Connection {
    socket: Socket,
}

impl Connection {
    /// Connects to `protocol` (one of `netlink_sys::protocols`) in the network namespace of the calling thread.
    pub(crate) fn open(protocol: isize) -> io::Result<Self> {
        let mut socket = Socket::new(protocol)?;
        socket.bind_auto()?;
        socket.connect(&SocketAddr::new(0, 0))?;
        socket.set_non_blocking(true)?;
        Ok(Self { socket })
    }

    /// Sends one datagram, which the kernel has handled when this returns.
    pub(crate) fn send(&self, datagram: &[u8]) -> io::Result<()> {
        let sent = self.socket.send(datagram, 0)?;
        if sent == datagram.len() {
            Ok(())
        } else {
            Err(io::Error::other(format!("only {sent} of {} bytes were sent", datagram.len())))
        }
    }

    /// Sends the request of this number; `each` sees what is answered before the verdict.
    pub(crate) fn exchange(
        &self,
        request: &[u8],
        sequence: u32,
        mut each: impl FnMut(&Message<'_>) -> io::Result<()>,
    ) -> io::Result<()> {
        self.send(request)?;
        while let Some(datagram) = self.receive()? {
            // Leftovers of a request whose reply could not be decoded carry an older number.
            for reply in split(&datagram)?.iter().filter(|reply| reply.sequence == sequence) {
                match reply.verdict() {
                    Some(verdict) => return verdict,
                    None => each(reply)?,
                }
            }
        }
        Err(io::Error::other("the kernel gave no verdict"))
    }

    /// The next datagram of the answer; `None` when there is no more.
    pub(crate) fn receive(&self) -> io::Result<Option<Vec<u8>>> {
        let mut buffer = Vec::new();
        Ok(self.receive_into(&mut buffer)?.then_some(buffer))
    }

    /// The next datagram of the answer takes the place of what is in the buffer; false when there is no more.
    pub(crate) fn receive_into(&self, buffer: &mut Vec<u8>) -> io::Result<bool> {
        buffer.clear();
        buffer.reserve(LARGEST_DATAGRAM);
        match self.socket.recv(buffer, 0) {
            Ok(_) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(false),
            Err(error) => Err(error),
        }
    }
}

/// A message: `struct nlmsghdr`, the header of the protocol (`struct nfgenmsg`, `struct genlmsghdr`), attributes.
pub(crate) fn message(
    kind: u16,
    flags: u16,
    sequence: u32,
    header: [u8; 4],
    attributes: &Attributes,
) -> Vec<u8> {
    let length = u32::try_from(16 + header.len() + attributes.as_bytes().len());
    let mut bytes = length.unwrap_or(u32::MAX).to_ne_bytes().to_vec();
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(flags.to_ne_bytes());
    bytes.extend(sequence.to_ne_bytes());
    bytes.extend(0u32.to_ne_bytes());
    bytes.extend(header);
    bytes.extend(attributes.as_bytes());
    bytes
}

#[derive(Debug, PartialEq)]
pub(crate) struct Message<'a> {
    pub(crate) kind: u16,
    pub(crate) sequence: u32,
    pub(crate) payload: &'a [u8],
}

impl Message<'_> {
    /// The verdict, if this message is one (an error, an acknowledgement or the end of a dump).
    pub(crate) fn verdict(&self) -> Option<io::Result<()>> {
        if self.kind != ERROR && self.kind != DONE {
            return None;
        }
        // Kernels may end a dump without a code.
        let code = self.payload.first_chunk().map_or(0, |code| i32::from_ne_bytes(*code));
        Some(match code {
            0 => Ok(()),
            code => Err(io::Error::from_raw_os_error(code.saturating_neg())),
        })
    }
}

pub(crate) fn split(datagram: &[u8]) -> io::Result<Vec<Message<'_>>> {
    let mut messages = Vec::new();
    let mut rest = datagram;
    while !rest.is_empty() {
        let buffer = NetlinkBuffer::new_checked(rest)
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error.to_string()))?;
        messages.push(Message {
            kind: buffer.message_type(),
            sequence: buffer.sequence_number(),
            payload: buffer.payload(),
        });
        let length = usize::try_from(buffer.length())
            .map_err(|_| io::Error::from(io::ErrorKind::InvalidData))?;
        rest = rest.get(length.next_multiple_of(NLMSG_ALIGNTO.into())..).unwrap_or_default();
    }
    Ok(messages)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn message(kind: u16, sequence: u32, payload: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        bytes.extend(u32::try_from(16 + payload.len()).unwrap().to_ne_bytes());
        bytes.extend(kind.to_ne_bytes());
        bytes.extend(0u16.to_ne_bytes());
        bytes.extend(sequence.to_ne_bytes());
        bytes.extend(0u32.to_ne_bytes());
        bytes.extend(payload);
        bytes
    }

    #[test]
    fn splits_padded_messages() {
        let mut datagram = message(16, 1, b"abcde");
        datagram.extend([0; 3]);
        datagram.extend(message(ERROR, 2, &(-95i32).to_ne_bytes()));
        let messages = split(&datagram).unwrap();
        assert_eq!(messages.len(), 2);
        assert_eq!(messages[0], Message { kind: 16, sequence: 1, payload: b"abcde" });
        assert!(messages[0].verdict().is_none());
        assert_eq!(messages[1].verdict().unwrap().unwrap_err().raw_os_error(), Some(95));
    }

    #[test]
    fn code_zero_and_bare_done_are_success() {
        let ack = message(ERROR, 2, &0i32.to_ne_bytes());
        assert!(split(&ack).unwrap()[0].verdict().unwrap().is_ok());
        let done = message(DONE, 2, &[]);
        assert!(split(&done).unwrap()[0].verdict().unwrap().is_ok());
    }

    proptest! {
        #[test]
        fn any_datagram_is_split_or_refused(datagram in proptest::collection::vec(any::<u8>(), 0..80)) {
            if let Ok(messages) = split(&datagram) {
                for message in messages {
                    let _ = message.verdict();
                }
            }
        }
    }
}
