//! Bytes in one direction, as fast as they go, for a fixed time.
//!
//! The client says which direction and for how long. The sender repeats a pattern whose words are their own index, and
//! ends with the number of bytes it sent; the receiver checks one word of every read and the number at the end.
//! A receiving server answers with what it counted.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};

use crate::{Args, wire};

/// Size of the pattern and of every write and read.
const PERIOD: usize = 256 << 10;
const WORD: usize = 8;

/// What the client asks for: direction and milliseconds.
const UP: u8 = b'u';
const DOWN: u8 = b'd';

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
    let received = receive(&stream)?;
    stream.write_all(&received.to_le_bytes())?;
    Ok(())
}

pub(crate) fn client(args: &Args) -> Result<Value> {
    let to = args.address(wire::BULK)?;
    let (streams, time): (usize, _) = (args.get("streams")?, args.duration()?);
    let down = args.text("direction") == Some("down");
    let started = Instant::now();
    let threads: Vec<_> =
        (0..streams).map(|_| thread::spawn(move || one_stream(to, down, time))).collect();
    let mut bytes = 0;
    for thread in threads {
        match thread.join() {
            Ok(moved) => bytes += moved?,
            Err(_) => bail!("a stream's thread panicked"),
        }
    }
    Ok(json!({ "bytes": bytes, "seconds": started.elapsed().as_secs_f64() }))
}

fn one_stream(to: SocketAddr, down: bool, time: Duration) -> Result<u64> {
    let mut stream = TcpStream::connect(to).with_context(|| format!("connecting to {to}"))?;
    stream.set_nodelay(true)?;
    let limit = Some(time + Duration::from_secs(20));
    stream.set_read_timeout(limit)?;
    stream.set_write_timeout(limit)?;
    let mut wish = vec![if down { DOWN } else { UP }];
    wish.extend(u32::try_from(time.as_millis())?.to_le_bytes());
    stream.write_all(&wish)?;
    if down {
        return receive(&stream);
    }
    let sent = send(&stream, time)?;
    let mut counted = [0; WORD];
    stream.read_exact(&mut counted).context("the server's count")?;
    let counted = u64::from_le_bytes(counted);
    ensure!(counted == sent, "{sent} bytes were sent and {counted} arrived");
    Ok(sent)
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

/// Receives to the end of the stream and checks it.
fn receive(mut stream: &TcpStream) -> Result<u64> {
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
        receive(&server)
    }

    fn stream(words: u64) -> Vec<u8> {
        let numbers = (0..words).chain([words * WORD as u64]);
        numbers.flat_map(u64::to_le_bytes).collect()
    }

    #[test]
    fn whole_streams_are_counted_and_others_noticed() {
        assert_eq!(received(&stream(1000)).unwrap(), 8000);
        let mut wrong = stream(1000);
        wrong[0] = 1;
        assert!(received(&wrong).unwrap_err().to_string().contains("offset 0"));
        let cut = &stream(1000)[..4000];
        assert!(received(cut).unwrap_err().to_string().contains("3992 arrived"));
        assert!(received(b"").unwrap_err().to_string().contains("cut"));
    }
}
