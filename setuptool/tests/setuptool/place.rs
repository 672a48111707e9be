//! A place where an ordinary user runs the tool: directories that belong to the user, a `PATH` of stub programs, and a
//! copy of the real binary (the build directory may be closed to other users).
//!
//! Every stub appends its name and arguments to the file `calls`. What a stub does besides is in the file
//! `bin/NAME.do`, a shell script.
#![expect(clippy::unwrap_used, reason = "clippy knows test functions, not what they call")]

use std::collections::BTreeMap;
use std::fs::{self, Permissions};
use std::io::{Read as _, Write as _};
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::os::unix::net::UnixListener;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, PoisonError};

/// Held while a program is written and while a process is started: a process that another thread starts in between
/// inherits the open file until it executes, and running the program would give `ETXTBSY`.
static FORK: Mutex<()> = Mutex::new(());

/// `nobody` everywhere.
const UID: u32 = 65534;

/// One `printf`, because it is one write(2): stubs may run at the same time.
const RECORD: &str = "#!/bin/sh\n\
    printf '%s\\n' \"${0##*/}${*:+ $*}\" >> \"${0%/*}/../calls\"\n\
    if [ -e \"$0.do\" ]; then . \"$0.do\"; fi\n";

/// Like systemd without the unit: not active, everything else works.
const SYSTEMCTL: &str = "case \" $* \" in\n\
    *' --full status '*) echo '* docker.service - running' ;;\n\
    *' status '*) exit 3 ;;\n\
    *' disable '*) echo 'Removed default.target.wants/docker.service.' >&2 ;;\n\
    esac\n";

/// A docker CLI without the context.
const DOCKER: &str = "case \" $* \" in\n\
    *' inspect '*) exit 1 ;;\n\
    ' version ') echo \"Server at $DOCKER_HOST\" ;;\n\
    *) echo noise; echo 'said by docker' >&2 ;;\n\
    esac\n";

/// A docker CLI whose context `rootless` is for that host.
pub(crate) fn context(host: &str, description: &str) -> String {
    let json = format!(
        "[{{\"Name\":\"rootless\",\"Metadata\":{{\"Description\":\"{description}\"}},\
         \"Endpoints\":{{\"docker\":{{\"Host\":\"{host}\"}}}}}}]"
    );
    format!("case \"$*\" in *inspect*) echo '{json}' ;; esac")
}

pub(crate) struct Place {
    dir: tempfile::TempDir,
    env: BTreeMap<String, String>,
}

impl Drop for Place {
    fn drop(&mut self) {
        let removed = fs::remove_dir_all(self.dir.path());
        assert!(removed.is_ok() || std::thread::panicking(), "{}: {removed:?}", self.text(""));
    }
}

