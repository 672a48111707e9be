//! The client's side of the protocol (RFC 2131, section 4.4): to get a lease and to extend it.
//!
//! Everything that touches the world is behind [`Port`], so that tests have a clock and servers of their own.

use std::fmt;
use std::io;
use std::net::Ipv4Addr;
use std::time::Duration;

use super::lease::{Lease, Times};
use super::wire::{self, Ask, Kind, Reply, Talk};

/// Waits for an answer before asking again. A new bridge port may drop the first packets.
const ANSWER_TIMEOUTS: [Duration; 4] = [
    Duration::from_secs(1),
    Duration::from_secs(2),
    Duration::from_secs(4),
    Duration::from_secs(8),
];
/// How often a server that made an offer is asked for it.
const MAX_REQUESTS: usize = 3;
/// After a refusal or an error, so that a server that always refuses is not flooded.
const RETRY_INTERVAL: Duration = Duration::from_secs(1);
/// The shortest wait between two requests for more time.
const MIN_EXTEND_INTERVAL: Duration = Duration::from_secs(10);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    /// To everyone, from an interface without address.
    Unconfigured,
    Server(Ipv4Addr),
    /// To everyone, from an interface that has its address.
    Everyone,
}

/// The interface, and time.
pub(super) trait Port {
    /// Time since some moment, with that in which the machine slept.
    fn now(&self) -> Duration;

    /// Returns at that time.
    fn wait(&mut self, until: Duration);

    /// A number that others on the network cannot expect.
    fn random(&mut self) -> u32;

    /// Sends a message; answers come on the way of the last one.
    fn send(&mut self, way: Way, message: &[u8]) -> io::Result<()>;

    /// The next message of a server; `None` when that time has come.
    fn receive(&mut self, until: Duration) -> io::Result<Option<Vec<u8>>>;

    /// Answers are no longer expected.
    fn close(&mut self);
}

#[derive(Debug)]
pub(super) struct Unanswered {
    limit: Duration,
    /// What a server or the kernel said last.
    last: Option<String>,
}

impl std::error::Error for Unanswered {}

impl fmt::Display for Unanswered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (seconds, last) = (self.limit.as_secs(), self.last.as_deref().unwrap_or("no answer"));
        write!(f, "received no address from a DHCP server within {seconds} s ({last})")
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Lost {
    Expired,
    Refused(String),
}

pub(super) fn acquire(
    port: &mut impl Port,
    mac: [u8; 6],
    limit: Duration,
) -> Result<Lease, Unanswered> {
    let begin = port.now();
    let mut attempt = Attempt { mac, begin, deadline: begin + limit, last: None };
    let lease = loop {
        if let Some(lease) = attempt.round(port) {
            break Ok(lease);
        }
        if port.now() >= attempt.deadline {
            break Err(Unanswered { limit, last: attempt.last });
        }
    };
    port.close();
    lease
}

struct Attempt {
    mac: [u8; 6],
    begin: Duration,
    deadline: Duration,
    last: Option<String>,
}

impl Attempt {
    /// From DISCOVER to ACK, once.
    fn round(&mut self, port: &mut impl Port) -> Option<Lease> {
        let talk = Talk { mac: self.mac, xid: port.random() };
        let offer = self.discover(port, talk)?;
        let (address, server) = (offer.address, offer.server);
        for patience in ANSWER_TIMEOUTS.iter().take(MAX_REQUESTS) {
            let asked = port.now();
            let reply = self.ask(port, talk, Ask::Request { address, server }, *patience, |r| {
                r.kind != Kind::Offer && r.server.is_none_or(|from| from == server)
            });
            if let Some(reply) = reply {
                self.last = Some(match reply.kind {
                    Kind::Ack => match Lease::granted(&reply, asked) {
                        Some(lease) => return Some(lease),
                        None => format!("{server} granted an invalid lease"),
                    },
                    Kind::Offer | Kind::Nak => refusal(&reply),
                });
                port.wait(self.deadline.min(port.now() + RETRY_INTERVAL));
                return None;
            }
            self.last = Some(format!("{server} offered {address} and then stopped answering"));
            if port.now() >= self.deadline {
                break;
            }
        }
        None
    }

