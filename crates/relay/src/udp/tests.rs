//! Flows that have to go, one step after the other.

use std::net::UdpSocket;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, poll};
use nix::sys::epoll::{Epoll, EpollCreateFlags};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};

use super::*;
use crate::flow_log::FlowLog;
use crate::pool::Pool;
use crate::room::Room;
use crate::timers::Timers;

struct Rig {
    udp: Udp,
    ctx: Ctx,
    port: Key,
    at: SocketAddr,
    server: UdpSocket,
}

fn patient() -> UdpSocket {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    socket
}

fn arrived(socket: impl AsFd) {
    let mut fds = [PollFd::new(socket.as_fd(), PollFlags::POLLIN)];
    assert_eq!(poll(&mut fds, 20_000u16).unwrap(), 1);
}

impl Rig {
    fn new(limit: usize) -> Self {
        let (ours, theirs) =
            socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)
                .unwrap();
        std::thread::spawn(move || crate::factory::serve(theirs, || false));
        let log = Arc::new(FlowLog::default());
        log.follow();
        let opts = Options { flows_per_port: limit, flow_log: Some(log), ..Options::default() };
        let shares = opts.shares;
        let mut ctx = Ctx {
            epoll: Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).unwrap(),
            pool: Pool::new(Some(ours), 1024).unwrap(),
            timers: Timers::default(),
            opts,
            now: Instant::now(),
            wakes: 0,
            room: Room::new(shares),
            inbound: None,
        };
        let (server, listener) = (patient(), UdpSocket::bind("127.0.0.1:0").unwrap());
        let at = listener.local_addr().unwrap();
        let target = server.local_addr().unwrap();
        let mut udp = Udp::new(&Options::default());
        let port = udp.table.add(&mut ctx, listener.into(), Service::to(target)).unwrap();
        arrived(ctx.pool.fd().unwrap());
        ctx.pool.receive();
        Self { udp, ctx, port, at, server }
    }

    fn ask(&self, client: &UdpSocket) {
        client.send_to(b"?", self.at).unwrap();
    }

    fn requests(&mut self) {
        self.ctx.now = Instant::now();
        self.udp.requests(&mut self.ctx, self.port);
    }

    /// The server takes one query and answers it.
    fn answer(&self) {
        let mut query = [0; 8];
        let (_, from) = self.server.recv_from(&mut query).unwrap();
        self.server.send_to(b"!", from).unwrap();
    }

    fn flows(&self) -> Vec<Key> {
        self.udp.table.flows.iter().map(|(key, _)| key).collect()
    }

    /// Passes on what the backend of a flow has.
    fn replies(&mut self, key: Key) {
        arrived(self.udp.table.flows.get(key).unwrap().backend.as_ref().unwrap());
        self.ctx.now = Instant::now();
        self.udp.replies(&mut self.ctx, key);
    }

    fn heard(client: &UdpSocket) -> bool {
        client.recv(&mut [0; 8]).is_ok()
    }
}

#[test]
fn an_answer_that_has_come_is_delivered_before_its_flow_goes() {
    let mut rig = Rig::new(1);
    let clients: Vec<UdpSocket> = (0..5).map(|_| patient()).collect();
    for client in &clients[..4] {
        rig.ask(client);
        arrived(&rig.udp.table.ports.get(rig.port).unwrap().listener);
        rig.requests();
    }
    assert_eq!(rig.flows().len(), 4, "those that wait may be more than those that were answered");
    rig.answer();
    let first = rig.flows()[0];
    arrived(rig.udp.table.flows.get(first).unwrap().backend.as_ref().unwrap());
    rig.ask(&clients[4]);
    rig.requests();
    assert!(rig.udp.table.flows.get(first).is_none(), "the first flow has gone");
    assert!(Rig::heard(&clients[0]));
    for client in &clients[1..] {
        rig.answer();
        let key = *rig
            .udp
            .table
            .ports
            .get(rig.port)
            .unwrap()
            .flows
            .iter()
            .find(|(ends, _)| ends.client == client.local_addr().unwrap())
            .unwrap()
            .1;
        rig.replies(key);
        assert!(Rig::heard(client));
    }
}

/// A flow to a port that is closed at first, which a server may open later.
#[test]
fn a_closed_port_refuses_a_flow_which_fails_once() {
    for opened in [false, true] {
        let mut rig = Rig::new(1);
        let target = rig.server.local_addr().unwrap();
        rig.server = patient();
        let client = patient();
        for _ in 0..3 {
            rig.ask(&client);
            arrived(&rig.udp.table.ports.get(rig.port).unwrap().listener);
            rig.requests();
            rig.replies(rig.flows()[0]);
        }
        let traffic = Arc::clone(&rig.udp.table.ports.get(rig.port).unwrap().service.traffic);
        assert_eq!(traffic.failed.load(Relaxed), 1);
        if opened {
            rig.server = UdpSocket::bind(target).unwrap();
            rig.ask(&client);
            arrived(&rig.udp.table.ports.get(rig.port).unwrap().listener);
            rig.requests();
            rig.answer();
            rig.replies(rig.flows()[0]);
            assert!(Rig::heard(&client));
        }
        rig.ctx.now += 2 * rig.ctx.opts.udp_flow_idle_timeout;
        rig.udp.table.expire(&mut rig.ctx);
        let (ended, _) = rig.ctx.opts.flow_log.as_ref().unwrap().take();
        let ends: Vec<_> = ended.iter().map(|record| record.end).collect();
        assert_eq!(ends, [if opened { FlowEnd::Idle } else { FlowEnd::Refused }]);
        assert_eq!((rig.flows().len(), traffic.failed.load(Relaxed)), (0, 1));
    }
}