impl Place {
    /// A host with everything.
    pub(crate) fn new() -> Self {
        assert!(
            nix::unistd::geteuid().is_root(),
            "these tests need root, to become an ordinary user"
        );
        let dir = tempfile::tempdir().unwrap();
        fs::set_permissions(dir.path(), Permissions::from_mode(0o755)).unwrap();
        let mut place = Self { dir, env: BTreeMap::new() };
        for name in ["bin", "home", "run", "app"] {
            fs::create_dir(place.at(name)).unwrap();
            chown(place.at(name), Some(UID), Some(UID)).unwrap();
        }
        fs::set_permissions(place.at("run"), Permissions::from_mode(0o700)).unwrap();
        // The tests do not depend on the bus and the network devices of the machine.
        fs::write(place.at("run/bus"), "").unwrap();
        for name in ["calls", "env"] {
            fs::write(place.at(name), "").unwrap();
            chown(place.at(name), Some(UID), Some(UID)).unwrap();
        }
        {
            let _lock = FORK.lock().unwrap_or_else(PoisonError::into_inner);
            fs::copy(env!("CARGO_BIN_EXE_dockerd-rootless-setuptool"), place.binary()).unwrap();
        }
        for name in ["newuidmap", "newgidmap", "rootlesskit", "dockerd-rootless.sh", "dockerd"] {
            place.stub(name, "");
        }
        for name in ["newuidmap", "newgidmap"] {
            fs::set_permissions(place.at("bin").join(name), Permissions::from_mode(0o4755))
                .unwrap();
        }
        place.stub("iptables", "echo 'iptables v1.8.9 (nf_tables)'");
        place.stub("slirp4netns", "echo --netns-type");
        place.stub("nsenter", "");
        place.stub("systemctl", SYSTEMCTL);
        place.stub("docker", DOCKER);
        place.stub("getsubids", "echo \"0: nobody 100000 65536\"");
        let path = format!("{}:/usr/bin:/bin", place.text("bin"));
        for (name, value) in [
            ("HOME", place.text("home")),
            ("XDG_RUNTIME_DIR", place.text("run")),
            ("PATH", path),
            ("GETSUBIDS", place.text("bin/getsubids")),
            ("CONTAINERD_ROOTLESS_ROOTLESSKIT_STATE_DIR", place.text("none")),
            ("DOCKERD_ROOTLESS_ROOTLESSKIT_NET", "none".to_owned()),
        ] {
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

    fn binary(&self) -> PathBuf {
        self.at("app/dockerd-rootless-setuptool.sh")
    }

    pub(crate) fn set(&mut self, name: &str, value: &str) {
        self.env.insert(name.to_owned(), value.to_owned());
    }

    pub(crate) fn unset(&mut self, name: &str) {
        self.env.remove(name);
    }

    /// Puts a recording program on `PATH`, which also runs this script.
    pub(crate) fn stub(&self, name: &str, script: &str) {
        let _lock = FORK.lock().unwrap_or_else(PoisonError::into_inner);
        let path = self.at("bin").join(name);
        fs::write(&path, RECORD).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o755)).unwrap();
        fs::write(self.at("bin").join(format!("{name}.do")), script).unwrap();
    }

    /// Makes a program that exists elsewhere in `PATH` unfindable, too.
    pub(crate) fn remove_stub(&mut self, name: &str) {
        fs::remove_file(self.at("bin").join(name)).unwrap();
        let bin = self.text("bin");
        for tool in ["sh", "echo", "cat", "true", "sleep", "env", "id"] {
            let link = self.at("bin").join(tool);
            if !link.exists() {
                std::os::unix::fs::symlink(Path::new("/bin").join(tool), link).unwrap();
            }
        }
        self.set("PATH", &bin);
    }

