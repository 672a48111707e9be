//! A place where an ordinary user runs the launcher: directories that belong to the user, a `PATH` of stub
//! programs, and a copy of the real binary (the build directory may be closed to other users).
#![expect(clippy::unwrap_used, reason = "clippy knows test functions, not what they call")]

use std::collections::BTreeMap;
use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Mutex, PoisonError};

/// Held while a program is written and while a process is started: a process that another thread starts in
/// between inherits the open file until it executes, and running the program would give `ETXTBSY`.
static FORK: Mutex<()> = Mutex::new(());

/// `nobody` everywhere.
const UID: u32 = 65534;

/// Writes arguments and environment where the test finds them. The file `help` is what it says about itself. A trial
/// of a network is counted, and fails with the text in the file `refusal`, if there is one.
pub(crate) const RECORD: &str = r#"out=${0%/*}/../recorded
if [ "$*" = --help ]; then /bin/cat "$out/../help"; exit; fi
case "$*" in *' true')
    echo "$*${NOTIFY_SOCKET:+ as the service}" >> "$out/trials"
    if [ -e "$out/../refusal" ]; then /bin/cat "$out/../refusal" >&2; exit 1; fi
    exit 0;;
esac
for a in "$@"; do printf '%s\0' "$a"; done > "$out/argv"
echo $$ > "$out/pid"
/usr/bin/env -0 > "$out/env""#;

pub(crate) struct Place {
    dir: tempfile::TempDir,
    env: BTreeMap<String, String>,
}

impl Place {
    /// Stubs of rootlesskit (which records), slirp4netns and dockerd; valid `HOME` and `XDG_RUNTIME_DIR`.
    pub(crate) fn new() -> Self {
        assert!(
            nix::unistd::geteuid().is_root(),
            "these tests need root, to become an ordinary user"
        );
        let dir = tempfile::tempdir().unwrap();
        fs::set_permissions(dir.path(), Permissions::from_mode(0o755)).unwrap();
        let mut place = Self { dir, env: BTreeMap::new() };
        for name in ["bin", "home", "run", "recorded", "app"] {
            fs::create_dir(place.at(name)).unwrap();
            chown(place.at(name), Some(UID), Some(UID)).unwrap();
        }
        fs::set_permissions(place.at("run"), Permissions::from_mode(0o700)).unwrap();
        {
            let _lock = FORK.lock().unwrap_or_else(PoisonError::into_inner);
            fs::copy(env!("CARGO_BIN_EXE_dockerd-rootless"), place.binary()).unwrap();
        }
        fs::write(place.at("help"), "--net value  [host, none, pasta, slirp4netns]\n").unwrap();
        place.stub("rootlesskit", RECORD);
        place.stub("slirp4netns", "echo --netns-type");
        place.stub("dockerd", "echo 'Docker version 28.5.2, build x'");
        for (name, sub) in [("HOME", "home"), ("XDG_RUNTIME_DIR", "run"), ("PATH", "bin")] {
            let value = place.text(sub);
            place.set(name, &value);
        }
        place
    }

    pub(crate) fn at(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn text(&self, name: &str) -> String {
        self.at(name).to_str().unwrap().to_owned()
    }

    pub(crate) fn binary(&self) -> PathBuf {
        self.at("app/dockerd-rootless")
    }

    pub(crate) fn set(&mut self, name: &str, value: &str) {
        self.env.insert(name.to_owned(), value.to_owned());
    }

    pub(crate) fn unset(&mut self, name: &str) {
        self.env.remove(name);
    }

    /// Puts a shell script on `PATH`.
    pub(crate) fn stub(&self, name: &str, script: &str) {
        self.program(name, &format!("#!/bin/sh\n{script}\n"));
    }

    /// Puts any executable file on `PATH`.
    pub(crate) fn program(&self, name: &str, content: &str) {
        let _lock = FORK.lock().unwrap_or_else(PoisonError::into_inner);
        let path = self.at("bin").join(name);
        fs::write(&path, content).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o755)).unwrap();
    }

    /// Gives rootlesskit the gateway network.
    pub(crate) fn with_gateway(&self) {
        fs::write(self.at("help"), "--net value  [host, none, gateway, slirp4netns]\n").unwrap();
    }

    pub(crate) fn remove_stub(&self, name: &str) {
        fs::remove_file(self.at("bin").join(name)).unwrap();
    }

    /// A program as the ordinary user, with the variables of the place only.
    pub(crate) fn command(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        command.env_clear().envs(&self.env).uid(UID).gid(UID).current_dir(self.at("home"));
        command
    }

    /// The launcher as the ordinary user.
    pub(crate) fn launch(&self, args: &[&str]) -> Finished {
        let mut command = self.command(&self.binary());
        command.args(args);
        finish(command)
    }

    /// What the stub of rootlesskit got; empty if it was not started.
    pub(crate) fn argv(&self) -> Vec<String> {
        self.strings("argv")
    }

    pub(crate) fn recorded_env(&self, name: &str) -> Option<String> {
        let prefix = format!("{name}=");
        self.strings("env").into_iter().find_map(|v| v.strip_prefix(&prefix).map(str::to_owned))
    }

    pub(crate) fn recorded(&self, name: &str) -> String {
        fs::read_to_string(self.at("recorded").join(name)).unwrap_or_default()
    }

    fn strings(&self, name: &str) -> Vec<String> {
        let text = self.recorded(name);
        text.strip_suffix('\0')
            .map_or_else(Vec::new, |t| t.split('\0').map(str::to_owned).collect())
    }
}

pub(crate) struct Finished {
    pub(crate) pid: u32,
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Finished {
    pub(crate) fn says(&self, token: &str) -> &Self {
        assert!(self.stderr.contains(token), "{token:?} is not in:\n{}", self.stderr);
        self
    }

    pub(crate) fn exits(&self, code: i32) -> &Self {
        assert_eq!(self.code, Some(code), "{}", self.stderr);
        self
    }
}

pub(crate) fn spawn(mut command: Command) -> Child {
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let _lock = FORK.lock().unwrap_or_else(PoisonError::into_inner);
    command.spawn().unwrap()
}

pub(crate) fn finish(command: Command) -> Finished {
    let child = spawn(command);
    let pid = child.id();
    let Output { status, stdout, stderr } = child.wait_with_output().unwrap();
    Finished {
        pid,
        code: status.code(),
        stdout: String::from_utf8(stdout).unwrap(),
        stderr: String::from_utf8(stderr).unwrap(),
    }
}
