//! Datagrams: as many small ones as go through, and large ones back and forth.

use std::io::{ErrorKind, IoSlice};
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::os::fd::AsFd as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{setsockopt, sockopt};
use serde_json::{Value, json};
use sys::mmsg::{BATCH, Receiver, Route, send_each};

use crate::Args;
use crate::requests::Latencies;

/// What a counted datagram looks like.
const SMALL: [u8; 64] = *b"a small datagram of the benchmark: sixty-four bytes of payload..";
/// How long an answer may take before it counts as lost.
const ANSWER_TIMEOUT: Duration = Duration::from_millis(500);

pub(crate) fn bind(address: SocketAddr) -> Result<UdpSocket> {
    let socket = UdpSocket::bind(address).with_context(|| format!("binding {address}"))?;
    // The forwarder is measured, not how many datagrams fit into a server's default buffer.
    setsockopt(&socket, sockopt::RcvBufForce, &(8 << 20)).context("a large receive buffer")?;
    Ok(socket)
}

fn wait(socket: &UdpSocket, flags: PollFlags) -> Result<()> {
    poll(&mut [PollFd::new(socket.as_fd(), flags)], PollTimeout::NONE)?;
    Ok(())
}

/// Counts the datagrams that look right.
pub(crate) fn count(socket: &UdpSocket, counted: &AtomicU64) -> Result<()> {
    let mut receiver = Receiver::new();
    loop {
        match receiver.recv(socket.as_fd(), BATCH) {
            Ok(_) => {
                let right = receiver.iter().filter(|datagram| datagram.data == SMALL).count();
                counted.fetch_add(right as u64, Ordering::Relaxed);
            }
            Err(Errno::EAGAIN) => wait(socket, PollFlags::POLLIN)?,
            Err(error) => return Err(error.into()),
        }
    }
}

/// Sends every datagram back to where it came from.
pub(crate) fn echo(socket: &UdpSocket) {
    let mut buffer = [0; 2048];
    while let Ok((n, from)) = socket.recv_from(&mut buffer) {
        // A client that has gone is none of the server's business.
        let _ = socket.send_to(&buffer[..n], from);
    }
}

fn connected(to: SocketAddr) -> Result<UdpSocket> {
    let own = if to.ip().is_loopback() { Ipv4Addr::LOCALHOST } else { Ipv4Addr::UNSPECIFIED };
    let socket = UdpSocket::bind((own, 0))?;
    socket.connect(to)?;
    Ok(socket)
}

/// Sends without a pause; what arrives is the server's to count.
pub(crate) fn flood(args: &Args) -> Result<Value> {
    let socket = connected(args.address(loadgen::UDP_PORTS[0])?)?;
    let end = Instant::now() + args.duration()?;
    let batch = [IoSlice::new(&SMALL); BATCH];
    let (mut sent, mut refused) = (0, 0_u64);
    while Instant::now() < end {
        match send_each(socket.as_fd(), &batch, Route::default()) {
            Ok(n) => sent += n,
            Err(Errno::EAGAIN | Errno::ENOBUFS) => wait(&socket, PollFlags::POLLOUT)?,
            Err(Errno::ECONNREFUSED) => refused += 1,
            Err(error) => return Err(error.into()),
        }
    }
    Ok(json!({ "sent": sent, "failed": refused }))
}

/// One datagram at a time, each answered before the next leaves.
pub(crate) fn ping(args: &Args) -> Result<Value> {
    let socket = connected(args.address(loadgen::UDP_PORTS[1])?)?;
    socket.set_read_timeout(Some(ANSWER_TIMEOUT))?;
    let size: usize = args.get("size")?;
    ensure!((8..=1400).contains(&size), "--size: {size} is not within 8 to 1400");
    let end = Instant::now() + args.duration()?;
    let (mut payload, mut answer) = (vec![0x5a; size], vec![0; 2048]);
    let (mut latencies, mut number, mut lost) = (Latencies::default(), 0_u64, 0_u64);
    while Instant::now() < end {
        number += 1;
        payload[..8].copy_from_slice(&number.to_le_bytes());
        let started = Instant::now();
        socket.send(&payload)?;
        loop {
            match socket.recv(&mut answer) {
                // An answer to an earlier one, which came too late.
                Ok(n) if n == size && answer[..8] != payload[..8] => {}
                Ok(n) => {
                    ensure!(answer[..n] == payload, "the answer differs from what was sent");
                    latencies.add(started.elapsed());
                    break;
                }
                Err(error)
                    if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) =>
                {
                    lost += 1;
                    break;
                }
                Err(error) => return Err(error).context("waiting for the answer"),
            }
        }
    }
    Ok(latencies.report(number - lost, lost, args.duration()?))
}
