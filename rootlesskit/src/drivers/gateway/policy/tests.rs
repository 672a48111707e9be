mod accepted;

use std::fs;
use std::time::Duration;

use super::*;

/// How long something may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(120);

/// What is in force, and what becomes of the next policy.
#[derive(Debug, Clone, Default)]
struct Gateway {
    policies: Rc<RefCell<Vec<Policies>>>,
    next: Rc<RefCell<Next>>,
    /// Who is told of the next policy, with [`Next::Open`].
    open: Rc<RefCell<Option<oneshot::Sender<anyhow::Result<()>>>>>,
}

#[derive(Debug, Clone, Copy, Default)]
enum Next {
    #[default]
    Accepted,
    TooLarge,
    /// The gateway refuses it later.
    Refused,
    /// The gateway ends.
    Ended,
    /// The gateway has not answered yet.
    Open,
}

impl Enforce for Gateway {
    fn enforce(&mut self, policies: &Policies) -> anyhow::Result<Accepted> {
        let (reply, accepted) = oneshot::channel();
        let known = self.policies.borrow().last() == Some(policies);
        match *self.next.borrow() {
            Next::TooLarge => anyhow::bail!("it is too large"),
            Next::Refused if !known => {
                reply.send(Err(anyhow::anyhow!("the gateway refused it: no room"))).unwrap();
                return Ok(accepted);
            }
            Next::Ended => drop(reply),
            Next::Open => {
                self.open.replace(Some(reply));
                return Ok(accepted);
            }
            Next::Accepted | Next::Refused => reply.send(Ok(())).unwrap(),
        }
        self.policies.borrow_mut().push(policies.clone());
        Ok(accepted)
    }

    fn describe(&self) -> PolicyGateway {
        PolicyGateway { networks: Vec::new(), loopback_tcp: Vec::new(), loopback_udp: Vec::new() }
    }
}

impl Gateway {
    /// The names of the rules in force, file by file.
    fn rules(&self) -> Vec<Vec<String>> {
        let policies = self.policies.borrow();
        let last = policies.last().unwrap();
        let names =
            |policy: &egress::Policy| policy.rules.iter().map(|rule| rule.name.clone()).collect();
        last.policies.iter().map(names).collect()
    }
}

fn rule(name: &str) -> String {
    format!("[[rule]]\nname = {name:?}\naction = \"deny\"\n")
}

struct Files(tempfile::TempDir);

impl Files {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn at(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.at(name), text).unwrap();
    }

    /// As editors do it.
    fn replace(&self, name: &str, text: &str) {
        self.write("new", text);
        fs::rename(self.at("new"), self.at(name)).unwrap();
    }

    fn read(&self, names: &[&str]) -> anyhow::Result<Vec<Source>> {
        let paths: Vec<_> = names.iter().map(|name| self.at(name).display().to_string()).collect();
        read(&paths)
    }

    fn follower(&self, names: &[&str]) -> (Follower<Gateway>, Gateway) {
        let gateway = Gateway::default();
        let state = self.at("state");
        let follower = Follower::new(self.read(names).unwrap(), &state, gateway.clone()).unwrap();
        (follower, gateway)
    }
}

/// Lets the follower work until this holds.
async fn until(
    follow: std::pin::Pin<&mut impl Future<Output = anyhow::Result<()>>>,
    mut holds: impl FnMut() -> bool,
) {
    let poll = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::select! {
        ended = follow => panic!("it ended: {ended:?}"),
        () = poll => {}
        () = tokio::time::sleep(PATIENCE) => panic!("too late"),
    }
}

#[test]
fn a_start_without_a_file_or_with_a_bad_one_fails() {
    let files = Files::new();
    files.write("good", &rule("a"));
    files.write("bad", "mode = \"on\"\n");
    assert_eq!(files.read(&["good"]).unwrap().len(), 1);
    for (name, part) in [("bad", "bad: line 1: "), ("missing", "missing: No such file")] {
        let error = format!("{:#}", files.read(&["good", name]).unwrap_err());
        assert!(error.contains(part), "{error}");
    }
    let gateway = Gateway::default();
    gateway.next.replace(Next::TooLarge);
    let sources = files.read(&["good"]).unwrap();
    let error = Follower::new(sources, &files.at("state"), gateway).unwrap_err();
    assert_eq!(format!("{error:#}"), "cannot enforce the egress policy: it is too large");
}

