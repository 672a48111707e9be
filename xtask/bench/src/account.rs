//! The ordinary users that forwarders run as.
//!
//! Linux limits what all pipes of a user hold together (`fs.pipe-user-pages-soft`, pipe(7)). Programs that forward with
//! splice(2) keep what they have got: as one user, the first of them would leave no pipes to the others.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use nix::unistd::Pid;
use sys::pidfd::PidFd;
use xtask_support::account::{self, Entry};

use crate::procs;
use crate::sheet::Side;

/// Whose account a side runs in. The first one is also that of clients and servers.
fn number(side: Side) -> usize {
    match side {
        Side::Theirs | Side::Gvisor | Side::GatewayRules | Side::GatewaySenders => 1,
        Side::Pasta | Side::PastaNet | Side::Pasta1500 | Side::GatewayBefore => 2,
        _ => 0,
    }
}

const COUNT: usize = 3;

/// One user.
#[derive(Debug)]
pub(crate) struct Account {
    pub(crate) name: String,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    /// What holds its folders `home`, `run` and `tmp`.
    pub(crate) folder: PathBuf,
}

/// All of them, at least one. Those that were made for this are deleted with it.
#[derive(Debug)]
pub(crate) struct Accounts {
    list: Vec<Account>,
    /// The names of those that are still to be deleted: all of the list, or none.
    added: Vec<String>,
}

impl Accounts {
    /// The account `name` for all sides, or throw-away ones. Their folders are below `root`.
    pub(crate) fn prepare(name: Option<&str>, root: &Path) -> Result<Self> {
        let mut this = Self { list: Vec::new(), added: Vec::new() };
        let names = match name {
            Some(name) => vec![name.to_owned()],
            None => (0..COUNT).map(|n| format!("rk-bench-{}-{n}", std::process::id())).collect(),
        };
        let throw_away = name.is_none();
        for name in names {
            if throw_away {
                account::add(&name)?;
                this.added.push(name.clone());
            }
            // Short, because the paths of sockets below it have to fit into 108 bytes.
            let folder = root.join(format!("u{}", this.list.len()));
            this.list.push(Account::find(&name, folder)?);
        }
        Ok(this)
    }

    /// The one of clients, of servers and of what is ours.
    pub(crate) fn main(&self) -> &Account {
        &self.list[0]
    }

    /// The one of a side.
    pub(crate) fn of(&self, side: Side) -> &Account {
        self.list.get(number(side)).unwrap_or(self.main())
    }

    /// The one of a host, where the benchmark has several hosts.
    pub(crate) fn of_host(&self, number: usize) -> &Account {
        self.list.get(number).unwrap_or(self.main())
    }

    /// User ids of all.
    pub(crate) fn uids(&self) -> Vec<u32> {
        self.list.iter().map(|account| account.uid).collect()
    }

    /// Ends what is left of throw-away accounts. Everything has been told to end by now: some need a moment, and pasta
    /// outlives who started it.
    pub(crate) fn end_processes(&self) -> Result<()> {
        let throw_away = !self.added.is_empty();
        self.list.iter().filter(|_| throw_away).try_for_each(Account::end_processes)
    }

    /// Deletes throw-away accounts.
    pub(crate) fn delete(mut self) -> Result<()> {
        std::mem::take(&mut self.added).iter().try_for_each(|name| account::delete(name))
    }
}

impl Drop for Accounts {
    fn drop(&mut self) {
        for name in &self.added {
            if let Err(error) = account::delete(name) {
                eprintln!("{error:#}");
            }
        }
    }
}

impl Account {
    fn find(name: &str, folder: PathBuf) -> Result<Self> {
        let entry = Entry::of_name(name)?;
        let (uid, gid) = (entry.uid, entry.gid);
        ensure!(uid != 0, "--user {name:?} is root, and rootlesskit is for ordinary users");
        entry.ensure_subids()?;
        fs::create_dir(&folder)?;
        for dir in ["home", "run", "tmp"].map(|dir| folder.join(dir)) {
            fs::create_dir(&dir)?;
            chown(&dir, Some(uid), Some(gid))?;
            fs::set_permissions(&dir, fs::Permissions::from_mode(0o700))?;
        }
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o755))?;
        Ok(Self { name: name.to_owned(), uid, gid, folder })
    }

    fn end_processes(&self) -> Result<()> {
        let started = Instant::now();
        while !procs::of_user(self.uid).is_empty() {
            let late = started.elapsed() > Duration::from_secs(5);
            ensure!(
                started.elapsed() < Duration::from_secs(10),
                "processes of {} do not end even when killed: {:?}",
                self.name,
                procs::of_user(self.uid)
            );
            for (pid, name) in procs::of_user(self.uid).iter().filter(|_| late) {
                eprintln!("process {pid} ({name}) did not end and is killed");
                let process = PidFd::open(Pid::from_raw(*pid))?;
                // Looked up again: the number may have gone to somebody else before it was held.
                if procs::owner(*pid) == Some(self.uid) {
                    process.kill()?;
                }
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(())
    }
}
