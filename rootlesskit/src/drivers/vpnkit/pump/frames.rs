//! Frames in a stream: each follows its length, two bytes, little-endian.

use std::io;

/// Bytes that wait for a slow reader before no further frame is taken.
const ROOM: usize = 256 << 10;
const CHUNK: usize = 64 << 10;

/// Frames on their way into the stream.
#[derive(Debug, Default)]
pub(super) struct Outgoing {
    bytes: Vec<u8>,
    sent: usize,
}

impl Outgoing {
    pub(super) fn has_room(&self) -> bool {
        self.bytes.len() < ROOM
    }

    pub(super) fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Adds a frame. One that is too long for its length is none that an interface sends.
    pub(super) fn push(&mut self, frame: &[u8]) {
        if let Ok(length @ 1..) = u16::try_from(frame.len()) {
            self.bytes.extend(length.to_le_bytes());
            self.bytes.extend_from_slice(frame);
        }
    }

    /// Writes what `write` takes without waiting.
    pub(super) fn flush(
        &mut self,
        mut write: impl FnMut(&[u8]) -> io::Result<usize>,
    ) -> io::Result<()> {
        while self.sent < self.bytes.len() {
            match write(&self.bytes[self.sent..]) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(n) => self.sent += n,
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        self.bytes.clear();
        self.sent = 0;
        Ok(())
    }
}

/// Frames on their way out of the stream.
#[derive(Debug, Default)]
pub(super) struct Incoming {
    bytes: Vec<u8>,
    taken: usize,
}

impl Incoming {
    pub(super) fn fill(
        &mut self,
        mut read: impl FnMut(&mut [u8]) -> io::Result<usize>,
    ) -> io::Result<()> {
        self.bytes.drain(..self.taken);
        self.taken = 0;
        let have = self.bytes.len();
        self.bytes.resize(have + CHUNK, 0);
        let result = read(&mut self.bytes[have..]);
        let length = *result.as_ref().unwrap_or(&0);
        self.bytes.truncate(have + length);
        match result {
            Ok(0) => Err(io::ErrorKind::UnexpectedEof.into()),
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => Ok(()),
            Err(e) if e.kind() == io::ErrorKind::Interrupted => Ok(()),
            other => other.map(|_| ()),
        }
    }

    /// The next frame that is whole.
    pub(super) fn next(&mut self) -> io::Result<Option<&[u8]>> {
        let rest = self.bytes.get(self.taken..).unwrap_or_default();
        let Some((length, rest)) = rest.split_first_chunk() else { return Ok(None) };
        let length = usize::from(u16::from_le_bytes(*length));
        if length == 0 {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "an empty frame"));
        }
        let Some(frame) = rest.get(..length) else { return Ok(None) };
        self.taken += 2 + length;
        Ok(Some(frame))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn would_block() -> io::Error {
        io::ErrorKind::WouldBlock.into()
    }

    /// Everything that comes out, when the stream is cut into pieces of that size.
    fn through(frames: &[Vec<u8>], piece: usize) -> Vec<Vec<u8>> {
        let mut out = Outgoing::default();
        frames.iter().for_each(|frame| out.push(frame));
        let mut wire = Vec::new();
        let mut pause = false;
        while !out.is_empty() {
            out.flush(|bytes| {
                pause = !pause;
                if pause {
                    return Err(would_block());
                }
                let n = bytes.len().min(piece);
                wire.extend_from_slice(&bytes[..n]);
                Ok(n)
            })
            .unwrap();
        }
        let (mut inc, mut got) = (Incoming::default(), Vec::new());
        for bytes in wire.chunks(piece) {
            inc.fill(|buf| {
                buf[..bytes.len()].copy_from_slice(bytes);
                Ok(bytes.len())
            })
            .unwrap();
            while let Some(frame) = inc.next().unwrap() {
                got.push(frame.to_vec());
            }
        }
        got
    }

    proptest::proptest! {
        #[test]
        fn frames_survive_a_stream_in_pieces(
            frames in proptest::collection::vec(proptest::collection::vec(0u8.., 1..300), 0..20),
            piece in 1usize..700,
        ) {
            proptest::prop_assert_eq!(through(&frames, piece), frames);
        }
    }

    #[test]
    fn the_end_and_nonsense_are_errors_and_waiting_is_not() {
        let mut inc = Incoming::default();
        inc.fill(|_| Err(would_block())).unwrap();
        assert_eq!(inc.fill(|_| Ok(0)).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
        inc.fill(|buf| {
            buf[..2].fill(0);
            Ok(2)
        })
        .unwrap();
        assert!(inc.next().is_err());
        let mut out = Outgoing::default();
        out.push(&[]);
        out.push(&vec![0; 70_000]);
        assert!(out.is_empty());
        while out.has_room() {
            out.push(&[1; 1500]);
        }
        assert_eq!(out.flush(|_| Ok(0)).unwrap_err().kind(), io::ErrorKind::WriteZero);
        assert!(out.flush(|_| Err(would_block())).is_ok() && !out.is_empty());
    }
}
