//! The unit `docker.service` of the user's service manager.
//!
//! # Why its lines are what they are
//! - `Type=notify`, `NotifyAccess=all`: READY=1 is sent by dockerd, a grandchild of the main process.
//! - `KillMode=mixed`: SIGTERM goes to rootlesskit alone, which passes it on, and what is left is killed later; anything
//!   else leaked shims or killed dockerd first (<https://github.com/moby/moby/issues/41944>).
//! - `Delegate=yes`: the daemon makes control groups of its own.
//! - `Requires=dbus.socket`: with cgroup v2 the daemon asks systemd over the user's bus.
//! - Both time-outs are finite: a start that hangs ends as a failure with a journal.
//!
//! Docker's own tool writes the same except for the time-outs (it has none) and the place of the start limit, which
//! belongs to `[Unit]` since systemd 230.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use crate::header::{self, HEADER};
use crate::place::dir_of;

pub fn render(launcher: &Path, path: &OsStr, without_iptables: bool, activated: bool) -> String {
    let search = search_path(dir_of(launcher), path);
    let environment = quoted(&format!("PATH={}", escape_percent(&search)));
    // A dollar sign would start a variable.
    let program = escape_percent(&launcher.to_string_lossy()).replace('$', "$$");
    let flags = if without_iptables { " --iptables=false" } else { "" };
    // systemd hands the socket over, and the launcher and rootlesskit pass it on to dockerd.
    let (socket, listen) = if activated {
        ("Requires=docker.socket\nAfter=docker.socket\n", " -H fd://")
    } else {
        ("", "")
    };
    format!(
        "{HEADER}\
         # Put your own settings into a drop-in instead: systemctl --user edit docker.service\n\
         [Unit]\n\
         Description=Docker Application Container Engine (Rootless)\n\
         Documentation=https://docs.docker.com/go/rootless/\n\
         Requires=dbus.socket\n\
         {socket}\
         StartLimitBurst=3\n\
         StartLimitIntervalSec=60s\n\
         \n\
         [Service]\n\
         Environment={environment}\n\
         ExecStart={}{listen}{flags}\n\
         ExecReload=/bin/kill -s HUP $MAINPID\n\
         TimeoutStartSec=10min\n\
         TimeoutStopSec=2min\n\
         RestartSec=2\n\
         Restart=always\n\
         LimitNOFILE=infinity\n\
         LimitNPROC=infinity\n\
         LimitCORE=infinity\n\
         TasksMax=infinity\n\
         Delegate=yes\n\
         Type=notify\n\
         NotifyAccess=all\n\
         KillMode=mixed\n\
         \n\
         [Install]\n\
         WantedBy=default.target\n",
        quoted(&program)
    )
}

/// How the second line of units began in releases without checksums.
const OLD_HINT: &str = "# Your own settings belong into a drop-in:";

/// The text of the unit `docker.socket`: systemd listens in the daemon's place, and the first connection starts it.
/// The mode is the one that dockerd itself gives to its socket.
pub fn render_socket() -> String {
    format!("{HEADER}{SOCKET}")
}

const SOCKET: &str = "\
# Put your own settings into a drop-in instead: systemctl --user edit docker.socket
[Unit]
Description=Docker Socket for the API (Rootless)
Documentation=https://docs.docker.com/go/rootless/

[Socket]
ListenStream=%t/docker.sock
SocketMode=0660

[Install]
WantedBy=sockets.target
";

/// The launcher's directory, those of administrators, and what the user has; each once, absolute ones only, since a
/// service has another working directory than the shell.
pub fn search_path(bin: &Path, path: &OsStr) -> String {
    let first = [bin.to_owned(), "/sbin".into(), "/usr/sbin".into()];
    let mut dirs: Vec<PathBuf> = Vec::new();
    for dir in first.into_iter().chain(std::env::split_paths(path)) {
        if dir.is_absolute() && !dirs.contains(&dir) {
            dirs.push(dir);
        }
    }
    let dirs: Vec<_> = dirs.iter().map(|dir| dir.to_string_lossy()).collect();
    dirs.join(":")
}

/// `%` starts a specifier (systemd.unit(5)).
fn escape_percent(text: &str) -> String {
    text.replace('%', "%%")
}

/// Quoted if it has to be (systemd.syntax(7)).
fn quoted(word: &str) -> String {
    if word.contains(|c: char| c.is_whitespace() || "\"'\\".contains(c)) {
        format!("\"{}\"", word.replace('\\', "\\\\").replace('"', "\\\""))
    } else {
        word.to_owned()
    }
}

/// The program that a unit of [`render`] starts.
pub fn program(unit: &str) -> Option<PathBuf> {
    let line = unit.lines().find_map(|line| line.strip_prefix("ExecStart="))?;
    let word = unquoted(line)?.replace("%%", "%").replace("$$", "$");
    Some(word.into()).filter(|path: &PathBuf| path.is_absolute())
}

