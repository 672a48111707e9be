//! Command lines against the real server with a backend in memory.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::mpsc;
use std::thread::JoinHandle;

use api::policy::PolicyStatus;
use api::server::{Backend, BackendError, serve};
use api::{Info, NetworkDriverInfo, PortDriverInfo, PortStatus, Stats};
use tokio::sync::oneshot;

use super::*;

#[derive(Default)]
struct Fake {
    ports: RefCell<Vec<PortStatus>>,
    stats: Option<Stats>,
    policy: Option<PolicyStatus>,
    network: Option<NetworkDriverInfo>,
}

impl Backend for Fake {
    fn info(&self) -> Result<Info, BackendError> {
        let ip = |text: &str| text.parse().unwrap();
        Ok(Info {
            api_version: "1.1.2".into(),
            version: "3.2.0".into(),
            state_dir: "/s".into(),
            child_pid: 42,
            network_driver: self.network.clone().or_else(|| {
                Some(NetworkDriverInfo {
                    driver: "slirp4netns".into(),
                    dns: vec![ip("10.0.2.3"), ip("fd00::3")],
                    child_ip: Some(ip("10.0.2.100")),
                    ..NetworkDriverInfo::default()
                })
            }),
            port_driver: Some(PortDriverInfo {
                driver: "builtin".into(),
                protos: vec!["tcp".into(), "udp".into()],
                ..PortDriverInfo::default()
            }),
        })
    }

    fn ports(&self) -> Result<Vec<PortStatus>, BackendError> {
        // RootlessKit's own order is random.
        Ok(self.ports.borrow().iter().rev().cloned().collect())
    }

    async fn add(&self, spec: PortSpec) -> Result<PortStatus, BackendError> {
        let mut ports = self.ports.borrow_mut();
        spec.validate_among(&*ports)?;
        let id = PortId::try_from(ports.len()).unwrap() + 1;
        ports.push(PortStatus { id, spec });
        Ok(ports[ports.len() - 1].clone())
    }

    async fn remove(&self, id: PortId) -> Result<(), BackendError> {
        let mut ports = self.ports.borrow_mut();
        let Some(at) = ports.iter().position(|status| status.id == id) else {
            return Err(BackendError::Failed(format!("unknown port ID: {id}")));
        };
        ports.remove(at);
        Ok(())
    }

    async fn stats(&self) -> Result<Stats, BackendError> {
        self.stats.clone().ok_or_else(|| BackendError::NoStatistics("slirp4netns".into()))
    }

    async fn policy(&self) -> Result<PolicyStatus, BackendError> {
        self.policy.clone().ok_or(BackendError::NoPolicy)
    }
}

pub(super) struct Server {
    dir: tempfile::TempDir,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    fn start() -> Self {
        Self::with(None)
    }

    /// One whose network has these statistics.
    pub(super) fn with(stats: Option<Stats>) -> Self {
        Self::of(move || Fake { stats, ..Fake::default() })
    }

    /// One with this egress policy.
    pub(super) fn with_policy(policy: Option<PolicyStatus>) -> Self {
        Self::of(move || Fake { policy, ..Fake::default() })
    }

    /// One with this network.
    pub(super) fn with_network(network: NetworkDriverInfo) -> Self {
        Self::of(move || Fake { network: Some(network), ..Fake::default() })
    }

    fn of(fake: impl FnOnce() -> Fake + Send + 'static) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join(api::SOCKET_NAME);
        let (stop, stopped) = oneshot::channel();
        let (ready, is_ready) = mpsc::channel();
        let thread = std::thread::spawn(move || {
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let listener = tokio::net::UnixListener::bind(socket).unwrap();
                ready.send(()).unwrap();
                serve(listener, Rc::new(fake()), async { drop(stopped.await) }).await;
            });
        });
        is_ready.recv().unwrap();
        Self { dir, stop: Some(stop), thread: Some(thread) }
    }

    pub(super) fn socket(&self) -> PathBuf {
        self.dir.path().join(api::SOCKET_NAME)
    }

    pub(super) fn client(&self) -> Client {
        Client::new(self.socket())
    }

    pub(super) fn run(&self, args: &[&str]) -> (Result<u8, String>, String) {
        let dir = self.dir.path().to_str().unwrap();
        run_with(args, &[(vars::ROOTLESSKIT_STATE_DIR, dir)].into_iter().collect())
    }

    pub(super) fn ok(&self, args: &[&str]) -> String {
        let (outcome, output) = self.run(args);
        assert_eq!(outcome, Ok(0), "{args:?}");
        output
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.take().map(|stop| stop.send(()));
        self.thread.take().map(JoinHandle::join);
    }
}

