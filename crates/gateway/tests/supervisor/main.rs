//! The supervisor's handle against gateways that obey, refuse, hang, die and lie. The "gateway process" is a
//! thread here.
//!
//! The file is long because its tests share that thread and its ways to misbehave.

#![allow(clippy::unwrap_used, reason = "tests")]

mod channel;
mod flows;
mod policy;
mod refused;

use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use gateway::Descriptors;
use gateway::control::{Channel, Reply, Request};
use gateway::network_config::{HostLoopback, Net, NetworkConfig};
use gateway::supervisor::{PERIOD, SILENCE, Supervisor};

/// What takes longer than this hangs: the only bound there is on a machine that is busy with other things.
const PATIENCE: Duration = Duration::from_secs(60);

fn net(child: &str, gateway: &str, prefix: u8) -> Net {
    let ip = |s: &str| s.parse::<IpAddr>().unwrap();
    Net { child: ip(child), gateway: ip(gateway), dns: ip(gateway), prefix }
}

fn plan(v6: bool) -> NetworkConfig {
    NetworkConfig {
        ifname: "tap0".into(),
        mtu: 1500,
        v4: net("10.0.2.100", "10.0.2.2", 24),
        v6: v6.then(|| net("fd00::100", "fd00::2", 64)),
        host_loopback: HostLoopback::Closed,
    }
}

/// A descriptor that can be told apart from others: the writing end of a pipe, and the other end.
fn marked() -> (OwnedFd, OwnedFd) {
    let (read, write) = std::io::pipe().unwrap();
    (write.into(), read.into())
}

fn same_file(a: &impl AsRawFd, b: &impl AsRawFd) -> bool {
    let link = |fd: i32| std::fs::read_link(format!("/proc/self/fd/{fd}")).unwrap();
    link(a.as_raw_fd()) == link(b.as_raw_fd())
}

/// A handle, and the other ends of its descriptors.
fn handle(plan: NetworkConfig) -> (Supervisor, Vec<OwnedFd>) {
    let (mut ends, mut others): (Vec<_>, Vec<_>) = (0..6).map(|_| marked()).unzip();
    let mut next = || ends.remove(0);
    let factory = next();
    let (dial, data, conntrack, v4) = (next(), next(), next(), next());
    let v6 = plan.v6.map(|_| next());
    let descriptors = Descriptors { dial, data, v4, v6, conntrack, overlay: None };
    others.truncate(if plan.v6.is_some() { 6 } else { 5 });
    let resolvers = vec!["192.0.2.53:53".parse().unwrap()];
    (Supervisor::new(plan, descriptors, factory, resolvers, 4096), others)
}

/// What a gateway saw.
type Seen = Receiver<(Request, Vec<OwnedFd>)>;

/// A gateway that answers each request with what `answer` makes of it until its end is closed or `answer` says `None`.
fn serve(
    sock: OwnedFd,
    mut answer: impl FnMut(&Request) -> Option<Reply> + Send + 'static,
) -> (Seen, JoinHandle<()>) {
    let (seen, receiver): (Sender<_>, _) = channel();
    let thread = std::thread::spawn(move || {
        let channel = Channel::new(sock).unwrap();
        while let Some((request, fds)) = channel.request().unwrap() {
            let reply = answer(&request);
            // The test may look at some of them only; the handle asks for life by itself.
            if request != Request::Ping {
                let _ = seen.send((request, fds));
            }
            let Some(reply) = reply else { break };
            channel.reply(&reply).unwrap();
        }
    });
    (receiver, thread)
}

/// Waits until the gateway serves, or has been given up, and why.
fn configure(gateway: &mut Supervisor) -> anyhow::Result<()> {
    let (ready, serves) = channel();
    gateway.configure(None, move || ready.send(()).unwrap())?;
    match serves.recv_timeout(PATIENCE) {
        Ok(()) => Ok(()),
        Err(e) => anyhow::bail!(why_ended(gateway).unwrap_or_else(|| e.to_string())),
    }
}