    /// A file of the user.
    pub(crate) fn write(&self, name: &str, text: &str) {
        let path = self.at(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        for path in path.ancestors().take_while(|path| *path != self.dir.path()) {
            chown(path, Some(UID), Some(UID)).unwrap();
        }
    }

    pub(crate) fn read(&self, name: &str) -> Option<String> {
        fs::read_to_string(self.at(name)).ok()
    }

    /// A daemon that answers on its socket for as long as the test runs.
    pub(crate) fn daemon(&self) {
        let listener = UnixListener::bind(self.at("run/docker.sock")).unwrap();
        chown(self.at("run/docker.sock"), Some(UID), Some(UID)).unwrap();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let mut request = [0; 256];
                let _ = stream.read(&mut request);
                let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nOK");
            }
        });
    }

    /// What is left of [`daemon`](Self::daemon) when it has been stopped.
    pub(crate) fn daemon_stops(&self) {
        // There need not have been one.
        let _ = fs::remove_file(self.at("run/docker.sock"));
    }

    /// Runs the tool as the ordinary user, with the variables of the place only.
    pub(crate) fn run(&self, args: &[&str]) -> Finished {
        self.finish(args, UID)
    }

    /// Starts another program of the ordinary user, which ends with what is returned.
    pub(crate) fn process(&self, dir: &Path, argv: &[&str]) -> Program {
        let mut command = Command::new(argv[0]);
        command.args(&argv[1..]).uid(UID).gid(UID).current_dir(dir);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let _lock = FORK.lock().unwrap_or_else(PoisonError::into_inner);
        Program(command.spawn().unwrap())
    }

    pub(crate) fn run_as_root(&self, args: &[&str]) -> Finished {
        self.finish(args, 0)
    }

    /// Runs a line of a shell as the ordinary user; `@` in it is the place.
    pub(crate) fn shell(&self, line: &str) -> Finished {
        let line = line.replace("@/", &self.text(""));
        let mut command = Command::new("/bin/sh");
        command.args(["-c", &line]).env_clear().envs(&self.env).uid(UID).gid(UID);
        command.current_dir(self.at("home"));
        self.complete(command)
    }

    /// Runs the tool on a terminal, and returns what is seen there.
    pub(crate) fn run_on_terminal(&self, args: &[&str]) -> String {
        let pty = nix::pty::openpty(None, None).unwrap();
        let mut command = self.command(args, UID);
        command.stdin(Stdio::null()).stdout(pty.slave.try_clone().unwrap()).stderr(pty.slave);
        let mut child = {
            let _lock = FORK.lock().unwrap_or_else(PoisonError::into_inner);
            command.spawn().unwrap()
        };
        // The command holds our copies of the terminal; the end of the last one is the end of the text (EIO).
        drop(command);
        let mut seen = Vec::new();
        let _ = fs::File::from(pty.master).read_to_end(&mut seen);
        child.wait().unwrap();
        String::from_utf8(seen).unwrap()
    }

    fn command(&self, args: &[&str], uid: u32) -> Command {
        let mut command = Command::new(self.binary());
        command.args(args).env_clear().envs(&self.env).uid(uid).gid(uid);
        command.current_dir(self.at("home"));
        command
    }

    fn finish(&self, args: &[&str], uid: u32) -> Finished {
        self.complete(self.command(args, uid))
    }

    fn complete(&self, mut command: Command) -> Finished {
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let child = {
            let _lock = FORK.lock().unwrap_or_else(PoisonError::into_inner);
            command.spawn().unwrap()
        };
        let output = child.wait_with_output().unwrap();
        let text = |bytes: Vec<u8>| {
            let text = String::from_utf8(bytes).unwrap();
            text.replace(self.dir.path().to_str().unwrap(), "@")
        };
        Finished {
            code: output.status.code(),
            stdout: text(output.stdout),
            stderr: text(output.stderr),
        }
    }

    /// What the stubs were called with, questions about versions left out.
    pub(crate) fn calls(&self) -> Vec<String> {
        let text = self.read("calls").unwrap().replace(self.dir.path().to_str().unwrap(), "@");
        let asked = ["--version", "--help", "getsubids"];
        let calls = text.lines().filter(|line| !asked.iter().any(|word| line.contains(word)));
        calls.map(str::to_owned).collect()
    }
}

/// A program that runs.
pub(crate) struct Program(pub(crate) Child);

impl Drop for Program {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What the tool did; the place is `@` in it.
#[derive(Debug)]
pub(crate) struct Finished {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Finished {
    pub(crate) fn exits(&self, code: i32) -> &Self {
        assert_eq!(self.code, Some(code), "{}\n{}", self.stdout, self.stderr);
        self
    }

    /// On standard error.
    pub(crate) fn says(&self, token: &str) -> &Self {
        assert!(self.stderr.contains(token), "{token:?} is not in:\n{}", self.stderr);
        self
    }

    /// On standard output.
    pub(crate) fn prints(&self, token: &str) -> &Self {
        assert!(self.stdout.contains(token), "{token:?} is not in:\n{}", self.stdout);
        self
    }

    /// The lines of standard error that the tool itself wrote about warnings of the machine that the tests run on are
    /// left out: control groups, ping and the like differ.
    pub(crate) fn own_errors(&self) -> String {
        let lines = self.stderr.lines().filter(|line| !line.starts_with("[WARNING]"));
        lines.map(|line| format!("{line}\n")).collect()
    }
}