pub(super) fn run_with(args: &[&str], env: &Env) -> (Result<u8, String>, String) {
    let mut out = Vec::new();
    let args = args.iter().map(OsString::from).collect();
    let outcome = run(args, env, &mut out).map_err(|error| format!("{error:#}"));
    (outcome, String::from_utf8(out).unwrap())
}

#[test]
fn ports_come_and_go() {
    let server = Server::start();
    let header = "ID    PROTO    PARENTIP    PARENTPORT    CHILDIP    CHILDPORT    \n";
    assert_eq!(server.ok(&["list-ports"]), header);
    assert_eq!(server.ok(&["list-ports", "--json"]), "");
    assert_eq!(server.ok(&["add-ports", "127.0.0.1:8080:80/tcp", ":53:[::1]:53/udp"]), "1\n2\n");
    let third = "{\"id\":3,\"spec\":{\"proto\":\"tcp6\",\"parentIP\":\"::\",\"parentPort\":1,\"childPort\":2}}\n";
    assert_eq!(server.ok(&["add-ports", "-json", "[::]:1:2/tcp6"]), third);
    assert_eq!(
        server.ok(&["list-ports"]),
        "ID    PROTO    PARENTIP     PARENTPORT    CHILDIP    CHILDPORT    \n\
         1     tcp      127.0.0.1    8080                     80           \n\
         2     udp                   53            ::1        53           \n\
         3     tcp6     ::           1                        2            \n"
    );
    let json = server.ok(&["list-ports", "--json=true"]);
    assert!(
        json.starts_with("{\"id\":1,\"spec\":{\"proto\":\"tcp\",\"parentIP\":\"127.0.0.1\""),
        "{json}"
    );
    assert!(json.ends_with(third) && json.lines().count() == 3, "{json}");
    assert_eq!(server.ok(&["remove-ports", "2", "1"]), "2\n1\n");
    assert_eq!(server.ok(&["list-ports", "--json"]), third);
}

#[test]
fn clients_of_a_port_are_shown_if_it_has_a_list_of_them() {
    let server = Server::start();
    server.ok(&["add-ports", ":53:53/udp", ":80:80/tcp@10.9.0.0/24+::1"]);
    assert_eq!(
        server.ok(&["list-ports"]),
        "ID    PROTO    PARENTIP    PARENTPORT    CHILDIP    CHILDPORT    ALLOWFROM          \n\
         1     udp                  53                       53                              \n\
         2     tcp                  80                       80           10.9.0.0/24+::1    \n"
    );
    let json = server.ok(&["list-ports", "--json"]);
    assert!(json.contains("\"childPort\":80,\"allowFrom\":[\"10.9.0.0/24\",\"::1\"]"), "{json}");
}

#[test]
fn stops_at_the_first_failure() {
    let server = Server::start();
    let (outcome, output) = server.run(&["add-ports", ":1:1/tcp", ":1:1/tcp", ":2:2/tcp"]);
    assert_eq!(outcome, Err("cannot publish :1:1/tcp: conflict with ID 1".into()));
    assert_eq!(output, "1\n");
    assert_eq!(server.ok(&["list-ports", "--json"]).lines().count(), 1);
    let (outcome, output) = server.run(&["remove-ports", "1", "9"]);
    assert_eq!(outcome, Err("cannot remove port 9: unknown port ID: 9".into()));
    assert_eq!(output, "1\n");
    // Nothing is published unless every spec can be parsed.
    for args in [
        ["add-ports", ":3:3/tcp", "8080"],
        ["add-ports", ":3:3/tcp", "--json"],
        ["add-ports", ":3:3/tcp", ":4:4/tcp,:5:5/tcp"],
        ["remove-ports", "1", "x"],
    ] {
        let (outcome, output) = server.run(&args);
        assert!(outcome.unwrap_err().starts_with("invalid port "), "{args:?}");
        assert_eq!(output, "", "{args:?}");
    }
    assert_eq!(server.ok(&["list-ports", "--json"]), "");
    assert_eq!(server.run(&["add-ports"]).0, Err("no port specified".into()));
    assert_eq!(server.run(&["remove-ports"]).0, Err("no ID specified".into()));
}

