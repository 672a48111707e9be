//! What was seen on each machine, kept in `results.json` beside the crate: `docs/kernels.md` is made of it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};

use crate::rows::Row;

/// Whether something works.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Answer {
    pub(crate) works: bool,
    /// Why not, as the tool under test says it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) reason: Option<String>,
    /// What was seen, for whoever watches.
    #[serde(skip)]
    pub(crate) seen: String,
}

/// A machine.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Results {
    pub(crate) kernel: String,
    pub(crate) debian: String,
    pub(crate) processors: String,
    pub(crate) docker: String,
    /// The network driver that is used if nothing else is asked for.
    pub(crate) network: String,
    pub(crate) storage: String,
    /// The codes of severe findings before root did anything.
    pub(crate) codes: Vec<String>,
    /// The warnings of rootlesskit.
    #[serde(default)]
    pub(crate) warnings: BTreeSet<String>,
    /// What each finding says.
    pub(crate) seen: BTreeMap<String, String>,
    pub(crate) rows: BTreeMap<String, Answer>,
}

impl Results {
    /// The answer to a row; that of the start to all that takes a start.
    pub(crate) fn answer(&self, row: &Row) -> Option<&Answer> {
        let start = || {
            let (group, _) = row.id.split_once('/')?;
            self.rows.get(&format!("{group}/start")).filter(|start| !start.works)
        };
        self.rows.get(row.id).or_else(start)
    }

    /// Whether the row with this id works.
    pub(crate) fn has(&self, id: &str) -> bool {
        self.rows.get(id).is_some_and(|answer| answer.works)
    }

    /// Why a row does not work, as the tool says it: what `check` predicted, or the error.
    pub(crate) fn why(&self, row: &Row) -> Option<String> {
        let answer = self.answer(row).filter(|answer| !answer.works)?;
        if let Some(reason) = &answer.reason {
            return Some(reason.clone());
        }
        if let Some(words) = row.warning {
            return self.warnings.iter().find(|warning| warning.contains(words)).cloned();
        }
        let code = row.code?;
        Some(format!("`check` says `{code}`: {}", self.seen.get(code)?))
    }
}

/// What was seen in a situation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Found {
    pub(crate) works: bool,
    /// What `check` says, by code.
    pub(crate) said: BTreeMap<String, String>,
    /// Whether it works after what `check` proposes; `None` if it proposes nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) fixed: Option<bool>,
}

/// What was seen of Docker on a file system.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Kept {
    /// The codes of `check`.
    pub(crate) codes: Vec<String>,
    /// The storage driver that dockerd takes, after the fix if there is one.
    pub(crate) driver: String,
    pub(crate) works: bool,
    /// Whether it works after what `check` proposes; `None` if nothing has to be done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) fixed: Option<bool>,
    /// What did not work, for whoever watches.
    #[serde(skip)]
    pub(crate) seen: String,
}

/// What was seen of Docker or rootlesskit with SELinux in a mode.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Guarded {
    #[serde(flatten)]
    pub(crate) kept: Kept,
    /// What the policy denies to the processes of the user.
    #[serde(default)]
    pub(crate) denied: BTreeSet<String>,
}

/// What was seen of a network that changes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Network {
    /// Before, during and after.
    pub(crate) phases: Vec<Seen>,
    /// The warnings and errors of rootlesskit, for whoever watches.
    #[serde(skip)]
    pub(crate) said: String,
}

/// What was seen at a time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Seen {
    /// The codes of `check`, without those of the untouched machine.
    pub(crate) codes: Vec<String>,
    pub(crate) attempts: Vec<Attempt>,
}

/// The same, tried in the namespace and on the host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Attempt {
    pub(crate) what: String,
    pub(crate) inside: Tried,
    pub(crate) host: Tried,
}

/// What came of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Tried {
    pub(crate) works: bool,
    /// The name of an error, or what else there is to see.
    pub(crate) seen: String,
}

/// What the phases are called.
pub(crate) const PHASES: [&str; 3] = ["before", "during", "after"];

impl Network {
    /// What `check` says at any time.
    pub(crate) fn codes(&self) -> Vec<String> {
        let codes: BTreeSet<&String> = self.phases.iter().flat_map(|seen| &seen.codes).collect();
        codes.into_iter().cloned().collect()
    }

