//! Words of a POSIX shell.

/// A word for a POSIX shell: itself, or in single quotes.
pub fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-:=@%+,".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', "'\\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

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
            let words = hostenv::shellwords::split(quoted(&word).as_ref()).unwrap();
            prop_assert_eq!(words, vec![std::ffi::OsString::from(word)]);
        }
    }
}
