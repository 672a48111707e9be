//! Writer and reader of netlink attributes (`struct nlattr`: length, type, value, padding to 4 bytes).

use netlink_packet_core::NlasIterator;

/// `NLA_F_NESTED`, linux/netlink.h: the value is a list of attributes.
const NESTED: u16 = 0x8000;

#[derive(Debug, Default)]
pub(crate) struct Attributes {
    bytes: Vec<u8>,
}

impl Attributes {
    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// A value as it is, e.g. in the byte order of the register that it is compared with.
    pub(crate) fn raw(&mut self, kind: u16, value: &[u8]) {
        // Nothing here comes near 64 KiB; a saturated length is refused by the kernel.
        let length = u16::try_from(4 + value.len()).unwrap_or(u16::MAX);
        self.bytes.extend(length.to_ne_bytes());
        self.bytes.extend(kind.to_ne_bytes());
        self.bytes.extend(value);
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }

    /// A number, which nftables wants in network byte order.
    pub(crate) fn number(&mut self, kind: u16, value: u32) {
        self.raw(kind, &value.to_be_bytes());
    }

    /// A string with its final NUL.
    pub(crate) fn string(&mut self, kind: u16, value: &str) {
        let mut bytes = value.as_bytes().to_vec();
        bytes.push(0);
        self.raw(kind, &bytes);
    }

    pub(crate) fn nested(&mut self, kind: u16, fill: impl FnOnce(&mut Self)) {
        let begin = self.bytes.len();
        self.bytes.extend([0; 4]);
        fill(self);
        let length = u16::try_from(self.bytes.len() - begin).unwrap_or(u16::MAX);
        let [a, b] = length.to_ne_bytes();
        let [c, d] = (NESTED | kind).to_ne_bytes();
        self.bytes[begin..begin + 4].copy_from_slice(&[a, b, c, d]);
    }
}

/// The value of an attribute of this kind, without the bits that say how it is to be read.
pub(crate) fn find(attributes: &[u8], kind: u16) -> Option<&[u8]> {
    const KIND: u16 = 0x3fff;
    // `struct nlattr`: length with this header, and kind; netlink(7).
    const HEADER: usize = 4;
    let mut at = 0;
    for one in NlasIterator::new(attributes).map_while(Result::ok) {
        let length = usize::from(one.length());
        if one.kind() & KIND == kind {
            return attributes.get(at + HEADER..at + length);
        }
        at += length.next_multiple_of(HEADER);
    }
    None
}

#[cfg(test)]
#[cfg(target_endian = "little")]
mod tests {
    use super::*;

    #[test]
    fn pads_orders_and_nests() {
        let mut attributes = Attributes::default();
        attributes.string(1, "ab");
        attributes.nested(4, |inner| inner.number(2, 0x0102_0304));
        let expected: &[u8] = &[
            7, 0, 1, 0, b'a', b'b', 0, 0, // "ab", NUL, one byte of padding outside the length
            12, 0, 4, 0x80, 8, 0, 2, 0, 1, 2, 3, 4,
        ];
        assert_eq!(attributes.as_bytes(), expected);
    }
}