/// The error is about the first datagram, and the second one, which a server gets, takes it.
#[test]
fn a_refusal_counts_that_the_next_datagram_finds_before_the_answers_are_read() {
    let mut rig = Rig::new(1);
    let target = rig.server.local_addr().unwrap();
    rig.server = patient();
    let client = patient();
    let ask = |rig: &mut Rig| {
        rig.ask(&client);
        arrived(&rig.udp.table.ports.get(rig.port).unwrap().listener);
        rig.requests();
    };
    ask(&mut rig);
    arrived(rig.udp.table.flows.get(rig.flows()[0]).unwrap().backend.as_ref().unwrap());
    rig.server = UdpSocket::bind(target).unwrap();
    ask(&mut rig);
    rig.server.recv_from(&mut [0; 8]).unwrap();
    let traffic = Arc::clone(&rig.udp.table.ports.get(rig.port).unwrap().service.traffic);
    assert_eq!(traffic.failed.load(Relaxed), 1);
    rig.ctx.now += 2 * rig.ctx.opts.udp_flow_idle_timeout;
    rig.udp.table.expire(&mut rig.ctx);
    let (ended, _) = rig.ctx.opts.flow_log.as_ref().unwrap().take();
    assert_eq!(ended.iter().map(|record| record.end).collect::<Vec<_>>(), [FlowEnd::Refused]);
}

#[test]
fn a_query_of_a_flow_that_has_to_go_in_the_same_batch_is_delivered() {
    let mut rig = Rig::new(2);
    let clients: Vec<UdpSocket> = (0..4).map(|_| patient()).collect();
    for client in &clients[..2] {
        rig.ask(client);
        rig.requests();
        rig.answer();
        let newest = *rig.flows().last().unwrap();
        rig.replies(newest);
        assert!(Rig::heard(client));
    }
    // The longest silent asks again, and is followed by two strangers.
    for client in [&clients[0], &clients[2], &clients[3]] {
        rig.ask(client);
    }
    rig.requests();
    for _ in 0..3 {
        rig.answer();
    }
    assert_eq!(rig.flows().len(), 3);
    for key in rig.flows() {
        rig.replies(key);
    }
    for client in [&clients[0], &clients[2], &clients[3]] {
        assert!(Rig::heard(client));
    }
}

#[test]
fn every_query_of_a_batch_is_delivered_also_if_the_table_is_smaller() {
    let mut rig = Rig::new(1);
    let clients: Vec<UdpSocket> = (0..5).map(|_| patient()).collect();
    clients.iter().for_each(|client| rig.ask(client));
    rig.requests();
    assert_eq!(rig.flows().len(), 4);
    for _ in &clients {
        rig.server.recv_from(&mut [0; 8]).unwrap();
    }
}

#[test]
fn a_lack_of_descriptors_ends_answered_flows_of_any_port_before_waiting_ones() {
    let mut rig = Rig::new(100);
    // A client of a slow server, then one of another port that is answered.
    let (slow, quick) = (patient(), patient());
    rig.ask(&slow);
    rig.requests();
    let waiting = rig.flows()[0];
    let (listener, port) = (UdpSocket::bind("127.0.0.1:0").unwrap(), rig.port);
    rig.at = listener.local_addr().unwrap();
    let server = patient();
    let target = server.local_addr().unwrap();
    rig.port = rig.udp.table.add(&mut rig.ctx, listener.into(), Service::to(target)).unwrap();
    rig.ask(&quick);
    rig.requests();
    let answered = *rig.flows().iter().find(|key| **key != waiting).unwrap();
    let (_, from) = server.recv_from(&mut [0; 8]).unwrap();
    server.send_to(b"!", from).unwrap();
    rig.replies(answered);
    // Longer than it may still go on.
    rig.ctx.now += Duration::from_secs(1);
    rig.udp.table.give_way(&mut rig.ctx, 1);
    assert_eq!(rig.flows(), [waiting]);
    // A port that goes takes its flows out of the order of all.
    rig.udp.table.remove(port);
    rig.udp.table.give_way(&mut rig.ctx, 1);
    assert!(rig.udp.table.all.is_empty() && rig.flows().is_empty());
}

#[test]
fn answers_have_a_source_that_may_be_one() {
    for (asked, answer, keeps_interface) in [
        ("192.0.2.1", "192.0.2.1", false),
        ("::ffff:192.0.2.1", "::ffff:192.0.2.1", false),
        ("2001:db8::1", "2001:db8::1", false),
        ("fe80::1", "fe80::1", true),
        ("ff02::1", "::", true),
        ("ff05::2", "::", true),
    ] {
        let local = answer_from(Local { addr: asked.parse().unwrap(), ifindex: 7 });
        let ifindex = if keeps_interface { 7 } else { 0 };
        assert_eq!(local, Local { addr: answer.parse().unwrap(), ifindex }, "{asked}");
    }
}
