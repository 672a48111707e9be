//! Ordinary users of the machine: looked up, or made for one run.

use std::fs;
use std::ops::RangeInclusive;
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::command::quietly;
use crate::process;

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

/// User ids of accounts that are made for one run. Whoever makes one ends its processes by its id in the end, so nothing
/// else may have that id: not the users of containers and test hosts either, who have the first ones from 1000 on and
/// whom `useradd` does not know.
const IDS: RangeInclusive<u32> = 50_000..=59_999;

/// Adds an account that nobody can log in to, with a user id that no process has. `useradd` gives it subordinate ids.
///
/// # Errors
/// It cannot be added, or processes have its id already, which is why it is deleted again.
pub fn add(name: &str) -> Result<()> {
    quietly(&mut adding(name))?;
    let alone = Entry::of_name(name).and_then(|entry| ensure_unused(entry.uid));
    if alone.is_err() {
        delete(name)?;
    }
    alone
}

fn adding(name: &str) -> Command {
    let mut command = Command::new("useradd");
    command.args(["--no-create-home", "--home-dir", "/nonexistent"]);
    command.args(["--shell", "/usr/sbin/nologin"]);
    command.arg("--key").arg(format!("UID_MIN={}", IDS.start()));
    command.arg("--key").arg(format!("UID_MAX={}", IDS.end())).arg(name);
    command
}

fn ensure_unused(uid: u32) -> Result<()> {
    let all = process::all();
    let mine = all.iter().filter(|stat| process::owner(stat.pid) == Some(uid));
    let mine: Vec<String> = mine.map(|stat| format!("{} ({})", stat.pid, stat.comm)).collect();
    ensure!(
        mine.is_empty(),
        "processes have the user id {uid}, which is no account's: {}\n\
         hint: wait until they have ended, or end the container that they are in",
        mine.join(", ")
    );
    Ok(())
}

/// Deletes such an account.
pub fn delete(name: &str) -> Result<()> {
    quietly(Command::new("userdel").arg(name)).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_account_of_one_run_has_an_id_that_no_process_has() {
        let own = crate::host::euid().unwrap();
        let error = ensure_unused(own).unwrap_err().to_string();
        let name = format!("{} (", std::process::id());
        assert!(error.contains(&name) && error.contains("\nhint: "), "{error}");
        // One that nobody has: the last id of all means "no id" (chown(2)).
        ensure_unused(u32::MAX).unwrap();
        let command = adding("rk-test");
        let words: Vec<_> = command.get_args().map(|word| word.to_str().unwrap()).collect();
        let keys = ["--key", "UID_MIN=50000", "--key", "UID_MAX=59999", "rk-test"];
        assert!(words.ends_with(&keys), "{words:?}");
    }

    #[test]
    fn a_line_of_passwd_is_read() {
        let entry = Entry::parse("dev:x:1000:100:,,,:/home/dev:/bin/sh").unwrap();
        assert_eq!(entry, Entry { name: "dev".to_owned(), uid: 1000, gid: 100 });
        assert_eq!(Entry::parse("dev:x:many:100::/:/bin/sh"), None);
        assert_eq!(Entry::parse("+::"), None);
    }
}
