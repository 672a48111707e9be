//! Control messages of received datagrams, by the kernel's layout (cmsg(3)).

use std::mem::size_of;

use libc::c_int;

/// A control message's header: length (of the header too), level, type. The kernel's `size_t` length,
/// whatever the C library declares.
pub(crate) const HEADER: usize = WORD + 8;
/// What control messages are aligned to (cmsg(3)).
pub(crate) const WORD: usize = size_of::<usize>();

/// The messages in a buffer, each as level, type and value.
pub(crate) struct Messages<'a>(pub(crate) &'a [u8]);

impl<'a> Iterator for Messages<'a> {
    type Item = (c_int, c_int, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let (header, _) = self.0.split_at_checked(HEADER)?;
        let (len, kind) = header.split_at(WORD);
        let len = usize::from_ne_bytes(len.try_into().unwrap_or_default());
        let value = self.0.get(HEADER..len)?;
        self.0 = self.0.get(len.next_multiple_of(WORD)..).unwrap_or_default();
        let (level, kind) = kind.split_at(4);
        Some((int(level), int(kind), value))
    }
}

/// An int at the beginning of the bytes.
pub(crate) fn int(bytes: &[u8]) -> c_int {
    c_int::from_ne_bytes(array(bytes))
}

/// The first N bytes, or zeroes if there are fewer.
pub(crate) fn array<const N: usize>(bytes: &[u8]) -> [u8; N] {
    bytes.first_chunk().copied().unwrap_or([0; N])
}