fn stats(gateway: &Supervisor) -> anyhow::Result<api::Stats> {
    let (done, answer) = channel();
    gateway.stats(move |stats| done.send(stats).unwrap());
    answer.recv_timeout(PATIENCE).unwrap()
}

fn withdraw(gateway: &mut Supervisor, id: u64) -> anyhow::Result<()> {
    gateway.withdraw(id)?.wait()
}

/// Why we have ended it.
fn why_ended(gateway: &Supervisor) -> Option<String> {
    gateway.ending()?.why()
}

/// Why it was given up.
fn given_up(gateway: &Supervisor) -> String {
    let begin = Instant::now();
    loop {
        if let Some(why) = why_ended(gateway) {
            assert!(!gateway.is_up());
            return why;
        }
        assert!(begin.elapsed() < PATIENCE, "it is not given up");
    }
}

fn handle_request(request: &Request) -> Reply {
    match request {
        Request::Stats => Reply::Stats(Box::default()),
        _ => Reply::Done,
    }
}

/// A handle with a gateway that answers Configure and leaves the rest to `answer`.
fn up(
    mut answer: impl FnMut(&Request) -> Option<Reply> + Send + 'static,
) -> (Supervisor, Seen, JoinHandle<()>) {
    let (mut gateway, _) = handle(plan(false));
    let (seen, thread) = serve(gateway.renew().unwrap(), move |request| match request {
        Request::Configure { .. } | Request::Ping => Some(Reply::Done),
        other => answer(other),
    });
    configure(&mut gateway).unwrap();
    (gateway, seen, thread)
}

fn target() -> SocketAddr {
    SocketAddr::from((Ipv4Addr::new(10, 0, 2, 100), 80))
}

fn publish(gateway: &mut Supervisor, id: u64, listener: OwnedFd) -> anyhow::Result<()> {
    let (allow_from, name) = (vec!["10.9.0.0/24".parse()?], format!("port {id}"));
    let answer = gateway.publish(id, false, target(), allow_from, name, listener)?;
    answer.wait().inspect_err(|_| gateway.forget(id))
}

fn listener() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

fn next(seen: &Seen) -> (Request, Vec<OwnedFd>) {
    seen.recv_timeout(PATIENCE).unwrap()
}

fn error(result: anyhow::Result<impl Sized>) -> String {
    format!("{:#}", result.err().unwrap())
}

#[test]
fn a_new_gateway_gets_the_plan_and_its_descriptors_in_order() {
    for v6 in [false, true] {
        let (mut gateway, others) = handle(plan(v6));
        assert!(error(configure(&mut gateway)).contains("no new gateway process"));
        let (seen, _thread) = serve(gateway.renew().unwrap(), |r| Some(handle_request(r)));
        assert!(!gateway.is_up());
        configure(&mut gateway).unwrap();
        assert!(gateway.is_up());
        let (request, fds) = next(&seen);
        let Request::Configure { plan: told, resolvers, nofile, overlay: 0, policy: _ } = request
        else {
            panic!("{request:?}")
        };
        assert_eq!((told, nofile), (plan(v6), 4096));
        assert_eq!(resolvers, ["192.0.2.53:53".parse().unwrap()]);
        assert_eq!(fds.len(), others.len());
        assert!(fds.iter().zip(&others).all(|(a, b)| same_file(a, b)));
    }
}

#[test]
fn ipv6_needs_a_listener_as_well() {
    let (fd, _other) = marked();
    let more = || fd.try_clone().unwrap();
    let (dial, data, conntrack, v4) = (more(), more(), more(), more());
    let descriptors = Descriptors { dial, data, v4, v6: None, conntrack, overlay: None };
    let mut gateway = Supervisor::new(plan(true), descriptors, more(), Vec::new(), 1024);
    assert_eq!(gateway.plan(), &plan(false));
    let (_seen, _thread) = serve(gateway.renew().unwrap(), |r| Some(handle_request(r)));
    configure(&mut gateway).unwrap();
}

