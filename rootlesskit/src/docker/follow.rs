//! Following Docker's containers and networks, on a thread of its own: the client waits for answers.
//!
//! The thread reads Docker's events, and lists everything anew when one comes. What happens while it lists leads to
//! another event. Docker tells of some changes a moment before it lists them, such as of a network that a container joins,
//! so there is another list when nothing has happened for a while.
//!
//! A daemon that is not there yet, or that does not answer, is tried again and again. Meanwhile what it has listed last
//! counts: without it, no container starts. dockerd closes its socket before it stops its containers, which may want to
//! say goodbye to a server.

use std::io;
use std::os::fd::AsFd as _;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::bail;
use api::client::AnswerLines;
use egress::Directory;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use tokio::sync::watch;

use super::{Docker, Socket, explain};

/// Time between the beginnings of two lists, however much happens.
const LIST_INTERVAL: Duration = Duration::from_millis(50);
/// After this, Docker lists what it has told of.
const SETTLE_TIME: Duration = Duration::from_millis(500);
/// Time between two attempts to reach a daemon that is not there.
const RETRY_INTERVAL: Duration = Duration::from_millis(250);
/// How soon the thread notices that nobody wants to know any more.
const CHECK_INTERVAL: Duration = Duration::from_secs(1);
/// What a busy daemon may take to answer.
const TIMEOUT: Duration = Duration::from_secs(10);
/// `{"type":["container","network"],"event":[…]}` as part of a URL.
const FILTERS: &str = "%7B%22type%22%3A%5B%22container%22%2C%22network%22%5D%2C%22event%22%3A%5B%22start%22%2C%22die%22%2C%22rename%22%2C%22create%22%2C%22connect%22%2C%22disconnect%22%2C%22destroy%22%2C%22remove%22%5D%7D";

/// What Docker has, as far as it is known.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Listing {
    pub(crate) directory: Directory,
    /// Why it may be out of date, or nothing is known.
    pub(crate) error: Option<String>,
    /// Whether Docker has been asked at all, with or without success.
    pub(crate) answered: bool,
}

/// Begins to follow the daemon at `socket`, until the receiver is dropped. Call when the child exists: this starts a thread.
pub(crate) fn follow(socket: Socket) -> io::Result<watch::Receiver<Listing>> {
    let (tell, told) = watch::channel(Listing::default());
    thread::Builder::new().name("docker".to_owned()).spawn(move || run(&socket, &tell))?;
    Ok(told)
}

fn run(socket: &Socket, tell: &watch::Sender<Listing>) {
    while !tell.is_closed() {
        let Err(error) = session(socket, tell) else { return };
        let (error, directory) = (Some(format!("{error:#}")), tell.borrow().directory.clone());
        set(tell, Listing { directory, error, answered: true });
        thread::sleep(RETRY_INTERVAL);
    }
}

fn set(tell: &watch::Sender<Listing>, listing: Listing) {
    tell.send_if_modified(|before| {
        let changed = *before != listing;
        if changed {
            if before.error != listing.error {
                match &listing.error {
                    Some(error) => tracing::debug!("{error}"),
                    None => tracing::debug!("Docker lists its containers"),
                }
            }
            *before = listing;
        }
        changed
    });
}

/// Follows the daemon while it is there. It ends without an error if nobody wants to know any more.
fn session(socket: &Socket, tell: &watch::Sender<Listing>) -> anyhow::Result<()> {
    let client = socket.client(TIMEOUT);
    // The daemon answers before it collects events, and has those since then.
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let (seconds, nanos) = (since.as_secs(), since.subsec_nanos());
    let path = format!("/events?since={seconds}.{nanos:09}&filters={FILTERS}");
    let mut events = client.lines(&path).map_err(|e| explain(&socket.path, "events", e))?;
    let docker = Docker::at(socket, TIMEOUT);
    let mut settled = true;
    loop {
        let began = Instant::now();
        let directory = docker.directory()?;
        set(tell, Listing { directory, error: None, answered: true });
        match next(&mut events, began, settled, &socket.path, tell)? {
            Next::Happened => settled = false,
            Next::Settled => settled = true,
            Next::Closed => return Ok(()),
        }
    }
}

/// What there is to do after a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    /// Something has happened since.
    Happened,
    /// Nothing has, and what happened before is listed by now.
    Settled,
    /// Nobody wants to know any more.
    Closed,
}

