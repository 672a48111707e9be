//! What to do about a finding.

use serde::Serialize;

/// Commands for the administrator, with a comment above them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Step {
    pub comment: String,
    pub commands: Vec<String>,
}

/// What to do about a finding.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Remedy {
    /// For root, ready to paste.
    pub admin: Vec<Step>,
    /// For the user, in words or as commands.
    pub said: Vec<String>,
}

impl Remedy {
    pub fn admin<S: Into<String>>(comment: &str, commands: impl IntoIterator<Item = S>) -> Self {
        let commands = commands.into_iter().map(Into::into).collect();
        Self { admin: vec![Step { comment: comment.to_owned(), commands }], said: Vec::new() }
    }

    pub fn said(text: impl Into<String>) -> Self {
        Self { admin: Vec::new(), said: vec![text.into()] }
    }

    pub fn and(mut self, other: Remedy) -> Self {
        self.admin.extend(other.admin);
        self.said.extend(other.said);
        self
    }
}
