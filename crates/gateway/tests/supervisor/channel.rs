//! The channel against those who do not keep to its rules, and messages that are long.

use api::stats::{DestinationTraffic, PortTraffic, Traffic};
use gateway::control::MAX;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};

use super::*;

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
        assert!(answered_by(packet, false).contains("an invalid reply"));
    }
    // A packet that announces others must be full, or somebody could keep us busy with small ones.
    assert!(answered_by(b"\x01 ", false).contains("invalid message"));
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
    assert!(error(configure(&mut gateway)).contains("invalid message"));
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
    assert!(said.contains("Stats came with 1 descriptors"), "{said}");
    // By somebody who does not check.
    let body = [&[0], &*serde_json::to_vec(&Request::Withdraw { id: 1 }).unwrap()].concat();
    sys::fdpass::send(ours.as_fd(), &body, &[fd.as_fd()]).unwrap();
    assert!(error(gateway.request()).contains("Withdraw came with 1 descriptors"));
    sys::fdpass::send(ours.as_fd(), b"\0{}", &[]).unwrap();
    assert!(error(gateway.request()).contains("an invalid request"));
    drop(ours);
    assert!(gateway.ended());
    assert!(gateway.request().unwrap().is_none());
}

#[test]
fn a_request_whose_descriptors_do_not_fit_fails_and_the_next_is_served() {
    // The limit is the process's, and other tests share it.
    let mut command = std::process::Command::new(std::env::current_exe().unwrap());
    let test =
        ["--exact", "channel::no_room_alone", "--ignored", "--nocapture", "--test-threads=1"];
    let out = command.args(test).output().unwrap();
    let text = String::from_utf8_lossy(&out.stdout) + String::from_utf8_lossy(&out.stderr);
    assert!(out.status.success() && text.contains("1 passed"), "{text}");
}

#[test]
#[ignore = "run in a process of its own by channel::a_request_whose_descriptors_do_not_fit_fails_and_the_next_is_served"]
fn no_room_alone() {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let (ours, theirs) = Channel::pair().unwrap();
    let gateway = Channel::new(theirs).unwrap();
    let fd = marked().0;
    let target = "10.0.2.100:80".parse().unwrap();
    let publish = |id| Request::Publish {
        id,
        udp: false,
        target,
        allow_from: Vec::new(),
        name: "a port".into(),
    };
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
    assert!(why.contains("no file descriptors left") && why.contains("hint: "), "{why}");
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
        refused: 0,
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
