//! Words of `DOCKERD_ROOTLESS_ROOTLESSKIT_FLAGS` and `DOCKERD`, and of commands that people paste into a shell.
//!
//! The shell script that these variables come from expanded them unquoted: whitespace separated words, quotes were
//! literal, and `*` matched files of the working directory. Values without quotes and backslashes, which is all that
//! ever worked, mean the same here. In addition words may be quoted as in sh(1):
//!
//! - `'…'` is literal,
//! - `"…"` is literal except that a backslash escapes `"`, `\`, `$`, `` ` `` and removes a line break,
//! - elsewhere a backslash makes the next character literal and removes a line break.
//!
//! Nothing is expanded: no globs, no `$NAME`, no `~`, no comments.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};

/// Text that ends inside of a quotation.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SplitError {
    /// A quote is opened and never closed.
    #[error(
        "`{0}`: the {1} quote is never closed\nhint: close it, or write \\{1} for a literal {1}"
    )]
    OpenQuote(String, char),
    /// The text ends with a backslash.
    #[error("`{0}`: nothing follows the last backslash\nhint: write \\\\ for a literal backslash")]
    TrailingBackslash(String),
}

/// Splits `text` into words.
///
/// ```
/// let words = hostenv::shellwords::split("--mtu=1400  -p '0.0.0.0:80:80/tcp'".as_ref()).unwrap();
/// assert_eq!(words, ["--mtu=1400", "-p", "0.0.0.0:80:80/tcp"]);
/// ```
///
/// # Errors
/// A quote is not closed or the text ends with a backslash.
pub fn split(text: &OsStr) -> Result<Vec<OsString>, SplitError> {
    let mut words = Vec::new();
    // None between words; quotes start a word even when they are empty.
    let mut word: Option<Vec<u8>> = None;
    let mut bytes = text.as_bytes().iter().copied();
    while let Some(byte) = bytes.next() {
        match byte {
            b' ' | b'\t' | b'\n' => words.extend(word.take()),
            b'\'' => quotation(&mut bytes, b'\'', word.get_or_insert_default(), text)?,
            b'"' => quotation(&mut bytes, b'"', word.get_or_insert_default(), text)?,
            b'\\' => match bytes.next() {
                Some(b'\n') => {}
                Some(next) => word.get_or_insert_default().push(next),
                None => return Err(SplitError::TrailingBackslash(text.to_string_lossy().into())),
            },
            other => word.get_or_insert_default().push(other),
        }
    }
    words.extend(word);
    Ok(words.into_iter().map(OsString::from_vec).collect())
}

/// A program that was found, and the arguments that belong to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Command<T> {
    /// What the search found.
    pub program: T,
    /// The words behind it.
    pub args: Vec<OsString>,
}

/// A variable that names no program.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CommandError {
    /// It cannot be split.
    #[error(transparent)]
    Split(#[from] SplitError),
    /// It is blank.
    #[error("{0:?}, which does not name a program")]
    Blank(OsString),
    /// There is no such program.
    #[error("{0:?} not found")]
    Missing(OsString),
}

/// Reads the value of `DOCKERD`, by default the program `usual`. A value that is a program as it stands needs no quotes,
/// whatever is in its path, as with Docker's script since 23.0; any other is split into words.
///
/// # Errors
/// See [`CommandError`].
pub fn command<T>(
    value: Option<&OsStr>,
    usual: &str,
    find: impl Fn(&OsStr) -> Option<T>,
) -> Result<Command<T>, CommandError> {
    let value = value.filter(|value| !value.is_empty()).unwrap_or(OsStr::new(usual));
    if let Some(program) = find(value) {
        return Ok(Command { program, args: Vec::new() });
    }
    let mut words = split(value)?.into_iter();
    let Some(name) = words.next() else { return Err(CommandError::Blank(value.to_owned())) };
    match find(&name) {
        Some(program) => Ok(Command { program, args: words.collect() }),
        None => Err(CommandError::Missing(name)),
    }
}

/// A word for a POSIX shell: itself, or in single quotes.
pub fn quoted(word: impl AsRef<OsStr>) -> String {
    let word = word.as_ref().to_string_lossy();
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-:=@%+,".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.into_owned()
    } else {
        format!("'{}'", word.replace('\'', "'\\''"))
    }
}

/// Whether `text` has quotes or backslashes, which the shell script took literally. Callers may want to mention it.
pub fn has_quoting(text: &OsStr) -> bool {
    text.as_bytes().iter().any(|byte| matches!(byte, b'\'' | b'"' | b'\\'))
}

