//! Queries in small datagrams, so many in flight, from one socket or each from a new source port, as resolvers ask.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::os::fd::AsFd as _;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use serde_json::Value;

use crate::Args;
use crate::requests::Latencies;

/// How long an answer may take before it counts as lost.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(1);
const SIZE: usize = 64;

/// One query under way.
struct Query {
    number: u64,
    sent: Instant,
}

fn connected(to: SocketAddr) -> Result<UdpSocket> {
    let own = if to.ip().is_loopback() { Ipv4Addr::LOCALHOST } else { Ipv4Addr::UNSPECIFIED };
    let socket = UdpSocket::bind((own, 0)).context("a socket for a query")?;
    socket.connect(to)?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

/// What a query says: its number, and after it the index of who waits for the answer.
fn payload(number: u64, index: usize) -> [u8; SIZE] {
    let mut payload = [0x5a; SIZE];
    payload[..8].copy_from_slice(&number.to_le_bytes());
    payload[8..16].copy_from_slice(&(index as u64).to_le_bytes());
    payload
}

/// Asks until the time is over, then waits for what is under way.
pub(crate) fn run(args: &Args) -> Result<Value> {
    let to = args.address(loadgen::UDP_PORTS[1])?;
    let flight: usize = args.get("flight")?;
    let churn = args.text("churn").is_some();
    ensure!((1..=512).contains(&flight), "--flight: {flight} is not within 1 to 512");
    let started = Instant::now();
    let end = started + args.duration()?;
    let count = if churn { flight } else { 1 };
    let mut sockets = (0..count).map(|_| connected(to)).collect::<Result<Vec<_>>>()?;
    let mut queries: Vec<Option<Query>> = Vec::new();
    let (mut next, mut done, mut lost, mut latencies) = (0_u64, 0_u64, 0_u64, Latencies::default());
    queries.resize_with(flight, || None);
    loop {
        let now = Instant::now();
        for (index, query) in queries.iter_mut().enumerate() {
            if query.as_ref().is_some_and(|query| now - query.sent > ANSWER_TIMEOUT) {
                (*query, lost) = (None, lost + 1);
            }
            if query.is_some() || now >= end {
                continue;
            }
            let socket = &mut sockets[if churn { index } else { 0 }];
            if churn && next >= flight as u64 {
                *socket = connected(to)?;
            }
            next += 1;
            *query = Some(Query { number: next, sent: Instant::now() });
            // What cannot be sent is not answered either, and counts as lost.
            let _ = socket.send(&payload(next, index));
        }
        if queries.iter().all(Option::is_none) {
            break;
        }
        let mut fds: Vec<PollFd<'_>> =
            sockets.iter().map(|socket| PollFd::new(socket.as_fd(), PollFlags::POLLIN)).collect();
        poll(&mut fds, PollTimeout::from(100_u8))?;
        let ready: Vec<bool> = fds.iter().map(|fd| fd.any().unwrap_or(false)).collect();
        for (socket, _) in sockets.iter().zip(ready).filter(|(_, ready)| *ready) {
            let mut answer = [0; 2048];
            while let Ok(n) = socket.recv(&mut answer) {
                let word = |at: usize| answer[at..at + 8].try_into().map(u64::from_le_bytes);
                let (number, index) = (word(0)?, usize::try_from(word(8)?)?);
                ensure!(
                    n == SIZE && answer[..n] == payload(number, index),
                    "the answer differs from what was sent"
                );
                // Otherwise it came too late, or twice.
                let mine = queries.get_mut(index).context("an answer to nobody")?;
                if let Some(query) = mine.take_if(|query| query.number == number) {
                    latencies.add(query.sent.elapsed());
                    done += 1;
                }
            }
        }
    }
    // What is late at the end is not a part of the time in which queries were sent.
    Ok(latencies.report(done, lost, args.duration()?))
}