#[test]
fn ports_outlive_gateways() {
    let (mut gateway, _) = handle(plan(false));
    let (one, _) = listener();
    let (two, address) = listener();
    // Before the first gateway, and between two.
    publish(&mut gateway, 1, one.into()).unwrap();
    let (seen, thread) = serve(gateway.renew().unwrap(), |request| {
        // It ends when it is asked for port 9.
        (!matches!(request, Request::Withdraw { id: 9 })).then_some(Reply::Done)
    });
    configure(&mut gateway).unwrap();
    next(&seen);
    let (request, fds) = next(&seen);
    assert_eq!(
        request,
        Request::Publish {
            id: 1,
            udp: false,
            target: target(),
            allow_from: vec!["10.9.0.0/24".parse().unwrap()],
            name: "port 1".into(),
        }
    );
    assert_eq!(fds.len(), 1);
    publish(&mut gateway, 9, marked().0).unwrap();
    withdraw(&mut gateway, 9).unwrap();
    thread.join().unwrap();
    assert!(!gateway.is_up());
    assert_eq!(why_ended(&gateway), None);
    publish(&mut gateway, 2, two.into()).unwrap();
    gateway.set_resolvers(vec!["192.0.2.54:53".parse().unwrap()]);

    let (seen, _thread) = serve(gateway.renew().unwrap(), |r| Some(handle_request(r)));
    configure(&mut gateway).unwrap();
    let (request, _) = next(&seen);
    let Request::Configure { resolvers, .. } = request else { panic!("{request:?}") };
    assert_eq!(resolvers, ["192.0.2.54:53".parse().unwrap()]);
    assert!(matches!(next(&seen).0, Request::Publish { id: 1, .. }));
    let (request, fds) = next(&seen);
    assert!(matches!(request, Request::Publish { id: 2, .. }));
    // The listener is the real one, and gone when it is closed here and there.
    TcpStream::connect(address).unwrap();
    drop(fds);
    TcpStream::connect(address).unwrap();
    withdraw(&mut gateway, 2).unwrap();
    assert!(TcpStream::connect(address).is_err());
    assert!(matches!(next(&seen).0, Request::Withdraw { id: 2 }));
    assert!(error(withdraw(&mut gateway, 2)).contains("no published port 2"));
    let counted = stats(&gateway).unwrap();
    assert_eq!((counted.restarts, counted.driver.as_str()), (1, "gateway"));
    assert_eq!(stats(&gateway.named("gvisor-tap-vsock")).unwrap().driver, "gvisor-tap-vsock");
}

#[test]
fn new_resolvers_are_told() {
    let (mut gateway, seen, _thread) = up(|r| Some(handle_request(r)));
    let resolvers = vec!["[fe80::1%3]:53".parse().unwrap(), "127.0.0.53:53".parse().unwrap()];
    gateway.set_resolvers(resolvers.clone());
    next(&seen);
    assert_eq!(next(&seen).0, Request::Resolvers(resolvers));
}

#[test]
fn a_port_that_is_refused_is_closed() {
    let (mut gateway, seen, thread) = up(|_| Some(Reply::Failed("no room".into())));
    let (listener, address) = listener();
    let said = error(publish(&mut gateway, 7, listener.into()));
    assert!(said.contains("port 7") && said.contains("no room"), "{said}");
    drop(seen);
    assert!(gateway.is_up());
    assert!(error(withdraw(&mut gateway, 7)).contains("no published port 7"));
    assert!(error(stats(&gateway)).contains("no room"));
    assert!(TcpStream::connect(address).is_err());
    drop(gateway);
    thread.join().unwrap();
}

