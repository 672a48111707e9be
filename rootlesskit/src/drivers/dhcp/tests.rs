//! The protocol against servers that are functions, with a clock that only waiting moves.

use std::collections::VecDeque;
use std::io;
use std::net::Ipv4Addr;
use std::time::Duration;

use super::client::{Port, Way, acquire, extend};
use super::keeper::{Network, turn};
use super::lease::{Lease, Times};
use super::wire::Talk;
use super::wire::tests::answer;

const MAC: [u8; 6] = [2, 0, 0, 0, 0, 7];
const IP: [u8; 4] = [10, 0, 3, 9];
const LIMIT: Duration = Duration::from_secs(30);

/// A message of the client: its kind, how it left, and what the server needs for an answer.
struct Asked {
    kind: u8,
    way: Way,
    talk: Talk,
}

impl Asked {
    fn answer(&self, kind: u8, ip: [u8; 4], options: &[u8]) -> Vec<u8> {
        answer(self.talk, kind, ip, options)
    }
}

type Server = Box<dyn FnMut(&Asked) -> Option<Vec<u8>>>;

/// An interface with one server on it.
struct Wire {
    now: Duration,
    server: Server,
    queue: VecDeque<Vec<u8>>,
    sent: Vec<(u64, u8, Way)>,
    open: bool,
}

impl Wire {
    fn new(server: impl FnMut(&Asked) -> Option<Vec<u8>> + 'static) -> Self {
        let server = Box::new(server);
        Self {
            now: Duration::from_secs(1000),
            server,
            queue: VecDeque::new(),
            sent: Vec::new(),
            open: false,
        }
    }

    fn kinds(&self) -> Vec<u8> {
        self.sent.iter().map(|(_, kind, _)| *kind).collect()
    }
}

impl Port for Wire {
    fn now(&self) -> Duration {
        self.now
    }

    fn wait(&mut self, until: Duration) {
        self.now = self.now.max(until);
    }

    fn random(&mut self) -> u32 {
        u32::try_from(self.sent.len()).unwrap() + 77
    }

    fn send(&mut self, way: Way, message: &[u8]) -> io::Result<()> {
        let xid = u32::from_be_bytes(message[4..8].try_into().unwrap());
        let asked = Asked { kind: message[242], way, talk: Talk { mac: MAC, xid } };
        self.sent.push((self.now.as_secs() - 1000, asked.kind, way));
        self.queue.extend((self.server)(&asked));
        self.open = true;
        Ok(())
    }

    fn receive(&mut self, until: Duration) -> io::Result<Option<Vec<u8>>> {
        let next = self.queue.pop_front();
        if next.is_none() {
            self.wait(until);
        }
        Ok(next)
    }

    fn close(&mut self) {
        self.open = false;
    }
}

/// A server that behaves.
fn good(asked: &Asked) -> Option<Vec<u8>> {
    let kind = if asked.kind == 1 { 2 } else { 5 };
    Some(asked.answer(kind, IP, &[51, 4, 0, 0, 0, 100, 3, 4, 10, 0, 3, 1]))
}

fn leased() -> (Lease, Times) {
    let lease = acquire(&mut Wire::new(good), MAC, LIMIT).unwrap();
    let times = lease.times.unwrap();
    (lease, times)
}

#[test]
fn a_lease_takes_two_questions() {
    let mut wire = Wire::new(good);
    let lease = acquire(&mut wire, MAC, LIMIT).unwrap();
    assert_eq!((lease.address, lease.server), (IP.into(), Ipv4Addr::new(10, 0, 3, 1)));
    assert_eq!(wire.kinds(), [1, 3]);
    assert!(!wire.open && wire.now.as_secs() == 1000, "nothing was waited for");
}

#[test]
fn silence_ends_in_time_with_an_error() {
    let mut wire = Wire::new(|_| None);
    let error = acquire(&mut wire, MAC, LIMIT).unwrap_err().to_string();
    assert_eq!(error, "received no address from a DHCP server within 30 s (no answer)");
    assert_eq!(wire.now.as_secs(), 1030);
    let times: Vec<u64> = wire.sent.iter().map(|(at, ..)| *at).collect();
    assert_eq!(times, [0, 1, 3, 7, 15, 23], "asked again, less and less often");
    assert!(!wire.open);
}