#[tokio::test]
async fn changes_of_the_files_are_enforced_and_bad_ones_change_nothing() {
    let files = Files::new();
    files.write("one", &rule("a"));
    files.write("two", &rule("b"));
    let (mut follower, gateway) = files.follower(&["one", "two"]);
    assert_eq!(gateway.rules(), [["a"], ["b"]]);
    let status = follower.status();
    let error = |file: usize| status.borrow().files[file].error.clone();
    let mut follow = std::pin::pin!(follower.follow());
    files.replace("two", &rule("c"));
    until(follow.as_mut(), || gateway.rules() == [["a"], ["c"]]).await;
    assert_eq!(status.borrow().files[1].rules[0].rule.name, "c");

    files.replace("two", "[[rule]]\nname = 7\n");
    until(follow.as_mut(), || error(1).is_some()).await;
    assert!(error(1).unwrap().contains("two: line 2: "), "{:?}", error(1));
    assert_eq!(gateway.rules(), [["a"], ["c"]], "the last good one");
    assert_eq!(status.borrow().files[1].rules[0].rule.name, "c");
    fs::remove_file(files.at("two")).unwrap();
    until(follow.as_mut(), || error(1).is_some_and(|error| error.contains("No such"))).await;
    assert_eq!((gateway.rules(), error(0)), (vec![vec!["a".into()], vec!["c".into()]], None));
    files.write("two", &rule("d"));
    until(follow.as_mut(), || gateway.rules() == [["a"], ["d"]] && error(1).is_none()).await;
}

#[test]
fn a_file_that_says_the_same_is_not_looked_at_again() {
    let files = Files::new();
    files.write("one", &rule("a"));
    files.write("two", &rule("b"));
    let (mut follower, _) = files.follower(&["one", "two"]);
    let change = |text: Option<&str>| match text {
        Some(text) => files.replace("one", text),
        None => fs::remove_file(files.at("one")).unwrap(),
    };
    for (text, changed, error) in [
        (Some(&*rule("a")), false, None),
        (Some(&rule("c")), true, None),
        (Some("mode = 7"), true, Some("line 1")),
        (Some("mode = 7"), false, Some("line 1")),
        (None, true, Some("No such file")),
        (Some(&rule("c")), true, None),
    ] {
        change(text);
        assert_eq!(follower.look(), changed, "{text:?}");
        assert!(!follower.look(), "{text:?}");
        let found = follower.sources[0].error.as_deref().unwrap_or_default();
        assert!(found.contains(error.unwrap_or_default()), "{text:?}: {found}");
        assert_eq!(found.is_empty(), error.is_none(), "{text:?}: {found}");
    }
}

/// As of an editor or a script that empties the file, writes it in parts and renames it.
#[tokio::test]
async fn all_events_of_one_change_are_one_look() {
    let files = Files::new();
    files.write("one", &rule("a"));
    let (mut follower, gateway) = files.follower(&["one"]);
    // Longer than all of them take.
    follower.look_delay = PATIENCE;
    let status = follower.status();
    {
        let mut follow = std::pin::pin!(follower.follow());
        for text in ["", "[[rule]]\n", &rule("b"), &rule("c"), &rule("d")] {
            files.write("one", text);
            let mut polled = false;
            until(follow.as_mut(), || std::mem::replace(&mut polled, true)).await;
            assert_eq!(status.borrow().files[0].error, None);
        }
    }
    // Now it is over.
    follower.look_delay = Duration::ZERO;
    let mut follow = std::pin::pin!(follower.follow());
    until(follow.as_mut(), || gateway.rules() == [["d"]]).await;
    assert_eq!(gateway.policies.borrow().len(), 2, "nothing between the first and the last");
}

