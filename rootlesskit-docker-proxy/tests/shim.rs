//! Row F185: every branch of the shim, against the real API server with a backend in memory and a shell script as
//! `docker-proxy`.

#![expect(clippy::unwrap_used, reason = "a test may panic, its helpers as well")]

use std::cell::Cell;
use std::fs;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::rc::Rc;
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use api::server::{Backend, BackendError, serve};
use api::{Info, NetworkDriverInfo, PortDriverInfo, PortId, PortSpec, PortStatus};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::sync::oneshot;

/// What takes longer than this hangs: the only bound there is on a machine that is busy with other things.
const PATIENCE: Duration = Duration::from_secs(60);

#[derive(Debug, PartialEq, Eq)]
enum Call {
    Add(String),
    Remove(PortId),
}

struct Fake {
    driver: Option<&'static str>,
    calls: Sender<Call>,
    next: Cell<PortId>,
}

impl Backend for Fake {
    fn info(&self) -> Result<Info, BackendError> {
        Ok(Info {
            network_driver: Some(NetworkDriverInfo {
                driver: "slirp4netns".into(),
                child_ip: Some("10.0.2.100".parse().unwrap()),
                ..NetworkDriverInfo::default()
            }),
            port_driver: self.driver.map(|driver| PortDriverInfo {
                driver: driver.into(),
                protos: ["tcp", "tcp4", "udp", "udp4"].map(str::to_owned).to_vec(),
                disallow_loopback_child_ip: driver == "slirp4netns",
                ..PortDriverInfo::default()
            }),
            ..Info::default()
        })
    }

    fn ports(&self) -> Result<Vec<PortStatus>, BackendError> {
        Ok(Vec::new())
    }

    async fn add(&self, spec: PortSpec) -> Result<PortStatus, BackendError> {
        spec.validate()?;
        if spec.parent_port == 80 {
            return Err(BackendError::Failed("cannot expose privileged port 80".into()));
        }
        self.calls.send(Call::Add(spec.to_string())).unwrap();
        self.next.set(self.next.get() + 1);
        Ok(PortStatus { id: self.next.get(), spec })
    }

    async fn remove(&self, id: PortId) -> Result<(), BackendError> {
        self.calls.send(Call::Remove(id)).unwrap();
        Ok(())
    }
}