    /// What works for a program on the host and not in the namespace, unless `check` says why with this code.
    pub(crate) fn worse(&self, why: Option<&str>) -> Vec<String> {
        let explained = |seen: &&Seen| seen.codes.iter().any(|code| Some(code.as_str()) == why);
        let unexplained = self.phases.iter().filter(|seen| !explained(seen));
        let attempts = unexplained.flat_map(|seen| &seen.attempts);
        let worse = attempts.filter(|attempt| attempt.host.works && !attempt.inside.works);
        worse
            .map(|Attempt { what, inside, .. }| {
                format!("{what} works on the host and not in the namespace: {}", inside.seen)
            })
            .collect()
    }
}

/// All that is kept.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Stored {
    /// By the name of the column.
    pub(crate) machines: BTreeMap<String, Results>,
    /// By the id of the situation.
    pub(crate) situations: BTreeMap<String, Found>,
    /// By the id of the file system.
    #[serde(default)]
    pub(crate) storage: BTreeMap<String, Kept>,
    /// By the id of the case.
    #[serde(default)]
    pub(crate) networks: BTreeMap<String, Network>,
    /// By the id of the case, and then by the mode.
    #[serde(default)]
    pub(crate) selinux: BTreeMap<String, BTreeMap<String, Guarded>>,
}

fn path() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("results.json")
}

/// Nothing if nothing was stored yet.
pub(crate) fn read() -> Result<Stored> {
    let text = match fs::read_to_string(path()) {
        Ok(text) => text,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Stored::default()),
        Err(error) => return Err(error).context("reading the stored results"),
    };
    serde_json::from_str(&text).context("the stored results")
}

pub(crate) fn write(stored: &Stored) -> Result<()> {
    let text = serde_json::to_string_pretty(stored)?;
    fs::write(path(), text + "\n").context("writing the results")
}

#[cfg(test)]
mod tests_of_reasons {
    use super::*;
    use crate::rows;

    #[test]
    fn a_no_is_explained_by_the_error_then_by_the_warning_or_the_prediction_about_its_row() {
        let no = |reason: Option<&str>| Answer {
            works: false,
            reason: reason.map(str::to_owned),
            seen: String::new(),
        };
        let mut results = Results::default();
        results.rows.insert("pasta/published4".to_owned(), no(None));
        results.rows.insert("gateway/ping4".to_owned(), no(None));
        results.rows.insert("slirp4netns/start".to_owned(), no(Some("no such program")));
        let why = |results: &Results, id: &str| {
            results.why(rows::all().find(|row| row.id == id).expect("a row"))
        };
        results.warnings.insert("it is experimental".to_owned());
        assert_eq!(why(&results, "pasta/published4"), None, "a warning about something else");
        results.warnings.insert("pasta is too old".to_owned());
        assert_eq!(why(&results, "pasta/published4").as_deref(), Some("pasta is too old"));
        assert_eq!(why(&results, "gateway/ping4"), None, "nobody predicted it");
        results.seen.insert("ping".to_owned(), "it is 1 0".to_owned());
        let predicted = "`check` says `ping`: it is 1 0";
        assert_eq!(why(&results, "gateway/ping4").as_deref(), Some(predicted));
        assert_eq!(why(&results, "slirp4netns/tcp4").as_deref(), Some("no such program"));
    }

    #[test]
    fn what_works_on_the_host_only_is_wrong_unless_check_says_why() {
        let tried = |works: bool| Tried { works, seen: "seen".to_owned() };
        let network = |codes: &[&str], inside: bool, host: bool| {
            let attempt =
                Attempt { what: "DNS".to_owned(), inside: tried(inside), host: tried(host) };
            let codes = codes.iter().map(|code| (*code).to_owned()).collect();
            Network { phases: vec![Seen { codes, attempts: vec![attempt] }], said: String::new() }
        };
        let worse = "DNS works on the host and not in the namespace: seen";
        assert_eq!(network(&[], false, true).worse(None), [worse]);
        assert_eq!(network(&["other"], false, true).worse(Some("why")), [worse]);
        assert!(network(&["why"], false, true).worse(Some("why")).is_empty());
        for (inside, host) in [(true, true), (true, false), (false, false)] {
            assert!(network(&[], inside, host).worse(None).is_empty());
        }
    }
}
