//! Bytes kept in our memory because whoever they are for does not take them yet, counted over all connections and flows:
//! a bound for each would be none for ten thousand.

use crate::total::Total;

/// A queue of bytes. They count until it is cleared or dropped.
#[derive(Debug, Default)]
pub(crate) struct Kept {
    bytes: Vec<u8>,
    /// How many of them are gone.
    at: usize,
    counted: Option<Total>,
}

impl Kept {
    pub(crate) fn push(&mut self, bytes: &[u8], total: &Total) {
        self.bytes.extend_from_slice(bytes);
        self.counted.get_or_insert_with(|| total.clone()).add(bytes.len());
    }

    pub(crate) fn rest(&self) -> &[u8] {
        self.bytes.get(self.at..).unwrap_or_default()
    }

    /// Takes bytes from the front; with the last of them the memory is free again.
    pub(crate) fn advance(&mut self, count: usize) {
        self.at += count;
        if self.rest().is_empty() {
            self.clear();
        }
    }

    pub(crate) fn clear(&mut self) {
        if let Some(total) = self.counted.take() {
            total.subtract(self.bytes.len());
        }
        (self.bytes, self.at) = (Vec::new(), 0);
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        self.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_count_until_the_last_of_them_is_gone() {
        let total = Total::default();
        let (mut one, mut other) = (Kept::default(), Kept::default());
        one.push(b"hello", &total);
        one.push(b" world", &total);
        other.push(b"!", &total);
        one.advance(6);
        assert_eq!((one.rest(), total.bytes()), (&b"world"[..], 12));
        one.advance(5);
        assert_eq!((one.rest(), total.bytes()), (&b""[..], 1));
        one.push(b"x", &total);
        drop((one, other));
        assert_eq!(total.bytes(), 0);
    }
}