#[test]
fn a_gateway_that_refuses_a_port_after_a_restart_still_serves() {
    let (mut gateway, _) = handle(plan(false));
    publish(&mut gateway, 1, marked().0).unwrap();
    publish(&mut gateway, 2, marked().0).unwrap();
    assert!(error(publish(&mut gateway, 2, marked().0)).contains("already"));
    let answer = |request: &Request| match request {
        Request::Publish { id: 1, .. } => Some(Reply::Failed("not this one".into())),
        other => Some(handle_request(other)),
    };
    let (seen, _thread) = serve(gateway.renew().unwrap(), answer);
    configure(&mut gateway).unwrap();
    assert!(gateway.is_up());
    assert_eq!(seen.try_iter().count(), 3);
}

#[test]
fn a_gateway_that_cannot_start_says_why() {
    let (mut gateway, _) = handle(plan(false));
    let (_seen, _thread) =
        serve(gateway.renew().unwrap(), |_| Some(Reply::Failed("no epoll".into())));
    let said = error(configure(&mut gateway));
    assert!(said.contains("could not start: no epoll"), "{said}");
    assert!(!gateway.is_up());
}

#[test]
fn a_gateway_that_hangs_from_the_start_is_given_up_and_the_next_one_heals() {
    let (mut gateway, _) = handle(plan(false));
    publish(&mut gateway, 1, marked().0).unwrap();
    // Nobody reads.
    let _hangs = gateway.renew().unwrap();
    let begin = Instant::now();
    let said = error(configure(&mut gateway));
    assert!(said.contains("did not answer Configure"), "{said}");
    assert!(begin.elapsed() >= SILENCE);
    assert!(!gateway.is_up());
    assert!(error(stats(&gateway)).contains("not running"));
    let (seen, _thread) = serve(gateway.renew().unwrap(), |r| Some(handle_request(r)));
    configure(&mut gateway).unwrap();
    assert_eq!(stats(&gateway).unwrap().restarts, 1);
    assert_eq!(seen.try_iter().count(), 3);
}

/// A process to be killed.
fn process() -> (std::process::Child, sys::pidfd::PidFd) {
    let child = std::process::Command::new("sleep").arg("1000").spawn().unwrap();
    let pid = nix::unistd::Pid::from_raw(child.id().cast_signed());
    (child, sys::pidfd::PidFd::open(pid).unwrap())
}

#[test]
fn a_gateway_that_hangs_is_noticed_although_nobody_asks_it_anything() {
    use std::os::unix::process::ExitStatusExt as _;
    let (mut child, fd) = process();
    let (mut gateway, _) = handle(plan(false));
    let mut pings = 0;
    let (_seen, _thread) = serve(gateway.renew().unwrap(), move |request| {
        pings += u32::from(*request == Request::Ping);
        // The one that ends the configuration, and one that checks its health.
        if pings > 2 {
            std::thread::sleep(PATIENCE);
        }
        Some(handle_request(request))
    });
    let (ready, serves) = channel();
    gateway.configure(Some(fd), move || ready.send(()).unwrap()).unwrap();
    serves.recv_timeout(PATIENCE).unwrap();
    let begin = Instant::now();
    assert_eq!(child.wait().unwrap().signal(), Some(9));
    assert!(begin.elapsed() >= PERIOD + SILENCE);
    assert!(given_up(&gateway).contains("it did not answer Ping"));
}

#[test]
fn nothing_waits_for_a_gateway_that_hangs() {
    let (go, wait) = channel::<()>();
    let (mut gateway, seen, thread) = up(move |request| {
        if matches!(request, Request::Publish { id: 1, .. }) {
            let _ = wait.recv_timeout(PATIENCE);
        }
        Some(handle_request(request))
    });
    next(&seen);
    let begin = Instant::now();
    // Known, so the next gateway would serve them; the first costs a second, the others nothing.
    for id in 1..200 {
        publish(&mut gateway, id, marked().0).unwrap();
    }
    withdraw(&mut gateway, 5).unwrap();
    gateway.set_resolvers(Vec::new());
    let (done, answer) = channel();
    gateway.stats(move |stats| done.send(stats).unwrap());
    assert!(begin.elapsed() < SILENCE, "{:?}", begin.elapsed());
    // It was only slow.
    go.send(()).unwrap();
    answer.recv_timeout(PATIENCE).unwrap().unwrap();
    assert_eq!(seen.try_iter().count(), 202);
    assert!(gateway.is_up());
    assert!(error(publish(&mut gateway, 1, marked().0)).contains("already"));
    drop(gateway);
    thread.join().unwrap();
}