/// A state directory with an API, and a directory with a `docker-proxy`.
struct Host {
    dir: tempfile::TempDir,
    calls: Receiver<Call>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Host {
    /// `script` is the body of the docker-proxy; it finds `$OUT`, a directory.
    fn new(driver: Option<&'static str>, script: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("bin")).unwrap();
        let program = dir.path().join("bin/docker-proxy");
        fs::write(&program, script).unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        let socket = dir.path().join(api::SOCKET_NAME);
        let (calls, receiver) = mpsc::channel();
        let (stop, stopped) = oneshot::channel();
        let (ready, is_ready) = mpsc::channel();
        let thread = std::thread::spawn(move || {
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let listener = tokio::net::UnixListener::bind(socket).unwrap();
                ready.send(()).unwrap();
                let backend = Rc::new(Fake { driver, calls, next: Cell::new(6) });
                serve(listener, backend, async { drop(stopped.await) }).await;
            });
        });
        is_ready.recv().unwrap();
        Self { dir, calls: receiver, stop: Some(stop), thread: Some(thread) }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Starts the shim with the status pipe on descriptor 3, as dockerd does.
    fn start(&self, args: &str) -> Shim {
        let mut command = Command::new("sh");
        command.args(["-c", r#"exec "$@" 3>&1 >/dev/null"#, "sh"]);
        command.arg(env!("CARGO_BIN_EXE_rootlesskit-docker-proxy")).args(args.split(' '));
        let path = format!("{}:/usr/bin:/bin", self.file("bin").display());
        command.env("PATH", path).env("OUT", self.dir.path());
        command.env("ROOTLESSKIT_STATE_DIR", self.dir.path());
        Shim::spawn(&mut command)
    }

    fn call(&self) -> Call {
        self.calls.recv_timeout(PATIENCE).unwrap()
    }

    /// No call has been made beside those that were asked for.
    fn assert_quiet(&self) {
        assert_eq!(self.calls.try_recv().ok(), None);
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        self.stop.take().map(|stop| stop.send(()));
        self.thread.take().map(JoinHandle::join);
    }
}

struct Shim {
    process: Child,
}

impl Shim {
    fn spawn(command: &mut Command) -> Self {
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        Self { process: command.spawn().unwrap() }
    }

    fn pid(&self) -> Pid {
        Pid::from_raw(i32::try_from(self.process.id()).unwrap())
    }

    /// What dockerd reads first.
    fn verdict(&mut self) -> [u8; 2] {
        let mut bytes = [0; 2];
        self.process.stdout.as_mut().unwrap().read_exact(&mut bytes).unwrap();
        bytes
    }

    /// Exit status, the rest of the status pipe, standard error.
    fn end(mut self) -> (Option<i32>, String, String) {
        let deadline = Instant::now() + PATIENCE;
        while self.process.try_wait().unwrap().is_none() {
            assert!(Instant::now() < deadline, "the shim does not end");
            std::thread::sleep(Duration::from_millis(5));
        }
        let (mut status, mut log) = (String::new(), String::new());
        self.process.stdout.take().unwrap().read_to_string(&mut status).unwrap();
        self.process.stderr.take().unwrap().read_to_string(&mut log).unwrap();
        (self.process.wait().unwrap().code(), status, log)
    }
}

impl Drop for Shim {
    fn drop(&mut self) {
        self.process.kill().ok();
        self.process.wait().ok();
    }
}

/// A docker-proxy that says that it serves, notes its arguments and pid, and stays.
const SERVES: &str = r#"#!/bin/sh
echo "$@" >"$OUT/args"
echo $$ >"$OUT/pid"
printf '0\n' >&3
exec sleep 600 >/dev/null 2>&1 3>&-
"#;

const PORT: &str =
    "-proto tcp -host-ip 0.0.0.0 -host-port 8080 -container-ip 172.17.0.2 -container-port 80";

fn wait_gone(pid: Pid) {
    let deadline = Instant::now() + PATIENCE;
    let stat = format!("/proc/{pid}/stat");
    while fs::read_to_string(&stat).is_ok_and(|stat| !stat.contains(") Z ")) {
        assert!(Instant::now() < deadline, "{pid} is still there");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn pid_of_real(host: &Host) -> Pid {
    Pid::from_raw(fs::read_to_string(host.file("pid")).unwrap().trim().parse().unwrap())
}

#[test]
fn without_a_port_driver_the_shim_becomes_the_real_proxy() {
    for driver in [None, Some("none"), Some("implicit")] {
        let host = Host::new(driver, SERVES);
        // Flags that only the real proxy knows pass as well.
        let mut shim = host.start(&format!("{PORT} -use-listen-fd"));
        assert_eq!(shim.verdict(), *b"0\n", "{driver:?}");
        assert_eq!(
            fs::read_to_string(host.file("args")).unwrap(),
            format!("{PORT} -use-listen-fd\n")
        );
        assert_eq!(pid_of_real(&host), shim.pid());
        host.assert_quiet();
    }
}

#[test]
fn the_port_is_published_until_a_signal() {
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
        let host = Host::new(Some("builtin"), SERVES);
        let mut shim = host.start(PORT);
        assert_eq!(shim.verdict(), *b"0\n");
        assert_eq!(host.call(), Call::Add("0.0.0.0:8080:127.0.0.1:8080/tcp4".into()));
        let args = fs::read_to_string(host.file("args")).unwrap();
        assert_eq!(
            args,
            "-container-ip 172.17.0.2 -container-port 80 -host-ip 127.0.0.1 -host-port 8080 -proto tcp\n"
        );
        let real = pid_of_real(&host);
        assert_ne!(real, shim.pid());
        host.assert_quiet();
        kill(shim.pid(), signal).unwrap();
        assert_eq!(shim.end(), (Some(0), String::new(), String::new()), "{signal}");
        assert_eq!(host.call(), Call::Remove(7), "{signal}");
        wait_gone(real);
    }
}

#[test]
fn the_port_goes_to_the_namespace_if_loopback_is_no_choice() {
    let host = Host::new(Some("slirp4netns"), SERVES);
    let mut shim = host.start(&PORT.replace("tcp", "udp"));
    assert_eq!(shim.verdict(), *b"0\n");
    assert_eq!(host.call(), Call::Add("0.0.0.0:8080:10.0.2.100:8080/udp4".into()));
    assert!(fs::read_to_string(host.file("args")).unwrap().contains("-host-ip 10.0.2.100 "));
}

#[test]
fn an_unsupported_protocol_is_no_error() {
    for args in [PORT.replace("0.0.0.0", "::"), PORT.replace("tcp", "sctp")] {
        let host = Host::new(Some("builtin"), SERVES);
        let (code, status, log) = host.start(&args).end();
        assert_eq!((code, status.as_str()), (Some(0), "0\n"), "{log}");
        assert!(
            log.contains("warning: port 8080 of ") && log.contains("does not support protocol"),
            "{log}"
        );
        assert!(!host.file("args").exists());
        host.assert_quiet();
    }
}

#[test]
fn a_refused_port_is_reported_through_the_pipe() {
    let host = Host::new(Some("builtin"), SERVES);
    let (code, status, log) = host.start(&PORT.replace("8080", "80")).end();
    assert_eq!(code, Some(1));
    let text = status.strip_prefix("1\n").unwrap();
    assert!(
        text.ends_with("for 0.0.0.0:80:127.0.0.1:80/tcp4: cannot expose privileged port 80"),
        "{text}"
    );
    assert_eq!(log, format!("rootlesskit-docker-proxy: error: {text}\n"));
    assert!(!host.file("args").exists());
    // A value that the API refuses is named as well.
    let (_, status, _) = host.start("-proto tcp -host-ip nonsense -host-port 1").end();
    assert!(
        status.starts_with("1\n") && status.contains("invalid ParentIP: \"nonsense\""),
        "{status}"
    );
    let (_, status, _) = host.start("-proto tcp -frob").end();
    assert_eq!(status, "1\nflag provided but not defined: -frob");
    host.assert_quiet();
}

#[test]
fn the_end_of_the_real_proxy_is_noticed() {
    let fails = "#!/bin/sh\nprintf '1\\nlisten tcp: in use' >&3\nexit 5\n";
    let killed = "#!/bin/sh\nkill -KILL $$\n";
    let ends = "#!/bin/sh\nprintf '0\\n' >&3\n";
    for (script, code, status) in
        [(fails, 5, "1\nlisten tcp: in use"), (killed, 255, ""), (ends, 0, "0\n")]
    {
        let host = Host::new(Some("builtin"), script);
        let outcome = host.start(PORT).end();
        assert_eq!((outcome.0, outcome.1.as_str()), (Some(code), status), "{}", outcome.2);
        assert_eq!(outcome.2.contains("warning: docker-proxy exited"), code != 0, "{}", outcome.2);
        assert!(matches!(host.call(), Call::Add(_)));
        assert_eq!(host.call(), Call::Remove(7));
    }
}

#[test]
fn a_proxy_that_cannot_start_leaves_no_port() {
    let host = Host::new(Some("builtin"), "#!/nonexistent/interpreter\n");
    let (code, status, _) = host.start(PORT).end();
    assert_eq!(code, Some(1));
    assert!(
        status.starts_with("1\ncannot start ") && status.contains("bin/docker-proxy"),
        "{status}"
    );
    assert!(matches!(host.call(), Call::Add(_)));
    assert_eq!(host.call(), Call::Remove(7));
}

#[test]
fn the_real_proxy_dies_with_the_shim() {
    let host = Host::new(Some("builtin"), SERVES);
    let mut shim = host.start(PORT);
    assert_eq!(shim.verdict(), *b"0\n");
    let real = pid_of_real(&host);
    kill(shim.pid(), Signal::SIGKILL).unwrap();
    wait_gone(real);
}

#[test]
fn without_rootlesskit() {
    let dir = tempfile::tempdir().unwrap();
    let mut command = Command::new("sh");
    command.args(["-c", r#"exec "$@" 3>&1 >/dev/null"#, "sh"]);
    command.arg(env!("CARGO_BIN_EXE_rootlesskit-docker-proxy")).env_remove("ROOTLESSKIT_STATE_DIR");
    let (code, status, _) = Shim::spawn(&mut command).end();
    assert_eq!(code, Some(1));
    assert!(status.starts_with("1\nROOTLESSKIT_STATE_DIR is not set\nhint: "), "{status}");
    let (code, status, _) = Shim::spawn(command.env("ROOTLESSKIT_STATE_DIR", dir.path())).end();
    assert_eq!(code, Some(1));
    assert!(
        status.contains("version 0.14.0 or later is required: no RootlessKit API socket at "),
        "{status}"
    );
    // Started by hand there is no pipe, and nothing else may be taken for it.
    let mut by_hand = Command::new(env!("CARGO_BIN_EXE_rootlesskit-docker-proxy"));
    let (code, status, log) = Shim::spawn(by_hand.env("ROOTLESSKIT_STATE_DIR", dir.path())).end();
    assert_eq!((code, status.as_str()), (Some(1), ""));
    assert!(log.contains("no RootlessKit API socket"), "{log}");
    let program = env!("CARGO_BIN_EXE_rootlesskit-docker-proxy");
    let done = Command::new(program).arg("--help").env_remove("ROOTLESSKIT_STATE_DIR").output();
    let done = done.unwrap();
    assert!(done.status.success() && done.stderr.is_empty(), "{done:?}");
    assert!(String::from_utf8(done.stdout).unwrap().contains("--host-port"));
}
