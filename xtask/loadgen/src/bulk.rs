//! Bytes in one direction, as fast as they go, for a fixed time.
//!
//! The client says which direction and for how long. The sender repeats a pattern whose words are their own index, and
//! ends with the number of bytes it sent; the receiver checks one word of every read and the number at the end.
//! A receiving server answers with what it counted.
//!
//! Where networks are measured that may stand still, what arrived within the time counts, as iperf3 does it. The rest is
//! awaited as well, but a stream whose rest does not come is no failure: it is counted as stalled.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};

use crate::Args;

/// Size of the pattern and of every write and read.
const PERIOD: usize = 256 << 10;
const WORD: usize = 8;

/// How long connecting may take where patience is short.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a stream may stand still after its time, in either direction.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(20);

/// What the client asks for: direction and milliseconds.
const UP: u8 = b'u';
const DOWN: u8 = b'd';
/// Upwards, with a first answer when the time is over.
const UP_WITHIN: u8 = b'w';

/// Serves each connection in a thread of its own.
pub(crate) fn serve(listener: &TcpListener) {
    for stream in listener.incoming().flatten() {
        thread::spawn(move || {
            if let Err(error) = answer(stream) {
                eprintln!("loadgen bulk server: {error:#}");
            }
        });
    }
}

fn answer(mut stream: TcpStream) -> Result<()> {
    let mut wish = [0; 5];
    // A connection that only looks whether the port is open asks for nothing.
    if stream.read_exact(&mut wish).is_err() {
        return Ok(());
    }
    let [direction, ms @ ..] = wish;
    if direction == DOWN {
        send(&stream, Duration::from_millis(u32::from_le_bytes(ms).into()))?;
        return Ok(());
    }
    let count = Arc::new(AtomicU64::new(0));
    if direction != UP_WITHIN {
        stream.write_all(&receive(&stream, &count)?.to_le_bytes())?;
        return Ok(());
    }
    let (watched, mut answers) = (Arc::clone(&count), stream.try_clone()?);
    let watch = thread::spawn(move || {
        thread::sleep(Duration::from_millis(u32::from_le_bytes(ms).into()));
        // A client that has gone does not want to know.
        let _ = answers.write_all(&watched.load(Ordering::Relaxed).to_le_bytes());
    });
    let received = receive(&stream, &count);
    // The client takes the first answer for the one of the watch, however soon the end came.
    let _ = watch.join();
    // It notices itself that a stream has no end.
    if let Ok(received) = received {
        stream.write_all(&received.to_le_bytes())?;
    }
    Ok(())
}

/// What one stream moved.
struct Moved {
    /// Altogether, as far as is known.
    bytes: u64,
    /// Until the time was over.
    within: u64,
    /// Whether the rest did not come.
    stalled: bool,
}

/// What the client was told to do.
#[derive(Clone, Copy)]
struct Plan {
    to: SocketAddr,
    down: bool,
    time: Duration,
    patience: Duration,
    /// Whether what arrives within the time counts.
    within: bool,
}

pub(crate) fn client(args: &Args) -> Result<Value> {
    let streams: usize = args.get("streams")?;
    let within = args.text("patience").is_some();
    let plan = Plan {
        to: args.address(loadgen::BULK)?,
        down: args.text("direction") == Some("down"),
        time: args.duration()?,
        patience: if within {
            Duration::from_millis(args.get("patience")?)
        } else {
            ANSWER_TIMEOUT
        },
        within,
    };
    let started = Instant::now();
    let threads: Vec<_> =
        (0..streams).map(|_| thread::spawn(move || one_stream(&plan, started))).collect();
    let (mut bytes, mut in_time, mut stalled) = (0, 0, 0);
    for thread in threads {
        let Ok(moved) = thread.join() else { bail!("a stream's thread panicked") };
        let moved = moved?;
        bytes += moved.bytes;
        in_time += moved.within;
        stalled += u32::from(moved.stalled);
    }
    Ok(json!({
        "bytes": bytes,
        "seconds": started.elapsed().as_secs_f64(),
        "rate": in_time as f64 / plan.time.as_secs_f64(),
        "stalled": stalled,
    }))
}

fn one_stream(plan: &Plan, started: Instant) -> Result<Moved> {
    let to = plan.to;
    let mut stream = TcpStream::connect_timeout(&to, plan.patience.max(CONNECT_TIMEOUT))
        .with_context(|| format!("connecting to {to}"))?;
    stream.set_nodelay(true)?;
    let limit = Some(plan.time + plan.patience);
    stream.set_read_timeout(limit)?;
    stream.set_write_timeout(limit)?;
    let up = if plan.within { UP_WITHIN } else { UP };
    let mut wish = vec![if plan.down { DOWN } else { up }];
    wish.extend(u32::try_from(plan.time.as_millis())?.to_le_bytes());
    stream.write_all(&wish)?;
    if plan.down {
        return down(plan, &stream, started);
    }
    let sent = send(&stream, plan.time);
    if !plan.within {
        let sent = sent?;
        ensure!(number(&mut stream)? == sent, "{sent} bytes were sent and others arrived");
        return Ok(Moved { bytes: sent, within: sent, stalled: false });
    }
    // What it counted when the time was over comes first, even where not everything could be sent.
    stream.set_read_timeout(Some(plan.patience))?;
    let within = number(&mut stream).context("nothing came back when the time was over")?;
    let Ok(total) = number(&mut stream) else {
        return Ok(Moved { bytes: within, within, stalled: true });
    };
    let sent = sent?;
    ensure!(total == sent, "{sent} bytes were sent and {total} arrived");
    Ok(Moved { bytes: sent, within, stalled: false })
}

