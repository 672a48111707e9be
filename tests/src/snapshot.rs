//! What a user's software leaves on a box with systemd, as lines that can be compared: files, mounts, units, control
//! groups, processes.
//!
//! [`TestBox::assert_clean`] compares with the state after boot and knows no service manager; a snapshot is taken when
//! the test says so, and gives the differences to it.

use std::collections::BTreeSet;

use anyhow::Result;

use crate::TestBox;
use crate::clean::is_stack_dump;

/// Prints everything, one fact per line. `$1` is the account's uid.
///
/// Left out: the folder in which the manager notes the invocation ids of units that have run, and the memory of the
/// journal. Both belong to systemd.
const LOOK: &str = r#"set -e
home=$(getent passwd "$1" | cut -d: -f6)
find "$home" "/run/user/$1" -path "/run/user/$1/systemd/units" -prune -o -printf '%M %U %p %l\n' | sed 's/^/file /'
find /tmp /var /etc /dev/shm /run -xdev \( -uid "$1" -o -uid +99999 \) ! -path '/var/log/journal/*' \
	! -path '/run/box/*' -printf 'file %M %U %p %l\n'
find "/sys/fs/cgroup/user.slice/user-$1.slice/user@$1.service" -type d -printf 'group %P\n'
cut -d' ' -f4- /proc/1/mountinfo | sed 's/^/mount /'
run() { setpriv --reuid="$1" --regid="$1" --init-groups env -i "XDG_RUNTIME_DIR=/run/user/$1" SYSTEMD_COLORS=0 LC_ALL=C.UTF-8 \
	PATH=/usr/bin:/bin systemctl --user --no-legend --no-pager --plain list-"$2" --all; }
run "$1" unit-files | sed 's/^/unit file /; s/  */ /g'
run "$1" units | cut -d' ' -f1 | sed 's/^/unit /'
"#;

/// A box at one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Snapshot {
    lines: BTreeSet<String>,
}

impl Snapshot {
    /// Looks at everything of the account `tester`.
    ///
    /// # Errors
    /// The box has no systemd, or the user has no service manager.
    pub fn of(tb: &TestBox) -> Result<Self> {
        let text = tb.argv(crate::As::Root, &["sh", "-c", LOOK, "sh", "1001"]).ok()?;
        let processes = tb.user_processes();
        let processes = processes.iter().map(|p| format!("process {} {}", p.uid, p.command));
        Ok(Self { lines: facts(&text).chain(processes).collect() })
    }

    /// What is here and not there (`+`), and what is there and not here (`-`).
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Vec<String> {
        let more = self.lines.difference(&earlier.lines).map(|line| format!("+ {line}"));
        let less = earlier.lines.difference(&self.lines).map(|line| format!("- {line}"));
        more.chain(less).collect()
    }
}

/// The lines that count.
fn facts(text: &str) -> impl Iterator<Item = String> {
    let stays = |line: &&str| !line.split(' ').any(is_stack_dump);
    text.lines().map(str::trim_end).filter(stays).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stacks_of_a_containerd_that_dockerd_starts_anew_do_not_count() {
        let text = "file -rw-r--r-- 1001 /tmp/containerd.333.stacks.log \nfile -rw-r--r-- 1001 /tmp/mine \n";
        assert_eq!(facts(text).collect::<Vec<_>>(), ["file -rw-r--r-- 1001 /tmp/mine"]);
    }

    #[test]
    fn differences_have_a_sign() {
        let of =
            |words: &[&str]| Snapshot { lines: words.iter().map(|w| (*w).to_owned()).collect() };
        assert_eq!(of(&["a", "b"]).since(&of(&["b", "c"])), ["+ a", "- c"]);
        assert!(of(&["a"]).since(&of(&["a"])).is_empty());
    }
}
