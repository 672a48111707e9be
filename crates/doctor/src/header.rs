//! The first lines of a file that `install` writes: who wrote it, and a checksum of all other lines.

/// The start of the line that every file of this tool has, whatever its release.
pub const MARK: &str = "# Written by dockerd-rootless-setuptool.sh";
/// That line, where the form of the file leaves the words to us.
pub const HEADER: &str =
    "# Written by dockerd-rootless-setuptool.sh, which leaves this file alone once it is edited.\n";
/// That line in releases without a checksum.
pub const OLD_HEADER: &str =
    "# Written by dockerd-rootless-setuptool.sh, which replaces it at the next install.\n";
/// The start of the line behind it.
const CHECKSUM: &str = "# Checksum of all other lines: ";
/// How far down these lines are looked for.
const HEAD: usize = 4;

/// The text in the form of releases without a checksum.
pub fn without_checksum(text: &str) -> String {
    text.replace(HEADER, OLD_HEADER)
}

pub(crate) fn head(text: &str) -> impl Iterator<Item = &str> {
    text.lines().take(HEAD)
}

/// The text with the line of its checksum.
pub fn sealed(text: &str) -> String {
    let line = format!("{CHECKSUM}{:016x}\n", fnv1a(text.as_bytes()));
    let Some(mark) = text.find(MARK) else { return text.to_owned() };
    let end = text[mark..].find('\n').map_or(text.len(), |length| mark + length + 1);
    format!("{}{line}{}", &text[..end], &text[end..])
}

/// Whether the checksum is that of the text.
pub fn is_sealed(text: &str) -> bool {
    let Some(line) = head(text).find(|line| line.starts_with(CHECKSUM)) else { return false };
    sealed(&text.replacen(&format!("{line}\n"), "", 1)) == text
}

/// The hash FNV-1a of 64 bits (RFC 9923): it tells edits, not attacks, and no dependency is worth that.
fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_hash_is_that_of_the_rfc() {
        assert_eq!(fnv1a(b""), 0xcbf2_9ce4_8422_2325);
        assert_eq!(fnv1a(b"foobar"), 0x8594_4171_f739_67e8);
    }

    proptest! {
        #[test]
        fn any_change_of_a_sealed_text_is_seen(
            body in "[ -~\n]{0,80}",
            at: prop::sample::Index,
            byte in b' '..b'~',
        ) {
            let text = sealed(&format!("#!/bin/sh\n{HEADER}{body}"));
            prop_assert!(is_sealed(&text));
            let mut other = text.clone().into_bytes();
            let at = at.index(other.len());
            prop_assume!(other[at] != byte);
            other[at] = byte;
            prop_assert!(!is_sealed(&String::from_utf8(other).unwrap()));
            prop_assert!(!is_sealed(&(text.clone() + "\n")));
            prop_assert!(!is_sealed(&text[..text.len() - 1]));
        }
    }
}
