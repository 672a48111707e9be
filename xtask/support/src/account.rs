//! Ordinary users of the machine: looked up, or made for one run.

use std::fs;
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::command::quietly;

/// A line of `/etc/passwd`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The name to log in with.
    pub name: String,
    /// Its user id.
    pub uid: u32,
    /// The id of its first group.
    pub gid: u32,
}

impl Entry {
    /// The user of this name.
    pub fn of_name(name: &str) -> Result<Self> {
        Self::find(|entry| entry.name == name)
            .with_context(|| format!("{name} is not in /etc/passwd"))
    }

    /// The user of this id.
    pub fn of_uid(uid: u32) -> Result<Self> {
        Self::find(|entry| entry.uid == uid)
            .with_context(|| format!("uid {uid} is not in /etc/passwd"))
    }

    fn find(wanted: impl Fn(&Self) -> bool) -> Result<Self> {
        let text = fs::read_to_string("/etc/passwd").context("reading /etc/passwd")?;
        text.lines().filter_map(Self::parse).find(wanted).context("no such user")
    }

    fn parse(line: &str) -> Option<Self> {
        let fields: Vec<&str> = line.split(':').collect();
        let [name, _, uid, gid, ..] = fields.as_slice() else { return None };
        Some(Self { name: (*name).to_owned(), uid: uid.parse().ok()?, gid: gid.parse().ok()? })
    }

    /// Makes sure that the user has subordinate ids.
    pub fn ensure_subids(&self) -> Result<()> {
        let (name, owners) = (&self.name, [format!("{}:", self.name), format!("{}:", self.uid)]);
        for file in ["/etc/subuid", "/etc/subgid"] {
            let text = fs::read_to_string(file).unwrap_or_default();
            ensure!(
                text.lines().any(|line| owners.iter().any(|owner| line.starts_with(owner))),
                "{name} has no subordinate ids in {file}\n\
                 hint: sudo usermod --add-subuids 100000-165535 --add-subgids 100000-165535 {name} (choose a free range)"
            );
        }
        Ok(())
    }
}

/// Adds an account that nobody can log in to. `useradd` gives it subordinate ids.
pub fn add(name: &str) -> Result<()> {
    let mut command = Command::new("useradd");
    command.args(["--no-create-home", "--home-dir", "/nonexistent"]);
    quietly(command.args(["--shell", "/usr/sbin/nologin", name])).map(drop)
}

/// Deletes such an account.
pub fn delete(name: &str) -> Result<()> {
    quietly(Command::new("userdel").arg(name)).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_passwd_is_read() {
        let entry = Entry::parse("dev:x:1000:100:,,,:/home/dev:/bin/sh").unwrap();
        assert_eq!(entry, Entry { name: "dev".to_owned(), uid: 1000, gid: 100 });
        assert_eq!(Entry::parse("dev:x:many:100::/:/bin/sh"), None);
        assert_eq!(Entry::parse("+::"), None);
    }
}