/// Waits until there is something to do after the list that `began` then; `settled` says that it missed nothing.
fn next(
    events: &mut AnswerLines,
    began: Instant,
    settled: bool,
    socket: &Path,
    tell: &watch::Sender<Listing>,
) -> anyhow::Result<Next> {
    let mut happened = false;
    loop {
        while events.next_line().map_err(|e| explain(socket, "events", e))?.is_some() {
            happened = true;
        }
        let (left, next) = match (happened, settled) {
            (true, _) => (LIST_INTERVAL.saturating_sub(began.elapsed()), Next::Happened),
            (false, false) => (SETTLE_TIME.saturating_sub(began.elapsed()), Next::Settled),
            (false, true) => (CHECK_INTERVAL, Next::Closed),
        };
        if left.is_zero() {
            return Ok(next);
        }
        if tell.is_closed() {
            return Ok(Next::Closed);
        }
        let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
        match poll(&mut [PollFd::new(events.as_fd(), PollFlags::POLLIN)], timeout) {
            Ok(0) | Err(Errno::EINTR) => {}
            Ok(_) => {
                if !events.fill().map_err(|e| explain(socket, "events", e))? {
                    bail!("the Docker daemon at {} has ended its events", socket.display());
                }
            }
            Err(e) => return Err(e.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::os::unix::net::{UnixListener, UnixStream};

    use super::*;

    /// How long something may take on a busy machine.
    const PATIENCE: Duration = Duration::from_secs(120);

    /// A daemon that is asked for its events, then lists a container of this name.
    struct Daemon(UnixListener);

    impl Daemon {
        fn at(socket: &Path) -> Self {
            Self(UnixListener::bind(socket).unwrap())
        }

        fn request(&self, begins: &str) -> UnixStream {
            let mut stream = self.0.accept().unwrap().0;
            let mut request = Vec::new();
            while !request.ends_with(b"\r\n\r\n") {
                let mut byte = [0];
                stream.read_exact(&mut byte).unwrap();
                request.extend(byte);
            }
            let request = String::from_utf8(request).unwrap();
            assert!(request.starts_with(&format!("GET {begins}")), "{request}");
            stream
        }

        fn events(&self) -> UnixStream {
            let mut stream = self.request("/events?since=");
            stream.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n").unwrap();
            stream
        }

        fn lists(&self, name: &str) {
            let containers = format!(r#"[{{"Names": ["/{name}"]}}]"#);
            for (path, answer) in [("/containers/json ", &*containers), ("/networks ", "[]")] {
                let mut stream = self.request(path);
                write!(stream, "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n{answer}").unwrap();
            }
        }
    }

    fn ours(path: &Path) -> Socket {
        Socket { path: path.to_owned(), owner: nix::unistd::geteuid().as_raw() }
    }

    fn happens(events: &mut UnixStream, times: usize) {
        // At once: they wait in the socket while everything is listed.
        events.write_all("3\r\n{}\n\r\n".repeat(times).as_bytes()).unwrap();
    }

    async fn until(told: &mut watch::Receiver<Listing>, holds: impl Fn(&Listing) -> bool) {
        let told = told.wait_for(holds);
        tokio::time::timeout(PATIENCE, told).await.expect("in time").unwrap();
    }

    fn names(listing: &Listing) -> Vec<&str> {
        listing.directory.containers.iter().map(|container| &*container.name).collect()
    }

    #[tokio::test]
    async fn a_daemon_is_found_when_it_comes_and_when_it_comes_again() {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("docker.sock");
        let mut told = follow(ours(&socket)).unwrap();
        until(&mut told, |listing| listing.error.is_some()).await;
        assert!(told.borrow().error.as_ref().unwrap().contains("docker.sock: No such file"));
        for (before, name) in [(vec![], "one"), (vec!["one"], "two")] {
            assert_eq!(names(&told.borrow()), before, "what was listed last");
            let path = socket.clone();
            let daemon = thread::spawn(move || {
                let daemon = Daemon::at(&path);
                let events = daemon.events();
                daemon.lists(name);
                (daemon, events)
            });
            until(&mut told, |listing| names(listing) == [name] && listing.error.is_none()).await;
            let (_daemon, events) = daemon.join().unwrap();
            std::fs::remove_file(&socket).unwrap();
            drop(events);
            until(&mut told, |listing| listing.error.is_some()).await;
            assert_eq!(names(&told.borrow()), [name]);
        }
    }

    #[tokio::test]
    async fn a_daemon_of_another_user_is_not_asked() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("docker.sock");
        let daemon = UnixListener::bind(&path).unwrap();
        let owner = ours(&path).owner + 1;
        let mut told = follow(Socket { path, owner }).unwrap();
        until(&mut told, |listing| listing.error.is_some()).await;
        let error = told.borrow().error.clone().unwrap();
        assert!(error.contains("docker.sock: it belongs to user "), "{error}");
        let mut request = Vec::new();
        daemon.accept().unwrap().0.read_to_end(&mut request).unwrap();
        assert!(request.is_empty());
    }

    #[tokio::test]
    async fn what_docker_lists_only_after_its_event_is_found() {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("docker.sock");
        let daemon = Daemon::at(&socket);
        let mut told = follow(ours(&socket)).unwrap();
        let served = thread::spawn(move || {
            let mut events = daemon.events();
            daemon.lists("before");
            happens(&mut events, 1);
            daemon.lists("before");
            daemon.lists("after");
            (daemon, events)
        });
        until(&mut told, |listing| names(listing) == ["after"]).await;
        drop(served.join().unwrap());
    }

    #[tokio::test]
    async fn a_burst_of_events_leads_to_few_lists_and_a_listener_that_goes_ends_it() {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("docker.sock");
        let daemon = Daemon::at(&socket);
        let mut told = follow(ours(&socket)).unwrap();
        let served = thread::spawn(move || {
            let mut events = daemon.events();
            let began = Instant::now();
            happens(&mut events, 1000);
            let mut lists = 0;
            loop {
                let mut fds =
                    [events.as_fd(), daemon.0.as_fd()].map(|fd| PollFd::new(fd, PollFlags::POLLIN));
                assert!(poll(&mut fds, PollTimeout::try_from(PATIENCE).unwrap()).unwrap() > 0);
                if fds[0].any().unwrap() {
                    return (lists, began.elapsed());
                }
                lists += 1;
                daemon.lists(&lists.to_string());
            }
        });
        until(&mut told, |listing| names(listing) >= vec!["2"]).await;
        drop(told);
        let (lists, took) = served.join().unwrap();
        let most = took.as_millis() / LIST_INTERVAL.as_millis() + 1;
        assert!((2..=most).contains(&lists), "{lists} lists in {took:?}");
    }
}