#[tokio::test]
async fn docker_is_asked_while_a_file_names_containers() {
    use std::io::{Read as _, Write as _};
    use std::os::unix::net::UnixListener;
    let files = Files::new();
    files.write("one", &rule("a"));
    let (mut follower, gateway) = files.follower(&["one"]);
    follower.answer_time = PATIENCE;
    let daemon = UnixListener::bind(files.at("docker.sock")).unwrap();
    let served = std::thread::spawn(move || {
        // Whoever follows the events holds the first connection.
        let answers = [
            "",
            r#"[{"Names": ["/web"], "NetworkSettings": {"Networks": {"one":
                {"IPAddress": "172.18.0.2", "Gateway": "172.18.0.1"}}}}]"#,
            r#"[{"Name": "one", "IPAM": {"Config": [{"Subnet": "172.18.0.0/16"}]}}]"#,
        ];
        let mut events = None;
        for answer in answers {
            let mut stream = daemon.accept().unwrap().0;
            assert!(stream.read(&mut [0; 2048]).unwrap() > 0);
            let head = "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n";
            stream.write_all(format!("{head}{answer}").as_bytes()).unwrap();
            events.get_or_insert(stream);
        }
        let mut events = events.unwrap();
        events.set_read_timeout(Some(PATIENCE)).unwrap();
        assert_eq!(events.read(&mut [0]).unwrap(), 0, "nobody follows any more");
    });
    let known = || gateway.policies.borrow().last().unwrap().known.len();
    let mut follow = std::pin::pin!(follower.follow());
    files.replace("one", &format!("{}from = {{ container = \"web\" }}\n", rule("b")));
    until(follow.as_mut(), || known() == 1).await;
    {
        let policies = gateway.policies.borrow();
        let from = policies.last().unwrap().policies[0].rules[0].from.clone().unwrap();
        assert_eq!(from.addresses, ["172.18.0.2/32".parse().unwrap()]);
        let blind = |policies: &Policies| names_somebody(policies) && policies.known.is_empty();
        assert!(!policies.iter().any(blind), "it did not wait for Docker: {policies:?}");
    }
    files.replace("one", &rule("c"));
    until(follow.as_mut(), || gateway.rules() == [["c"]] && known() == 0).await;
    served.join().unwrap();
}

/// Whether a rule is for containers of Docker.
fn names_somebody(policies: &Policies) -> bool {
    let rules = policies.policies.iter().flat_map(|policy| &policy.rules);
    rules.into_iter().any(|rule| rule.from.as_ref().is_some_and(|from| from.named))
}

#[test]
fn files_whose_changes_cannot_be_noticed_are_told_once() {
    use std::os::unix::fs::PermissionsExt as _;
    let files = Files::new();
    fs::create_dir(files.at("shut")).unwrap();
    files.write("shut/one", &rule("a"));
    files.write("two", &rule("b"));
    // May be entered, not listed. Of root only by another user, which this thread becomes for files.
    for (name, mode) in [("", 0o755), ("two", 0o644), ("shut/one", 0o644), ("shut", 0o311)] {
        fs::set_permissions(files.at(name), fs::Permissions::from_mode(mode)).unwrap();
    }
    let root = nix::unistd::geteuid().is_root();
    if root {
        nix::unistd::setfsuid(65534.into());
    }
    let (mut follower, _) = files.follower(&["shut/one", "two"]);
    let known = follower.sources[0].unwatched.take();
    let (told, again) = (follower.unwatched(), follower.unwatched());
    if root {
        nix::unistd::setfsuid(0.into());
    }
    let (file, dir) = (files.at("shut/one"), files.at("shut"));
    let (file, dir) = (file.display(), dir.display());
    let expected = format!(
        "changes to {file} will not be detected: cannot watch {dir}: EACCES: Permission denied\n\
         hint: let the user of the daemon read {dir}, then restart the daemon"
    );
    assert!(known.is_some(), "the start has told it");
    assert_eq!((told, again), (vec![expected], vec![]));
    fs::set_permissions(files.at("shut"), fs::Permissions::from_mode(0o755)).unwrap();
    follower.look();
    assert!(follower.sources.iter().all(|source| source.unwatched.is_none()));
}

#[tokio::test]
async fn what_a_file_says_is_shown_even_if_it_means_the_same() {
    let files = Files::new();
    let to = |name: &str| format!("{}from = {{ container = {name:?} }}\n", rule("a"));
    files.write("one", &to("web"));
    let (mut follower, gateway) = files.follower(&["one"]);
    let status = follower.status();
    let senders = || status.borrow().files[0].rules[0].senders.clone();
    assert_eq!(senders().as_deref(), Some("container web"));
    let mut follow = std::pin::pin!(follower.follow());
    files.replace("one", &to("db"));
    until(follow.as_mut(), || senders().as_deref() == Some("container db")).await;
    assert_eq!(gateway.policies.borrow().len(), 1, "neither is there");
}

#[tokio::test]
async fn rules_that_name_containers_do_not_wait_long_for_docker() {
    let files = Files::new();
    files.write("one", &rule("a"));
    let (mut follower, gateway) = files.follower(&["one"]);
    follower.answer_time = Duration::from_millis(10);
    let status = follower.status();
    let _silent = std::os::unix::net::UnixListener::bind(files.at("docker.sock")).unwrap();
    let mut follow = std::pin::pin!(follower.follow());
    files.replace("one", &format!("{}from = {{ container = \"web\" }}\n", rule("b")));
    until(follow.as_mut(), || gateway.rules() == [["b"]]).await;
    assert_eq!(status.borrow().docker_error, None, "Docker has more time to answer");
    assert!(names_somebody(gateway.policies.borrow().last().unwrap()));
}