#[test]
fn what_servers_refuse_or_forget_is_said() {
    let reason = |server: fn(&Asked) -> Option<Vec<u8>>| {
        let mut wire = Wire::new(server);
        let error = acquire(&mut wire, MAC, LIMIT).unwrap_err().to_string();
        assert!((1030..1032).contains(&wire.now.as_secs()), "{:?}", wire.now);
        (error, wire.sent.len())
    };
    let (text, sent) = reason(|asked| match asked.kind {
        1 => good(asked),
        _ => Some(asked.answer(6, [0; 4], &[56, 4, b'f', b'u', b'l', b'l'])),
    });
    assert!(text.contains("the server 10.0.3.1 refused: full"), "{text}");
    assert_eq!(sent, 60, "a pause after each refusal");
    let (text, _) = reason(|asked| if asked.kind == 1 { good(asked) } else { None });
    assert!(text.contains("10.0.3.1 offered 10.0.3.9 and then stopped answering"), "{text}");
    let (text, _) = reason(|asked| match asked.kind {
        1 => good(asked),
        _ => Some(asked.answer(5, [0; 4], &[])),
    });
    assert!(text.contains("an invalid lease"), "{text}");
    let (text, _) = reason(|asked| Some(asked.answer(2, [127, 0, 0, 1], &[])));
    assert!(text.contains("no answer"), "an unusable offer is none: {text}");
}

#[test]
fn a_server_that_comes_late_or_refuses_once_is_good_enough() {
    let mut n = 0;
    let mut wire = Wire::new(move |asked| {
        n += 1;
        match n {
            1..=3 => None,
            5 => Some(asked.answer(6, [0; 4], &[])),
            _ => good(asked),
        }
    });
    assert_eq!(acquire(&mut wire, MAC, LIMIT).unwrap().address, Ipv4Addr::from(IP));
    assert_eq!(wire.kinds(), [1, 1, 1, 1, 3, 1, 3]);
}

#[test]
fn extending_asks_its_server_first_and_then_all() {
    let (lease, times) = leased();
    let mut wire = Wire::new(|asked| (asked.way == Way::Everyone).then(|| good(asked)).flatten());
    let next = extend(&mut wire, MAC, &lease, times).unwrap();
    let server = Way::Server(Ipv4Addr::new(10, 0, 3, 1));
    let sent: Vec<_> = wire.sent.iter().map(|(at, _, way)| (*at, *way)).collect();
    // T1 is 50, T2 88, the end 100.
    assert_eq!(sent, [(50, server), (69, server), (79, server), (88, Way::Everyone)]);
    assert_eq!(next.times.unwrap().end.as_secs(), 1088 + 100, "counted from the question");
    assert!(!wire.open);
}

/// Remembers what it was told.
#[derive(Default)]
struct Told(Vec<String>);

impl Network for Told {
    fn install(&mut self, lease: &Lease) -> anyhow::Result<()> {
        self.0.push(format!("install {}", lease.address));
        Ok(())
    }

    fn withdraw(&mut self, lease: &Lease) -> anyhow::Result<()> {
        self.0.push(format!("withdraw {}", lease.address));
        Err(anyhow::anyhow!("errors are said and survived"))
    }

    fn adjust(&mut self, _old: &Lease, new: &Lease) -> anyhow::Result<()> {
        self.0.push(format!("adjust {} {:?}", new.address, new.dns));
        Ok(())
    }
}

#[test]
fn another_address_and_other_servers_are_followed() {
    let (lease, _) = leased();
    let mut told = Told::default();
    let mut wire = Wire::new(|asked| Some(asked.answer(5, [10, 0, 3, 10], &[6, 4, 9, 9, 9, 9])));
    let next = turn(&mut wire, MAC, &lease, &mut told).unwrap();
    let next = turn(&mut wire, MAC, &next, &mut told).unwrap();
    assert_eq!(next.address, Ipv4Addr::new(10, 0, 3, 10));
    assert_eq!(told.0, ["withdraw 10.0.3.9", "install 10.0.3.10", "adjust 10.0.3.10 [9.9.9.9]"]);
}

#[test]
fn after_a_refusal_or_the_end_there_is_a_new_lease() {
    let (lease, _) = leased();
    for refuse in [true, false] {
        let mut told = Told::default();
        let mut wire = Wire::new(move |asked| match asked.way {
            Way::Unconfigured if asked.talk.xid > 80 => {
                let kind = if asked.kind == 1 { 2 } else { 5 };
                Some(asked.answer(kind, [10, 0, 3, 11], &[]))
            }
            Way::Server(_) if refuse => Some(asked.answer(6, [0; 4], &[])),
            _ => None,
        });
        let next = turn(&mut wire, MAC, &lease, &mut told).unwrap();
        assert_eq!(next.address, Ipv4Addr::new(10, 0, 3, 11));
        assert_eq!(told.0, ["withdraw 10.0.3.9", "install 10.0.3.11"], "{refuse}");
        assert!(wire.now.as_secs() >= 1000 + if refuse { 50 } else { 100 });
    }
}

#[test]
fn a_lease_without_end_needs_nothing() {
    let lease = Lease { times: None, ..leased().0 };
    let mut wire = Wire::new(good);
    assert_eq!(turn(&mut wire, MAC, &lease, &mut Told::default()), None);
    assert!(wire.sent.is_empty());
}
