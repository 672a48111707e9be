//! The supervisor's handle against gateways that obey, refuse, hang, die and lie. The "gateway process" is a thread here.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use api::stats::{DestinationTraffic, PortTraffic, Traffic};
use gateway::control::{Channel, MAX, Reply, Request};
use gateway::plan::{Net, Plan};
use gateway::supervisor::{Descriptors, Gateway, PERIOD, SILENCE};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};

/// What takes longer than this hangs: the only bound there is on a machine that is busy with other things.
const PATIENCE: Duration = Duration::from_secs(60);

fn net(child: &str, gateway: &str, prefix: u8) -> Net {
    let ip = |s: &str| s.parse::<IpAddr>().unwrap();
    Net { child: ip(child), gateway: ip(gateway), dns: ip(gateway), prefix }
}

fn plan(v6: bool) -> Plan {
    Plan {
        ifname: "tap0".into(),
        mtu: 1500,
        v4: net("10.0.2.100", "10.0.2.2", 24),
        v6: v6.then(|| net("fd00::100", "fd00::2", 64)),
        host_loopback: false,
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

/// A handle, and the other ends of its five descriptors.
fn handle(plan: Plan) -> (Gateway, Vec<OwnedFd>) {
    let (mut ends, mut others): (Vec<_>, Vec<_>) = (0..5).map(|_| marked()).unzip();
    let mut next = || ends.remove(0);
    let descriptors = Descriptors {
        dial: next(),
        data: next(),
        factory: next(),
        listener4: next(),
        listener6: plan.v6.map(|_| next()),
    };
    others.truncate(if plan.v6.is_some() { 5 } else { 4 });
    let resolvers = vec!["192.0.2.53:53".parse().unwrap()];
    (Gateway::new(plan, descriptors, resolvers, 4096), others)
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
fn configure(gateway: &mut Gateway) -> anyhow::Result<()> {
    let (ready, serves) = channel();
    gateway.configure(None, move || ready.send(()).unwrap())?;
    match serves.recv_timeout(PATIENCE) {
        Ok(()) => Ok(()),
        Err(e) => anyhow::bail!(gateway.why_ended().unwrap_or_else(|| e.to_string())),
    }
}

fn stats(gateway: &Gateway) -> anyhow::Result<api::Stats> {
    let (done, answer) = channel();
    gateway.stats(move |stats| done.send(stats).unwrap());
    answer.recv_timeout(PATIENCE).unwrap()
}

fn withdraw(gateway: &mut Gateway, id: u64) -> anyhow::Result<()> {
    gateway.withdraw(id)?.wait()
}

/// Why it was given up.
fn given_up(gateway: &Gateway) -> String {
    let begin = Instant::now();
    loop {
        if let Some(why) = gateway.why_ended() {
            assert!(!gateway.is_up());
            return why;
        }
        assert!(begin.elapsed() < PATIENCE, "it is not given up");
    }
}

fn obey(request: &Request) -> Reply {
    match request {
        Request::Stats => Reply::Stats(Box::default()),
        _ => Reply::Done,
    }
}

/// A handle with a gateway that answers Configure and leaves the rest to `answer`.
fn up(
    mut answer: impl FnMut(&Request) -> Option<Reply> + Send + 'static,
) -> (Gateway, Seen, JoinHandle<()>) {
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

fn publish(gateway: &mut Gateway, id: u64, listener: OwnedFd) -> anyhow::Result<()> {
    let answer = gateway.publish(id, false, target(), format!("port {id}"), listener)?;
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
        let (seen, _thread) = serve(gateway.renew().unwrap(), |r| Some(obey(r)));
        assert!(!gateway.is_up());
        configure(&mut gateway).unwrap();
        assert!(gateway.is_up());
        let (request, fds) = next(&seen);
        let Request::Configure { plan: told, resolvers, nofile } = request else {
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
    let descriptors = Descriptors {
        dial: more(),
        data: more(),
        factory: more(),
        listener4: more(),
        listener6: None,
    };
    let mut gateway = Gateway::new(plan(true), descriptors, Vec::new(), 1024);
    assert_eq!(gateway.plan(), &plan(false));
    let (_seen, _thread) = serve(gateway.renew().unwrap(), |r| Some(obey(r)));
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
        Request::Publish { id: 1, udp: false, target: target(), name: "port 1".into() }
    );
    assert_eq!(fds.len(), 1);
    publish(&mut gateway, 9, marked().0).unwrap();
    withdraw(&mut gateway, 9).unwrap();
    thread.join().unwrap();
    assert!(!gateway.is_up());
    assert_eq!(gateway.why_ended(), None);
    publish(&mut gateway, 2, two.into()).unwrap();
    gateway.set_resolvers(vec!["192.0.2.54:53".parse().unwrap()]);

    let (seen, _thread) = serve(gateway.renew().unwrap(), |r| Some(obey(r)));
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
    let (mut gateway, seen, _thread) = up(|r| Some(obey(r)));
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
        other => Some(obey(other)),
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
    assert!(said.contains("cannot start: no epoll"), "{said}");
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
    assert!(said.contains("hangs") && said.contains("Configure"), "{said}");
    assert!(begin.elapsed() >= SILENCE);
    assert!(!gateway.is_up());
    assert!(error(stats(&gateway)).contains("not running"));
    let (seen, _thread) = serve(gateway.renew().unwrap(), |r| Some(obey(r)));
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
        Some(obey(request))
    });
    let (ready, serves) = channel();
    gateway.configure(Some(fd), move || ready.send(()).unwrap()).unwrap();
    serves.recv_timeout(PATIENCE).unwrap();
    let begin = Instant::now();
    assert_eq!(child.wait().unwrap().signal(), Some(9));
    assert!(begin.elapsed() >= PERIOD + SILENCE);
    assert!(given_up(&gateway).contains("hangs: no answer to Ping"));
}

#[test]
fn nothing_waits_for_a_gateway_that_hangs() {
    let (go, wait) = channel::<()>();
    let (mut gateway, seen, thread) = up(move |request| {
        if matches!(request, Request::Publish { id: 1, .. }) {
            let _ = wait.recv_timeout(PATIENCE);
        }
        Some(obey(request))
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
    assert_eq!(gateway.why_ended(), None);
    assert!(!gateway.is_up());
    publish(&mut gateway, 2, marked().0).unwrap();
    gateway.set_resolvers(Vec::new());
    assert!(error(stats(&gateway)).contains("not running"));
    let (seen, _thread) = serve(gateway.renew().unwrap(), |r| Some(obey(r)));
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
    assert!(given_up(&gateway).contains("Done without being asked"));
    thread.join().unwrap();
}

/// What is said about a raw packet as the answer to Configure.
fn answered_by(packet: &'static [u8], with_fd: bool) -> String {
    let (mut gateway, _) = handle(plan(false));
    let sock = gateway.renew().unwrap();
    let thread = std::thread::spawn(move || {
        let channel = Channel::new(sock).unwrap();
        channel.request().unwrap().unwrap();
        let fd = marked().0;
        let fds = if with_fd { vec![fd.as_fd()] } else { Vec::new() };
        sys::fdpass::send(channel.as_fd(), packet, &fds).unwrap();
    });
    let said = error(configure(&mut gateway));
    thread.join().unwrap();
    assert!(!gateway.is_up());
    said
}

#[test]
fn nonsense_is_no_reply() {
    for packet in [&b"\0nonsense"[..], b"\0", b"\0\xff"] {
        assert!(answered_by(packet, false).contains("no reply"));
    }
    // A packet that announces others must be full, or somebody could keep us busy with small ones.
    assert!(answered_by(b"\x01 ", false).contains("no message"));
    assert!(answered_by(b"\0\"Done\"", true).contains("1 descriptors in a reply"));
}

#[test]
fn a_message_longer_than_allowed_is_given_up() {
    let (mut gateway, _) = handle(plan(false));
    let sock = gateway.renew().unwrap();
    let thread = std::thread::spawn(move || {
        let channel = Channel::new(sock).unwrap();
        channel.request().unwrap().unwrap();
        let mut packet = vec![b' '; 32 << 10];
        packet[0] = 1;
        let mut sent = 0;
        loop {
            let mut fds = [nix::poll::PollFd::new(channel.as_fd(), nix::poll::PollFlags::POLLOUT)];
            nix::poll::poll(&mut fds, 20_000u16).unwrap();
            if sys::fdpass::send(channel.as_fd(), &packet, &[]).is_err() {
                return sent;
            }
            sent += packet.len();
        }
    });
    assert!(error(configure(&mut gateway)).contains("no message"));
    let sent = thread.join().unwrap();
    assert!((MAX..MAX + (1 << 20)).contains(&sent), "{sent}");
}

#[test]
fn requests_have_their_number_of_descriptors() {
    let (ours, theirs) = Channel::pair().unwrap();
    let gateway = Channel::new(theirs).unwrap();
    let fd = marked().0;
    let soon = Instant::now() + PATIENCE;
    let said = error(ours.send(&Request::Stats, &[fd.as_fd()], soon));
    assert!(said.contains("Stats with 1 descriptors"), "{said}");
    // By somebody who does not check.
    let body = [&[0], &*serde_json::to_vec(&Request::Withdraw { id: 1 }).unwrap()].concat();
    sys::fdpass::send(ours.as_fd(), &body, &[fd.as_fd()]).unwrap();
    assert!(error(gateway.request()).contains("Withdraw with 1 descriptors"));
    sys::fdpass::send(ours.as_fd(), b"\0{}", &[]).unwrap();
    assert!(error(gateway.request()).contains("no request"));
    drop(ours);
    assert!(gateway.ended());
    assert!(gateway.request().unwrap().is_none());
}

#[test]
fn a_request_whose_descriptors_do_not_fit_fails_and_the_next_is_served() {
    // The limit is the process's, and other tests share it.
    let mut command = std::process::Command::new(std::env::current_exe().unwrap());
    let test = ["--exact", "no_room_alone", "--ignored", "--nocapture", "--test-threads=1"];
    let out = command.args(test).output().unwrap();
    let text = String::from_utf8_lossy(&out.stdout) + String::from_utf8_lossy(&out.stderr);
    assert!(out.status.success() && text.contains("1 passed"), "{text}");
}

#[test]
#[ignore = "run in a process of its own by a_request_whose_descriptors_do_not_fit_fails_and_the_next_is_served"]
fn no_room_alone() {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let (ours, theirs) = Channel::pair().unwrap();
    let gateway = Channel::new(theirs).unwrap();
    let fd = marked().0;
    let target = "10.0.2.100:80".parse().unwrap();
    let publish = |id| Request::Publish { id, udp: false, target, name: "a port".into() };
    let deadline = Instant::now() + PATIENCE;
    ours.send(&publish(1), &[fd.as_fd()], deadline).unwrap();
    ours.send(&Request::Withdraw { id: 1 }, &[], deadline).unwrap();
    ours.send(&publish(2), &[fd.as_fd()], deadline).unwrap();
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    let lowest = fd.try_clone().unwrap().as_raw_fd();
    setrlimit(Resource::RLIMIT_NOFILE, u64::try_from(lowest).unwrap(), hard).unwrap();
    let next = gateway.request();
    setrlimit(Resource::RLIMIT_NOFILE, soft, hard).unwrap();
    assert!(matches!(next.unwrap(), Some((Request::Withdraw { id: 1 }, _))));
    let Some(Reply::Failed(why)) = ours.answer(deadline).unwrap() else {
        panic!("it did not fail")
    };
    assert!(why.contains("no descriptor left") && why.contains("hint: "), "{why}");
    // With room again, ports are served again.
    let (request, fds) = gateway.request().unwrap().unwrap();
    assert_eq!((request, fds.len()), (publish(2), 1));
}

#[test]
fn only_a_seqpacket_socket_is_a_channel() {
    let (a, _b) =
        socketpair(AddressFamily::Unix, SockType::Stream, None, SockFlag::SOCK_CLOEXEC).unwrap();
    assert!(Channel::new(a).is_err());
    assert!(Channel::new(marked().0).is_err());
}

fn traffic() -> Traffic {
    let many = u64::MAX / 4;
    Traffic { active: 1, opened: many, failed: 2, bytes_out: many, bytes_in: many }
}

/// Statistics with long entries, which are less work than many short ones.
fn long_stats(ports: i64, destinations: usize) -> api::Stats {
    let port = |id| PortTraffic {
        id,
        port: format!("0.0.0.0:{id}->10.0.2.100:{id}/tcp"),
        traffic: traffic(),
    };
    let destination = DestinationTraffic {
        proto: "x".repeat(4096),
        ip: "2001:db8::1".parse().unwrap(),
        port: 443,
        traffic: Traffic { bytes_out: 1, ..Traffic::default() },
    };
    api::Stats {
        ports: (0..ports).map(port).collect(),
        destinations: vec![destination; destinations],
        ..Default::default()
    }
}

#[test]
fn long_statistics_arrive_whole() {
    let whole = long_stats(2000, 100);
    let reply = Reply::Stats(Box::new(whole.clone()));
    let (gateway, _seen, _thread) = up(move |_| Some(reply.clone()));
    assert_eq!(stats(&gateway).unwrap(), api::Stats { driver: "gateway".into(), ..whole });
}

#[test]
fn statistics_that_are_too_long_are_cut() {
    const PORTS: u8 = 100;
    const MANY: usize = MAX / 4096 + 100;
    let (ours, theirs) = Channel::pair().unwrap();
    let thread = std::thread::spawn(move || {
        let stats = long_stats(PORTS.into(), MANY);
        Channel::new(theirs).unwrap().reply(&Reply::Stats(Box::new(stats))).unwrap();
    });
    // Making the text of so many bytes may take longer than a gateway may be silent, unoptimized on a busy machine.
    let answer = ours.answer(Instant::now() + PATIENCE).unwrap();
    let Some(Reply::Stats(stats)) = answer else { panic!() };
    thread.join().unwrap();
    assert_eq!(stats.ports.len(), usize::from(PORTS));
    let kept = stats.destinations.len();
    assert!((MANY / 2..MANY).contains(&kept), "{kept}");
    assert_eq!(stats.other_destinations.bytes_out, (MANY - kept) as u64);
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