    /// Asks for servers until one offers something that is of use.
    fn discover(&mut self, port: &mut impl Port, talk: Talk) -> Option<Lease> {
        let mut patience = ANSWER_TIMEOUTS.iter();
        let mut wait = ANSWER_TIMEOUTS[0];
        while port.now() < self.deadline {
            wait = *patience.next().unwrap_or(&wait);
            let asked = port.now();
            let offer = self.ask(port, talk, Ask::Discover, wait, |reply| {
                reply.kind == Kind::Offer && Lease::granted(reply, asked).is_some()
            });
            if let Some(offer) = offer {
                return Lease::granted(&offer, asked);
            }
        }
        None
    }

    fn ask(
        &mut self,
        port: &mut impl Port,
        talk: Talk,
        ask: Ask,
        patience: Duration,
        wanted: impl Fn(&Reply) -> bool,
    ) -> Option<Reply> {
        let until = self.deadline.min(port.now() + patience);
        let seconds =
            u16::try_from(port.now().saturating_sub(self.begin).as_secs()).unwrap_or(u16::MAX);
        let message = wire::encode(talk, ask, seconds);
        if let Err(e) = port.send(Way::Unconfigured, &message) {
            self.last = Some(format!("cannot send the request: {e}"));
        }
        answer(port, talk, until, wanted)
    }
}

fn refusal(reply: &Reply) -> String {
    let server = reply.server.map_or_else(String::new, |server| format!(" {server}"));
    let why = reply.message.as_ref().map_or_else(String::new, |text| format!(": {text}"));
    format!("the server{server} refused{why}")
}

/// The first answer of this conversation that is wanted; `None` when that time has come.
fn answer(
    port: &mut impl Port,
    talk: Talk,
    until: Duration,
    wanted: impl Fn(&Reply) -> bool,
) -> Option<Reply> {
    while port.now() < until {
        match port.receive(until) {
            Ok(Some(bytes)) => {
                if let Some(reply) = wire::decode(talk, &bytes).filter(&wanted) {
                    return Some(reply);
                }
            }
            Ok(None) => {}
            Err(e) => {
                // An interface that is down, for instance, may be up again soon.
                tracing::debug!("failed to receive from DHCP servers: {e}");
                port.wait(until.min(port.now() + RETRY_INTERVAL));
            }
        }
    }
    None
}

/// Waits until the lease has to be extended, and extends it.
pub(super) fn extend(
    port: &mut impl Port,
    mac: [u8; 6],
    lease: &Lease,
    times: Times,
) -> Result<Lease, Lost> {
    port.wait(times.renew);
    let talk = Talk { mac, xid: port.random() };
    let phases = [(Way::Server(lease.server), times.rebind), (Way::Everyone, times.end)];
    let mut result = Err(Lost::Expired);
    'ends: for (way, end) in phases {
        while port.now() < end {
            let asked = port.now();
            let message = wire::encode(talk, Ask::Extend { address: lease.address }, 0);
            if let Err(e) = port.send(way, &message) {
                tracing::debug!("failed to ask for an extension of the lease: {e}");
            }
            // Half of what is left, as the standard has it.
            let until = end.min(asked + MIN_EXTEND_INTERVAL.max(end.saturating_sub(asked) / 2));
            let Some(reply) = answer(port, talk, until, |r| r.kind != Kind::Offer) else {
                continue;
            };
            if reply.kind == Kind::Nak {
                result = Err(Lost::Refused(refusal(&reply)));
                break 'ends;
            }
            if let Some(next) = Lease::granted(&reply, asked) {
                result = Ok(next);
                break 'ends;
            }
            port.wait(end.min(port.now() + RETRY_INTERVAL));
        }
    }
    port.close();
    result
}
