//! What `check` said, and doing what it said.

use serde_json::Value;
use tests::{Cmd, Context, Result, TestBox};

/// The end of `check --json`.
#[derive(Debug)]
pub(crate) struct Check {
    pub(crate) status: i32,
    document: Value,
}

impl Check {
    /// Runs a command that prints the document.
    pub(crate) fn of(command: Cmd<'_>) -> Result<Self> {
        let output = command.run()?;
        let document = serde_json::from_str(&output.stdout).with_context(|| output.to_string())?;
        Ok(Self { status: output.code, document })
    }

    /// A field of `effective`, as text.
    pub(crate) fn effective(&self, name: &str) -> String {
        match &self.document["effective"][name] {
            Value::String(text) => text.clone(),
            other => other.to_string(),
        }
    }

    fn findings(&self) -> impl Iterator<Item = &Value> {
        self.document["findings"].as_array().into_iter().flatten()
    }

    pub(crate) fn codes(&self) -> Vec<&str> {
        self.findings().filter_map(|finding| finding["code"].as_str()).collect()
    }

    pub(crate) fn has(&self, code: &str) -> bool {
        self.codes().contains(&code)
    }

    /// The codes of what is fatal, each once.
    pub(crate) fn fatal(&self) -> Vec<String> {
        let fatal = self.findings().filter(|finding| finding["severity"] == "fatal");
        let mut codes: Vec<String> =
            fatal.filter_map(|finding| Some(finding["code"].as_str()?.to_owned())).collect();
        codes.dedup();
        codes
    }
}

/// Does what an administrator does with the block in `printed`: pastes all of it into a root shell.
pub(crate) fn paste(b: &TestBox, printed: &str) -> Result<String> {
    let (_, rest) =
        printed.split_once("########## BEGIN ##########\n").with_context(|| printed.to_owned())?;
    let (block, _) =
        rest.split_once("########## END ##########\n").with_context(|| printed.to_owned())?;
    // The box has no sudo; root does not need it.
    b.script("/usr/local/sbin/sudo", "#!/bin/sh\nexec \"$@\"\n")?;
    b.root(block).ok()
}
