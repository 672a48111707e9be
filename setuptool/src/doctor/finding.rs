//! What the doctor says: a finding with its remedy.

use serde::Serialize;

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Severity {
    /// The daemon cannot start.
    Fatal,
    /// The daemon starts, but a class of containers or features will not work.
    Class,
    /// Good to know.
    Advisory,
}

/// Commands for the administrator, with a comment above them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Step {
    pub(crate) comment: String,
    pub(crate) commands: Vec<String>,
}

/// What to do about a finding.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub(crate) struct Remedy {
    /// For root, ready to paste.
    pub(crate) admin: Vec<Step>,
    /// For the user, in words or as commands.
    pub(crate) said: Vec<String>,
}

impl Remedy {
    /// Commands for the administrator.
    pub(crate) fn admin<S: Into<String>>(
        comment: &str,
        commands: impl IntoIterator<Item = S>,
    ) -> Self {
        let commands = commands.into_iter().map(Into::into).collect();
        Self { admin: vec![Step { comment: comment.to_owned(), commands }], said: Vec::new() }
    }

    /// Advice.
    pub(crate) fn said(text: impl Into<String>) -> Self {
        Self { admin: Vec::new(), said: vec![text.into()] }
    }

    /// Both remedies, in this order.
    pub(crate) fn and(mut self, other: Remedy) -> Self {
        self.admin.extend(other.admin);
        self.said.extend(other.said);
        self
    }
}

/// Something that is not as it should be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Finding {
    /// Stable name for tools and searches.
    pub(crate) code: &'static str,
    pub(crate) severity: Severity,
    /// What was seen.
    pub(crate) seen: String,
    /// Why it matters.
    pub(crate) why: &'static str,
    pub(crate) remedy: Remedy,
    /// `--force` makes a warning of it.
    #[serde(skip)]
    pub(crate) forcible: bool,
    /// `--skip-iptables` makes a warning of it.
    #[serde(skip)]
    pub(crate) about_iptables: bool,
}

impl Finding {
    fn new(severity: Severity, code: &'static str, seen: String, why: &'static str) -> Self {
        let remedy = Remedy::default();
        Self { code, severity, seen, why, remedy, forcible: false, about_iptables: false }
    }

    pub(crate) fn fatal(code: &'static str, seen: impl Into<String>, why: &'static str) -> Self {
        Self::new(Severity::Fatal, code, seen.into(), why)
    }

    pub(crate) fn class(code: &'static str, seen: impl Into<String>, why: &'static str) -> Self {
        Self::new(Severity::Class, code, seen.into(), why)
    }

    pub(crate) fn advisory(code: &'static str, seen: impl Into<String>, why: &'static str) -> Self {
        Self::new(Severity::Advisory, code, seen.into(), why)
    }

    pub(crate) fn remedy(mut self, remedy: Remedy) -> Self {
        self.remedy = self.remedy.and(remedy);
        self
    }

    pub(crate) fn forcible(mut self) -> Self {
        self.forcible = true;
        self
    }

    pub(crate) fn about_iptables(mut self) -> Self {
        self.about_iptables = true;
        self
    }
}

/// A word for a POSIX shell: itself, or in single quotes.
pub(crate) fn quoted(word: &str) -> String {
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