#[test]
fn info_as_text_and_as_json() {
    let server = Server::start();
    assert_eq!(
        server.ok(&["info"]),
        "- REST API version: 1.1.2\n\
         - Implementation version: 3.2.0\n\
         - State Directory: /s\n\
         - Child PID: 42\n\
         - Network Driver: slirp4netns\n\
         \x20 - DNS: [10.0.2.3 fd00::3]\n\
         \x20 - IP: 10.0.2.100\n\
         - Port Driver: builtin\n\
         \x20 - Supported protocols: [tcp udp]\n"
    );
    let json = server.ok(&["--debug", "info", "--json"]);
    assert!(
        json.starts_with("{\n    \"apiVersion\": \"1.1.2\",\n    \"version\": \"3.2.0\",\n"),
        "{json}"
    );
    assert!(
        json.contains("\n    \"networkDriver\": {\n        \"driver\": \"slirp4netns\",\n"),
        "{json}"
    );
    assert!(json.ends_with("    }\n}\n"), "{json}");
}

#[test]
fn the_socket_is_given_or_follows_from_the_state_directory() {
    let server = Server::start();
    let socket = server.dir.path().join("api.sock");
    let socket = socket.to_str().unwrap();
    let elsewhere = [(vars::ROOTLESSKIT_STATE_DIR, "/nonexistent")].into_iter().collect::<Env>();
    for args in [["--socket", socket, "info"].as_slice(), &[&format!("-socket={socket}"), "info"]] {
        assert_eq!(run_with(args, &elsewhere).0, Ok(0), "{args:?}");
    }
    let error = run_with(&["info"], &elsewhere).0.unwrap_err();
    assert!(error.starts_with("no RootlessKit API socket at /nonexistent/api.sock"), "{error}");
    for args in
        [["info"].as_slice(), &["list-ports"], &["--socket=", "info"], &["remove-ports", "1"]]
    {
        let error = run_with(args, &Env::default()).0.unwrap_err();
        assert!(error.contains("--socket") && error.contains("ROOTLESSKIT_STATE_DIR"), "{error}");
    }
}

#[test]
fn help_and_version_need_no_server() {
    let none = Env::default();
    for args in [["--version"], ["-version"], ["-v"]] {
        assert_eq!(run_with(&args, &none), (Ok(0), "rootlessctl version 3.2.0\n".into()));
    }
    let help = run_with(&["--help"], &none);
    assert!(help.1.contains("stats"), "{}", help.1);
    assert!(help.1.contains("list-ports") && help.1.contains("--socket <PATH>"), "{}", help.1);
    for args in [[].as_slice(), &["-h"], &["help"], &["h"], &["--help=true", "info"]] {
        assert_eq!(run_with(args, &none), help, "{args:?}");
    }
    let sub = run_with(&["add-ports", "--help"], &none);
    assert!(sub.1.contains("rootlessctl add-ports") && sub.1.contains("--json"), "{}", sub.1);
    assert_eq!(run_with(&["help", "add-ports"], &none), sub);
    for args in [["nonsense"].as_slice(), &["help", "nonsense"]] {
        assert_eq!(run_with(args, &none), (Ok(3), String::new()), "{args:?}");
    }
}

#[test]
fn what_has_ended_can_only_be_followed() {
    let server = Server::start();
    for args in [&["flows"][..], &["flows", "--json"]] {
        let error = server.run(args).0.unwrap_err();
        assert!(error.starts_with("flows requires --follow, because "), "{error}");
        assert!(error.contains("\nhint: use flows --follow"), "{error}");
    }
    let error = server.run(&["flows", "--follow", "x"]).0.unwrap_err();
    assert_eq!(error, "unexpected argument \"x\": flows takes no arguments");
    for args in [&["flows", "--follow"][..], &["flows", "-f", "--json"]] {
        let (error, out) = server.run(args);
        let error = error.unwrap_err();
        assert!(
            error.starts_with("network driver \"slirp4netns\" has no flow log\nhint: "),
            "{error}"
        );
        assert_eq!(out, "");
    }
}

#[test]
fn bad_flags_are_explained_twice() {
    let none = Env::default();
    for (args, message) in [
        (["--frob"].as_slice(), "flag provided but not defined: -frob"),
        (&["--socket"], "flag needs an argument: -socket"),
        (&["info", "--debug"], "flag provided but not defined: -debug"),
        (&["list-ports", "--json=maybe"], "invalid boolean value \"maybe\" for -json: parse error"),
    ] {
        let (outcome, output) = run_with(args, &none);
        assert_eq!(outcome, Err(message.into()));
        assert!(output.starts_with(&format!("Incorrect Usage: {message}\n\n")), "{output}");
        assert!(output.contains("--help"), "{output}");
    }
}

#[test]
fn the_definition_is_sound() {
    definition().debug_assert();
}
