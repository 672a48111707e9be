//! What the doctor says.

use serde::Serialize;

use crate::remedy::Remedy;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// The daemon cannot start, or `install` cannot succeed.
    Fatal,
    /// The daemon starts, but a class of containers or features will not work.
    Class,
    /// Good to know.
    Advisory,
}

/// Something that is not as it should be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// Stable name for tools and searches.
    pub code: &'static str,
    pub severity: Severity,
    pub seen: String,
    pub why: &'static str,
    pub remedy: Remedy,
    /// `--force` makes a warning of it.
    #[serde(skip)]
    pub forcible: bool,
    /// `--skip-iptables` makes a warning of it.
    #[serde(skip)]
    pub about_iptables: bool,
}

impl Finding {
    fn new(severity: Severity, code: &'static str, seen: String, why: &'static str) -> Self {
        let remedy = Remedy::default();
        Self { code, severity, seen, why, remedy, forcible: false, about_iptables: false }
    }

    pub fn fatal(code: &'static str, seen: impl Into<String>, why: &'static str) -> Self {
        Self::new(Severity::Fatal, code, seen.into(), why)
    }

    pub fn class(code: &'static str, seen: impl Into<String>, why: &'static str) -> Self {
        Self::new(Severity::Class, code, seen.into(), why)
    }

    pub fn advisory(code: &'static str, seen: impl Into<String>, why: &'static str) -> Self {
        Self::new(Severity::Advisory, code, seen.into(), why)
    }

    pub fn remedy(mut self, remedy: Remedy) -> Self {
        self.remedy = self.remedy.and(remedy);
        self
    }

    pub fn fix(self, text: impl Into<String>) -> Self {
        self.remedy(Remedy::said(text))
    }

    /// Adds each of these, of which there may be none.
    pub fn fixes<S: Into<String>>(self, texts: impl IntoIterator<Item = S>) -> Self {
        texts.into_iter().fold(self, Self::fix)
    }

    pub fn admin<S: Into<String>>(
        self,
        comment: &str,
        commands: impl IntoIterator<Item = S>,
    ) -> Self {
        self.remedy(Remedy::admin(comment, commands))
    }

    pub fn forcible(mut self) -> Self {
        self.forcible = true;
        self
    }

    pub fn about_iptables(mut self) -> Self {
        self.about_iptables = true;
        self
    }
}