fn quotation(
    bytes: &mut impl Iterator<Item = u8>,
    quote: u8,
    word: &mut Vec<u8>,
    text: &OsStr,
) -> Result<(), SplitError> {
    while let Some(byte) = bytes.next() {
        if byte == quote {
            return Ok(());
        }
        if byte != b'\\' || quote == b'\'' {
            word.push(byte);
            continue;
        }
        match bytes.next() {
            Some(b'\n') => {}
            Some(next @ (b'"' | b'\\' | b'$' | b'`')) => word.push(next),
            Some(next) => word.extend([b'\\', next]),
            None => break,
        }
    }
    Err(SplitError::OpenQuote(text.to_string_lossy().into(), char::from(quote)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn words(text: &str) -> Vec<String> {
        let words = split(OsStr::new(text)).unwrap();
        words.into_iter().map(|word| word.into_string().unwrap()).collect()
    }

    #[test]
    fn flags_without_quotes_split_as_the_shell_did() {
        assert_eq!(
            words("-p 0.0.0.0:2376:2376/tcp --debug"),
            ["-p", "0.0.0.0:2376:2376/tcp", "--debug"]
        );
        assert_eq!(words(" \t a\n\nb "), ["a", "b"]);
        assert_eq!(words("*.txt $HOME ~ # x"), ["*.txt", "$HOME", "~", "#", "x"]);
        assert!(words("").is_empty());
        assert!(words(" \n").is_empty());
    }

    #[test]
    fn quotes_and_backslashes_keep_spaces_together() {
        assert_eq!(
            words(r#"--state-dir='/run/my dir' a"b c"d"#),
            ["--state-dir=/run/my dir", "ab cd"]
        );
        assert_eq!(words(r#"a\ b "x\"y" "\n" '\n'"#), ["a b", "x\"y", "\\n", "\\n"]);
        assert_eq!(words("'' \"\" x"), ["", "", "x"]);
        assert_eq!(words("a\\\nb \"c\\\nd\""), ["ab", "cd"]);
        assert!(has_quoting(OsStr::new("a'b'")));
        assert!(!has_quoting(OsStr::new("a b")));
    }

    #[test]
    fn the_program_of_dockerd_may_be_quoted_or_have_arguments() {
        let here = ["dockerd", "/opt/My Docker/dockerd", "/opt/it's"];
        let find = |name: &OsStr| here.iter().find(|known| name == **known).copied();
        let read = |value: &str| {
            let command = command(Some(OsStr::new(value)), "dockerd", find)?;
            let args: Vec<_> =
                command.args.iter().map(|arg| arg.to_string_lossy().into_owned()).collect();
            Ok((command.program, args.join("|")))
        };
        for (value, program, args) in [
            ("", "dockerd", ""),
            ("dockerd --debug -H 'unix:///a b'", "dockerd", "--debug|-H|unix:///a b"),
            ("/opt/My Docker/dockerd", "/opt/My Docker/dockerd", ""),
            ("'/opt/My Docker/dockerd' --debug", "/opt/My Docker/dockerd", "--debug"),
            ("\"/opt/My Docker/dockerd\"", "/opt/My Docker/dockerd", ""),
            ("/opt/My\\ Docker/dockerd", "/opt/My Docker/dockerd", ""),
            ("/opt/it's", "/opt/it's", ""),
        ] {
            assert_eq!(read(value), Ok((program, args.to_owned())), "{value}");
        }
        assert_eq!(read(" \n"), Err(CommandError::Blank(" \n".into())));
        assert_eq!(read("/opt/x y"), Err(CommandError::Missing("/opt/x".into())));
        assert!(matches!(read("'/opt/x"), Err(CommandError::Split(_))));
    }

    #[test]
    fn unfinished_quoting_is_an_error_with_a_remedy() {
        for (text, part) in [
            ("it's", "the ' quote"),
            ("a \"b", "the \" quote"),
            ("\"a\\", "the \" quote"),
            ("a\\", "backslash"),
        ] {
            let error = split(OsStr::new(text)).unwrap_err().to_string();
            assert!(
                error.contains(part) && error.contains(text) && error.contains("hint: "),
                "{error}"
            );
        }
    }

    #[test]
    fn names_of_domain_users_are_quoted() {
        assert_eq!(quoted("jo"), "jo");
        assert_eq!(quoted(r"CORP\Jo Doe"), r"'CORP\Jo Doe'");
        assert_eq!(quoted("it's"), r"'it'\''s'");
        assert_eq!(quoted(""), "''");
    }

    proptest! {
        #[test]
        fn what_is_quoted_is_one_word_of_a_shell(word in "[^\0]{0,20}") {
            let words = split(quoted(&word).as_ref()).unwrap();
            prop_assert_eq!(words, vec![OsString::from(word)]);
        }

        #[test]
        fn quoting_any_words_brings_them_back(list in proptest::collection::vec(any::<Vec<u8>>(), 0..6)) {
            let mut text = Vec::new();
            for word in &list {
                text.push(b' ');
                text.push(b'\'');
                for byte in word {
                    if *byte == b'\'' { text.extend(b"'\\''") } else { text.push(*byte) }
                }
                text.push(b'\'');
            }
            let expected: Vec<OsString> = list.into_iter().map(OsString::from_vec).collect();
            prop_assert_eq!(split(OsStr::from_bytes(&text)).unwrap(), expected);
        }

        #[test]
        fn never_panics_and_plain_text_splits_at_whitespace(text: String) {
            let result = split(OsStr::new(&text));
            if !has_quoting(OsStr::new(&text)) {
                let expected: Vec<OsString> = text.split([' ', '\t', '\n']).filter(|w| !w.is_empty()).map(OsString::from).collect();
                prop_assert_eq!(result.unwrap(), expected);
            }
        }
    }
}
