//! What a container sends that floods: at a steady rate, something new with each packet, and nobody answers.

use std::io::{ErrorKind, Read as _, stdin};
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::libc;
use socket2::{Domain, Protocol, Socket, Type};

use crate::Args;

/// How often packets go out; as many at a time as the rate wants.
const TICK: Duration = Duration::from_millis(1);
/// Addresses that connections go to: few enough that one has many, and many enough that all of them have more.
const PEERS: u32 = 16;

/// Sends until standard input ends: `--kind` at `--rate` packets a second, to addresses from `--to` on.
pub(crate) fn run(args: &Args) -> Result<()> {
    let first: Ipv4Addr = args.get("to")?;
    let rate: u32 = args.get("rate")?;
    let kind = args.text("kind").context("--kind is missing")?;
    let over = Arc::new(AtomicBool::new(false));
    let ends = Arc::clone(&over);
    thread::spawn(move || {
        let _ = stdin().lock().read(&mut [0]);
        ends.store(true, Ordering::Relaxed);
    });
    let mut send = sender(kind, first)?;
    let started = Instant::now();
    let (mut sent, mut told) = (0, false);
    while !over.load(Ordering::Relaxed) {
        let elapsed = started.elapsed();
        let due = u32::try_from(elapsed.as_millis() * u128::from(rate) / 1000)?;
        // What was not sent in time is not made up for at once, which would be a burst.
        sent = sent.max(due.saturating_sub(rate / 100));
        while sent < due {
            match send(sent) {
                Err(error) if error.kind() != ErrorKind::WouldBlock && !is_full(&error) => {
                    return Err(error).context("sending");
                }
                _ => sent += 1,
            }
        }
        if elapsed > loadgen::FLOOD_WARM_UP && !told {
            println!("ready");
            told = true;
        }
        thread::sleep(TICK);
    }
    Ok(())
}

/// Whether there is no more room for something here: a queue is full, or all ports are in use.
fn is_full(error: &std::io::Error) -> bool {
    let all = [libc::ENOBUFS, libc::EADDRNOTAVAIL, libc::EAGAIN, libc::ECONNREFUSED];
    error.raw_os_error().is_some_and(|errno| all.contains(&errno))
}

type Send = Box<dyn FnMut(u32) -> std::io::Result<()>>;

/// What sends the packet with a number.
fn sender(kind: &str, first: Ipv4Addr) -> Result<Send> {
    let peer = move |number: u32| Ipv4Addr::from_bits(first.to_bits() + number);
    Ok(match kind {
        "syn" => Box::new(move |number| {
            let socket = Socket::new(Domain::IPV4, Type::STREAM.nonblocking(), None)?;
            let to = SocketAddr::from((peer(number % PEERS), 80));
            match socket.connect(&to.into()) {
                // The socket goes, and with it nothing is sent.
                Err(error) if error.raw_os_error() == Some(libc::EINPROGRESS) => Ok(()),
                outcome => outcome,
            }
        }),
        "udp" => {
            let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
            socket.set_nonblocking(true)?;
            Box::new(move |number| socket.send_to(b"flood", (peer(number % 65_536), 9)).map(drop))
        }
        "ping" => {
            let kind = Type::DGRAM.nonblocking();
            let socket = Socket::new(Domain::IPV4, kind, Some(Protocol::ICMPV4))?;
            let request = [8, 0, 0, 0, 0, 0, 0, 1];
            Box::new(move |number| {
                let to = SocketAddr::from((peer(number % 65_536), 0));
                socket.send_to(&request, &to.into()).map(drop)
            })
        }
        "dns" => {
            let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
            socket.set_nonblocking(true)?;
            socket.connect((first, 53))?;
            Box::new(move |number| {
                let [.., high, low] = number.to_be_bytes();
                let head = [high, low, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
                // "flood", type A, class IN.
                let question = b"\x05flood\0\0\x01\0\x01";
                socket.send(&[&head[..], question].concat()).map(drop)
            })
        }
        _ => bail!("--kind: {kind:?} is none of syn, udp, ping and dns"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_sent_now_is_no_error_and_an_unknown_kind_is_one() {
        // Nobody listens there; what comes back is that it was refused.
        for kind in ["syn", "udp", "dns"] {
            let mut send = sender(kind, Ipv4Addr::LOCALHOST).unwrap();
            for number in 0..3 {
                let sent = send(number);
                assert!(sent.as_ref().map_or_else(is_full, |()| true), "{kind}: {sent:?}");
            }
        }
        assert!(sender("disk", Ipv4Addr::LOCALHOST).is_err());
    }
}