/// Whether a release without checksums wrote this unit, for whatever launcher and PATH.
pub fn is_unsealed(text: &str) -> bool {
    let old = |text: &str| {
        header::without_checksum(text)
            .replace("# Put your own settings into a drop-in instead:", OLD_HINT)
    };
    if text == old(&render_socket()) {
        return true;
    }
    let Some((launcher, path)) = program(text).zip(environment_path(text)) else { return false };
    let choices = [(false, false), (false, true), (true, false), (true, true)];
    choices.into_iter().any(|(without_iptables, activated)| {
        text == old(&render(&launcher, path.as_ref(), without_iptables, activated))
    })
}

/// The PATH that a unit of [`render`] sets.
fn environment_path(unit: &str) -> Option<String> {
    let line = unit.lines().find_map(|line| line.strip_prefix("Environment="))?;
    Some(unquoted(line)?.strip_prefix("PATH=")?.replace("%%", "%"))
}

/// The first word of a line that begins with one of [`quoted`].
fn unquoted(line: &str) -> Option<String> {
    let Some(rest) = line.strip_prefix('"') else {
        return line.split_whitespace().next().map(str::to_owned);
    };
    let (mut word, mut chars) = (String::new(), rest.chars());
    loop {
        match chars.next()? {
            '"' => return Some(word),
            '\\' => word.push(chars.next()?),
            other => word.push(other),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_unit() {
        let text = render(
            Path::new("/usr/bin/dockerd-rootless.sh"),
            "/usr/local/bin:/usr/bin:.".as_ref(),
            false,
            false,
        );
        for line in [
            "Requires=dbus.socket",
            "Environment=PATH=/usr/bin:/sbin:/usr/sbin:/usr/local/bin",
            "ExecStart=/usr/bin/dockerd-rootless.sh",
            "ExecReload=/bin/kill -s HUP $MAINPID",
            "Type=notify",
            "NotifyAccess=all",
            "Delegate=yes",
            "KillMode=mixed",
            "Restart=always",
            "WantedBy=default.target",
        ] {
            assert!(text.lines().any(|l| l == line), "{line}\n{text}");
        }
        assert!(!text.contains("=0\n"), "no endless time-out");
    }

    #[test]
    fn skipping_iptables_is_a_flag_of_the_daemon() {
        let text = render(Path::new("/b/d.sh"), "".as_ref(), true, false);
        assert!(text.contains("ExecStart=/b/d.sh --iptables=false\n"), "{text}");
    }

    #[test]
    fn odd_paths_are_escaped() {
        let text = render(Path::new("/h/My 50%/$x/d.sh"), "/a\"b".as_ref(), false, false);
        assert!(text.contains("ExecStart=\"/h/My 50%%/$$x/d.sh\"\n"), "{text}");
        assert!(
            text.contains("Environment=\"PATH=/h/My 50%%/$x:/sbin:/usr/sbin:/a\\\"b\"\n"),
            "{text}"
        );
    }

    #[test]
    fn the_program_of_a_unit() {
        let of = |line: &str| program(&format!("[Service]\n{line}\n"));
        assert_eq!(of("ExecStart=/a/b -H fd://"), Some("/a/b".into()));
        assert_eq!(of("ExecStart=\"/a b/100%%/$$c\" x"), Some("/a b/100%/$c".into()));
        assert_eq!(of("ExecStart=\"/a"), None);
        assert_eq!(of("ExecStart=b"), None);
        assert_eq!(of("ExecStop=/a"), None);
    }

    proptest! {
        #[test]
        fn the_program_that_was_written_is_the_one_that_is_read(
            name in "[a%$\"'\\\\ é]{0,12}",
            rest in "[^\0\n]{0,12}",
            flags: bool,
        ) {
            let launcher = PathBuf::from(format!("/{name}{rest}"));
            let text = render(&launcher, "/usr/bin".as_ref(), flags, flags);
            prop_assert_eq!(program(&text), Some(launcher));
        }
    }

    #[test]
    fn units_of_releases_without_checksums_are_known() {
        let first = "# Written by dockerd-rootless-setuptool.sh, which replaces it at the next install.\n\
             # Your own settings belong into a drop-in: systemctl --user edit docker";
        for (text, name) in [
            (render(Path::new("/h/My 50%/d.sh"), "/a b:/usr/bin".as_ref(), true, true), ".service"),
            (render(Path::new("/usr/bin/d.sh"), "".as_ref(), false, false), ".service"),
            (render_socket(), ".socket"),
        ] {
            assert!(!is_unsealed(&text), "{text}");
            let rest = text.splitn(3, '\n').nth(2).unwrap();
            let old = format!("{first}{name}\n{rest}");
            assert!(is_unsealed(&old), "{old}");
            for (from, to) in [
                ("ExecStart=", "ExecStart=/usr/bin/nice "),
                ("[Unit]\n", "[Unit]\nAfter=x\n"),
                ("Environment=", "Environment=A=1\nEnvironment="),
                ("0660", "0600"),
                ("PATH=", "PATH=/opt/bin:"),
            ] {
                let edited = old.replace(from, to);
                assert!(edited == old || !is_unsealed(&edited), "{edited}");
            }
        }
    }
}
