//! Values as Go reads them: booleans, integers, comma lists, and Go's quoting for messages.

use std::ffi::OsStr;
use std::fmt::Write as _;
use std::os::unix::ffi::OsStrExt as _;

/// The two ways an integer can be wrong, in the words of Go's `flag` package.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum IntError {
    Syntax,
    Range,
}

impl IntError {
    pub(crate) fn reason(self) -> &'static str {
        match self {
            IntError::Syntax => "parse error",
            IntError::Range => "value out of range",
        }
    }
}

/// Reads a boolean in one of the spellings of Go's `strconv.ParseBool`; anything else is `None`.
pub(crate) fn parse_bool(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

/// Reads an integer like Go's `strconv.ParseInt(text, 0, 64)`: the prefix chooses the base (`0x`, `0o`, `0b`, or a leading
/// `0` for octal), a sign may come first, and single underscores may separate digits.
pub(crate) fn read_int(text: &str) -> Result<i64, IntError> {
    let (negative, digits) = match text.as_bytes().first() {
        Some(b'-') => (true, &text[1..]),
        Some(b'+') => (false, &text[1..]),
        Some(_) => (false, text),
        None => return Err(IntError::Syntax),
    };
    let lower = digits.to_ascii_lowercase();
    // A bare prefix such as "0x" is no prefix: Go wants a digit behind it and otherwise reads octal, and fails there.
    let (radix, body, prefixed) = match lower.as_bytes() {
        [b'0', b'x', _, ..] => (16, &lower[2..], true),
        [b'0', b'o', _, ..] => (8, &lower[2..], true),
        [b'0', b'b', _, ..] => (2, &lower[2..], true),
        [b'0', _, ..] => (8, &lower[1..], true),
        [] => return Err(IntError::Syntax),
        _ => (10, lower.as_str(), false),
    };
    if !underscores_separate_digits(body, prefixed) {
        return Err(IntError::Syntax);
    }
    let mut value: i128 = 0;
    let mut overflow = false;
    for c in body.chars().filter(|c| *c != '_') {
        let digit = c.to_digit(radix).ok_or(IntError::Syntax)?;
        value = value * i128::from(radix) + i128::from(digit);
        // Clamped, not returned: a wrong character further right is a syntax error first.
        overflow |= value > i128::from(u64::MAX);
        value = value.min(i128::from(u64::MAX));
    }
    if overflow {
        return Err(IntError::Range);
    }
    i64::try_from(if negative { -value } else { value }).map_err(|_| IntError::Range)
}

/// An underscore stands between two digits or between the base prefix and a digit.
fn underscores_separate_digits(body: &str, prefixed: bool) -> bool {
    let starts_well = prefixed || !body.starts_with('_');
    starts_well && !body.ends_with('_') && !body.contains("__")
}

/// Splits the values of a slice flag: every value at its commas, every piece trimmed, order kept.
///
/// Empty pieces stay, so that the code that knows what the flag means can complain about them.
///
/// ```
/// assert_eq!(goflags::split_slice(["/etc, /run", "/var/lib"]), ["/etc", "/run", "/var/lib"]);
/// ```
pub fn split_slice<I>(values: I) -> Vec<String>
where
    I: IntoIterator<Item: AsRef<str>>,
{
    let mut pieces = Vec::new();
    for value in values {
        pieces.extend(value.as_ref().split(',').map(|piece| piece.trim().to_owned()));
    }
    pieces
}

/// Quotes a value like Go's `%q` verb, including bytes that are no UTF-8.
pub(crate) fn quote(value: &OsStr) -> String {
    let mut out = String::from("\"");
    for chunk in value.as_bytes().utf8_chunks() {
        for c in chunk.valid().chars() {
            quote_char(&mut out, c);
        }
        for byte in chunk.invalid() {
            let _ = write!(out, "\\x{byte:02x}");
        }
    }
    out.push('"');
    out
}

fn quote_char(out: &mut String, c: char) {
    let code = u32::from(c);
    let _ = match c {
        '"' | '\\' => write!(out, "\\{c}"),
        '\x07' => write!(out, "\\a"),
        '\x08' => write!(out, "\\b"),
        '\x0c' => write!(out, "\\f"),
        '\n' => write!(out, "\\n"),
        '\r' => write!(out, "\\r"),
        '\t' => write!(out, "\\t"),
        '\x0b' => write!(out, "\\v"),
        '\x00'..='\x1f' | '\x7f' => write!(out, "\\x{code:02x}"),
        _ if c.is_control() => write!(out, "\\u{code:04x}"),
        _ => write!(out, "{c}"),
    };
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::os::unix::ffi::OsStringExt as _;

    #[test]
    fn booleans_have_exactly_the_spellings_of_go() {
        for yes in ["1", "t", "T", "TRUE", "true", "True"] {
            assert_eq!(parse_bool(yes), Some(true), "{yes}");
        }
        for no in ["0", "f", "F", "FALSE", "false", "False"] {
            assert_eq!(parse_bool(no), Some(false), "{no}");
        }
        for neither in ["", "yes", "no", "on", "tRUE", " true", "2"] {
            assert_eq!(parse_bool(neither), None, "{neither}");
        }
    }

    #[test]
    fn integers_have_go_prefixes_and_underscores() {
        let good = [
            ("0", 0),
            ("-0", 0),
            ("+7", 7),
            ("1500", 1500),
            ("0x5DC", 1500),
            ("0X5dc", 1500),
            ("0o17", 15),
            ("017", 15),
            ("0_17", 15),
            ("0b101", 5),
            ("0x_ff", 255),
            ("65_520", 65520),
            ("9223372036854775807", i64::MAX),
            ("-9223372036854775808", i64::MIN),
        ];
        for (text, value) in good {
            assert_eq!(read_int(text), Ok(value), "{text}");
        }
        for text in [
            "", "-", "x", "0x", "0b", "08", "0b2", "1__0", "_1", "1_", "0x1_", "1.0", " 1", "1k",
            "--1", "é",
        ] {
            assert_eq!(read_int(text), Err(IntError::Syntax), "{text}");
        }
        for text in [
            "9223372036854775808",
            "-9223372036854775809",
            "99999999999999999999999999999999999999999999",
        ] {
            assert_eq!(read_int(text), Err(IntError::Range), "{text}");
        }
        assert_eq!(read_int("99999999999999999999999x"), Err(IntError::Syntax));
    }

    #[test]
    fn slices_split_at_commas_and_keep_empty_pieces() {
        assert_eq!(split_slice(["/etc,/run", " a , b "]), ["/etc", "/run", "a", "b"]);
        assert_eq!(split_slice(["", "a,,b"]), ["", "a", "", "b"]);
        assert!(split_slice(Vec::<String>::new()).is_empty());
    }

    #[test]
    fn quotes_like_go() {
        assert_eq!(quote(OsStr::new("a\"b\\c\n")), r#""a\"b\\c\n""#);
        assert_eq!(quote(OsStr::new("\x01é")), "\"\\x01é\"");
        assert_eq!(quote(&std::ffi::OsString::from_vec(vec![b'a', 0xff])), r#""a\xff""#);
    }

    proptest! {
        #[test]
        fn every_integer_survives_decimal_and_hexadecimal(value: i64) {
            prop_assert_eq!(read_int(&value.to_string()), Ok(value));
            let sign = if value < 0 { "-" } else { "" };
            let magnitude = value.unsigned_abs();
            prop_assert_eq!(read_int(&format!("{sign}{magnitude:#x}")), Ok(value));
            prop_assert_eq!(read_int(&format!("{sign}0o{magnitude:o}")), Ok(value));
        }

        #[test]
        fn value_readers_never_panic(text: String, bytes: Vec<u8>) {
            let _ = (read_int(&text), parse_bool(&text), split_slice([&text]));
            let quoted = quote(OsStr::from_bytes(&bytes));
            prop_assert!(!quoted.contains('\n'));
        }
    }
}