fn number(stream: &mut TcpStream) -> Result<u64> {
    let mut bytes = [0; WORD];
    stream.read_exact(&mut bytes).context("the server's count")?;
    Ok(u64::from_le_bytes(bytes))
}

fn down(plan: &Plan, stream: &TcpStream, started: Instant) -> Result<Moved> {
    let count = Arc::new(AtomicU64::new(0));
    if !plan.within {
        let bytes = receive(stream, &count)?;
        return Ok(Moved { bytes, within: bytes, stalled: false });
    }
    stream.set_read_timeout(Some(plan.patience))?;
    let watched = Arc::clone(&count);
    let rest = (started + plan.time).saturating_duration_since(Instant::now());
    let watch = thread::spawn(move || {
        thread::sleep(rest);
        watched.load(Ordering::Relaxed)
    });
    let received = receive(stream, &count);
    let Ok(within) = watch.join() else { bail!("the watch panicked") };
    match received {
        Ok(bytes) => Ok(Moved { bytes, within, stalled: false }),
        Err(error) if error.downcast_ref::<io::Error>().is_some_and(late) => {
            Ok(Moved { bytes: count.load(Ordering::Relaxed), within, stalled: true })
        }
        Err(error) => Err(error),
    }
}

fn late(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut)
}

/// Sends for `time` and then ends the stream; returns the bytes before the number at the end.
fn send(mut stream: &TcpStream, time: Duration) -> Result<u64> {
    let pattern: Vec<u8> = (0..PERIOD / WORD).flat_map(|word| word.to_le_bytes()).collect();
    let end = Instant::now() + time;
    let mut sent: u64 = 0;
    while Instant::now() < end {
        stream.write_all(&pattern).context("sending")?;
        sent += pattern.len() as u64;
    }
    stream.write_all(&sent.to_le_bytes())?;
    stream.shutdown(Shutdown::Write)?;
    Ok(sent)
}

/// Receives to the end of the stream and checks it; keeps `count` up to date.
fn receive(mut stream: &TcpStream, count: &AtomicU64) -> Result<u64> {
    let mut buffer = vec![0; PERIOD];
    let (mut received, mut tail) = (0_usize, Vec::new());
    loop {
        let n = stream.read(&mut buffer).context("receiving")?;
        let read = &buffer[..n];
        // The last word of the stream is the number: the first whole word of a longer read is not that.
        if n >= 2 * WORD {
            let skip = (WORD - received % WORD) % WORD;
            let want = ((received + skip) % PERIOD) / WORD;
            let got = &read[skip..skip + WORD];
            ensure!(got == want.to_le_bytes(), "wrong bytes at offset {}", received + skip);
        }
        received += n;
        count.store(received as u64, Ordering::Relaxed);
        tail.extend_from_slice(&read[n.saturating_sub(WORD)..]);
        tail.drain(..tail.len().saturating_sub(WORD));
        if n == 0 {
            break;
        }
    }
    let said = tail.try_into().map(u64::from_le_bytes).ok().context("the stream was cut")?;
    let received = received.saturating_sub(WORD) as u64;
    ensure!(said == received, "{said} bytes were sent and {received} arrived");
    Ok(received)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the receiver says of a stream of these bytes.
    fn received(bytes: &[u8]) -> Result<u64> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let mut client = TcpStream::connect(listener.local_addr()?)?;
        let (server, _) = listener.accept()?;
        client.write_all(bytes)?;
        drop(client);
        receive(&server, &AtomicU64::new(0))
    }

    fn stream_of(words: u64) -> Vec<u8> {
        let numbers = (0..words).chain([words * WORD as u64]);
        numbers.flat_map(u64::to_le_bytes).collect()
    }

    #[test]
    fn what_arrives_within_the_time_counts() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let to = listener.local_addr().unwrap();
        // It ends with the test's process.
        thread::spawn(move || serve(&listener));
        let patience = Duration::from_secs(60);
        for down in [false, true] {
            // On a busy machine nothing may have moved within a short time.
            let moved = [60, 1000, 10_000].into_iter().find_map(|time| {
                let time = Duration::from_millis(time);
                let plan = Plan { to, down, time, patience, within: true };
                let moved = one_stream(&plan, Instant::now()).unwrap();
                assert!(!moved.stalled, "down {down}");
                (moved.within > 0).then_some(moved)
            });
            let moved = moved.unwrap();
            assert!(moved.within <= moved.bytes + WORD as u64, "down {down}");
        }
    }

    #[test]
    fn a_rest_that_does_not_come_is_a_stall() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let to = listener.local_addr().unwrap();
        let server = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            stream.write_all(&stream_of(1000)[..4000]).unwrap();
            // Held open until the client has gone.
            let _ = stream.read_to_end(&mut Vec::new());
        });
        // Long enough for the beginning, on a busy machine as well.
        let (time, patience) = (Duration::from_millis(20), Duration::from_secs(2));
        let plan = Plan { to, down: true, time, patience, within: true };
        let moved = one_stream(&plan, Instant::now()).unwrap();
        assert!(moved.stalled && moved.bytes == 4000);
        server.join().unwrap();
    }

    #[test]
    fn whole_streams_are_counted_and_others_noticed() {
        assert_eq!(received(&stream_of(1000)).unwrap(), 8000);
        let mut wrong = stream_of(1000);
        wrong[0] = 1;
        assert!(received(&wrong).unwrap_err().to_string().contains("offset 0"));
        let cut = &stream_of(1000)[..4000];
        assert!(received(cut).unwrap_err().to_string().contains("3992 arrived"));
        assert!(received(b"").unwrap_err().to_string().contains("cut"));
    }
}
