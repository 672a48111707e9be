//! The file that people write.

mod hints;
mod read;
mod values;

use std::fmt;
use std::str::FromStr;

use ipnet::IpNet;

use crate::policy::{Action, Mode, PortRange, Protocol, Target};

pub use values::Problem;

/// What a file says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct File {
    pub(crate) mode: Mode,
    pub(crate) default: Action,
    pub(crate) metadata: Action,
    pub(crate) rules: Vec<Written>,
}

/// A rule as it is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Written {
    pub(crate) name: String,
    /// The line of the name, from 1.
    pub(crate) line: usize,
    pub(crate) action: Action,
    pub(crate) from: Option<Who>,
    pub(crate) to: Vec<Target>,
    pub(crate) protocols: Vec<Protocol>,
    pub(crate) ports: Vec<PortRange>,
}

/// Whom a rule is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Who {
    /// The namespace itself.
    Daemon,
    /// Containers for which each key holds.
    Containers(Keys),
}

/// The keys for containers. One of the values of each key has to hold; a key without values is not there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Keys {
    /// Names, with `*` for any run of characters.
    pub(crate) containers: Vec<String>,
    /// Keys, and values if these matter.
    pub(crate) labels: Vec<(String, Option<String>)>,
    /// Names of Docker's networks.
    pub(crate) networks: Vec<String>,
    pub(crate) addresses: Vec<IpNet>,
}

/// Why a file cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileError {
    /// The line, from 1.
    pub line: usize,
    /// What is wrong: the value and the reason.
    pub problem: String,
    /// What to write instead.
    pub hint: String,
}

impl fmt::Display for FileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: {}\nhint: {}", self.line, self.problem, self.hint)
    }
}

impl std::error::Error for FileError {}

/// As in a file.
impl FromStr for Target {
    type Err = Problem;

    fn from_str(text: &str) -> Result<Self, Problem> {
        values::target(text)
    }
}

impl File {
    /// How long a file may be, in bytes. [`parse`](Self::parse) refuses a longer one.
    pub const MAX_LENGTH: usize = 1 << 20;

    /// Reads a file.
    ///
    /// # Errors
    /// Something in it is no policy. The error says where and how to mend it.
    pub fn parse(text: &str) -> Result<Self, FileError> {
        read::file(text)
    }

    /// Whether it is enforced.
    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// What becomes of what no rule matches.
    pub fn default_action(&self) -> Action {
        self.default
    }

    /// How many rules are written in it.
    pub fn rules(&self) -> usize {
        self.rules.len()
    }
}

/// As in a file, on one line.
impl fmt::Display for Who {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self::Containers(keys) = self else { return f.write_str("daemon") };
        let label = |(key, value): &(String, Option<String>)| match value {
            Some(value) => format!("{key}={value}"),
            None => key.clone(),
        };
        let addresses = keys.addresses.iter().map(|network| Target::Network(*network).to_string());
        let lists = [
            ("container", keys.containers.clone()),
            ("label", keys.labels.iter().map(label).collect()),
            ("network", keys.networks.clone()),
            ("address", addresses.collect()),
        ];
        let given = lists.iter().filter(|(_, values)| !values.is_empty());
        let given: Vec<_> =
            given.map(|(key, values)| format!("{key} {}", values.join(","))).collect();
        f.write_str(&given.join(" "))
    }
}

#[cfg(test)]
mod tests;