#[test]
fn a_slow_gateway_that_makes_progress_is_not_given_up() {
    // Longer than the limit together, each of them shorter.
    let (mut gateway, seen, _thread) = up(|_| {
        std::thread::sleep(SILENCE / 3);
        Some(Reply::Done)
    });
    next(&seen);
    for id in 0..5 {
        publish(&mut gateway, id, marked().0).unwrap();
    }
    for id in 0..5 {
        assert!(matches!(next(&seen).0, Request::Publish { id: found, .. } if found == id));
    }
    assert!(gateway.is_up());
}

#[test]
fn a_gateway_that_dies_delays_a_port_only() {
    let (mut gateway, _seen, thread) = up(|_| None);
    publish(&mut gateway, 1, marked().0).unwrap();
    thread.join().unwrap();
    assert_eq!(why_ended(&gateway), None);
    assert!(!gateway.is_up());
    publish(&mut gateway, 2, marked().0).unwrap();
    gateway.set_resolvers(Vec::new());
    assert!(error(stats(&gateway)).contains("not running"));
    let (seen, _thread) = serve(gateway.renew().unwrap(), |r| Some(handle_request(r)));
    configure(&mut gateway).unwrap();
    assert_eq!(seen.try_iter().count(), 3);
    assert!(error(withdraw(&mut gateway, 3)).contains("no published port 3"));
    withdraw(&mut gateway, 1).unwrap();
}

#[test]
fn what_is_out_of_turn_is_named_and_ends_the_gateway() {
    let (gateway, _seen, thread) = up(|_| Some(Reply::Done));
    assert!(error(stats(&gateway)).contains("not running"));
    assert!(given_up(&gateway).contains("Done out of turn, to Stats"));
    thread.join().unwrap();

    let (mut gateway, _seen, thread) = up(|_| Some(Reply::Stats(Box::default())));
    publish(&mut gateway, 1, marked().0).unwrap();
    assert!(given_up(&gateway).contains("Stats out of turn, to Publish"));
    thread.join().unwrap();

    // Two replies to one request.
    let (mut gateway, _) = handle(plan(false));
    let sock = gateway.renew().unwrap();
    let thread = std::thread::spawn(move || {
        let channel = Channel::new(sock).unwrap();
        for more in [0, 1] {
            channel.request().unwrap().unwrap();
            (0..=more).for_each(|_| channel.reply(&Reply::Done).unwrap());
        }
        assert!(channel.request().unwrap().is_none());
    });
    configure(&mut gateway).unwrap();
    assert!(given_up(&gateway).contains("an unexpected Done"));
    thread.join().unwrap();
}

#[test]
fn ten_thousand_ports_are_soon_published_again() {
    const PORTS: u64 = 10_000;
    let limit = sys::rlimit::raise_nofile().unwrap().hard;
    assert!(limit > PORTS + 1000, "this test needs a hard limit of open files above 11,000");
    let (mut gateway, _) = handle(plan(false));
    let (fd, _other) = marked();
    for id in 0..PORTS {
        publish(&mut gateway, id, fd.try_clone().unwrap()).unwrap();
    }
    let (told, ids) = channel();
    let (seen, _thread) = serve(gateway.renew().unwrap(), move |request| {
        if let Request::Publish { id, .. } = request {
            told.send(*id).unwrap();
        }
        Some(Reply::Done)
    });
    // Descriptors are closed as they come.
    drop(seen);
    // Which has a limit for all of them.
    configure(&mut gateway).unwrap();
    assert!(ids.try_iter().eq(0..PORTS));
}
