//! The load generator of `cargo xtask bench`: servers that live in a network namespace, clients outside, and a bare
//! splice proxy between the two as a measuring stick.
//!
//! Clients live in a namespace too where a network is measured and not a port.
//!
//! Every client checks what comes back (patterns, lengths, request numbers) and prints one line of JSON. Servers and
//! the proxy end when their standard input does, so nothing outlives the benchmark.

mod bulk;
mod flood;
mod hold;
mod proxy;
mod query;
mod requests;
mod serve;
mod udp;

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::process::ExitCode;
use std::str::FromStr;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use nix::sched::{CloneFlags, setns};

/// `--key value` pairs behind the mode.
struct Args(HashMap<String, String>);

impl Args {
    fn parse(words: &[String]) -> Result<Self> {
        let mut pairs = HashMap::new();
        for pair in words.chunks(2) {
            let [key, value] = pair else { bail!("{pair:?} has no value") };
            let key =
                key.strip_prefix("--").with_context(|| format!("{key:?} is not an option"))?;
            pairs.insert(key.to_owned(), value.clone());
        }
        Ok(Self(pairs))
    }

    fn text(&self, key: &str) -> Option<&str> {
        self.0.get(key).map(String::as_str)
    }

    fn get<T: FromStr>(&self, key: &str) -> Result<T> {
        let value = self.text(key).with_context(|| format!("--{key} is missing"))?;
        value.parse().map_err(|_| anyhow!("--{key}: {value:?} is no number"))
    }

    fn duration(&self) -> Result<Duration> {
        Ok(Duration::from_millis(self.get("ms")?))
    }

    /// The address of a port of the server that the client talks to: at `--to`, else on loopback.
    fn address(&self, offset: u16) -> Result<SocketAddr> {
        let port = self.get::<u16>("base")? + offset;
        let Some(to) = self.text("to") else { return Ok(loopback(port)) };
        let ip: Ipv4Addr =
            to.parse().with_context(|| format!("--to: {to:?} is no IPv4 address"))?;
        Ok(SocketAddr::from((ip, port)))
    }

    /// Moves this thread, and those it will start, into the namespace of `--netns`, if there is one.
    fn enter(&self) -> Result<()> {
        let Some(path) = self.text("netns") else { return Ok(()) };
        let file = File::open(path).with_context(|| format!("opening {path}"))?;
        setns(file, CloneFlags::CLONE_NEWNET).with_context(|| format!("entering {path}"))
    }
}

fn loopback(port: u16) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, port))
}

/// Says that everything listens, and stays until standard input ends.
fn until_end_of_input() -> Result<()> {
    println!("ready");
    io::copy(&mut io::stdin(), &mut io::sink())?;
    Ok(())
}

fn run(words: &[String]) -> Result<()> {
    let Some((mode, rest)) = words.split_first() else { bail!("which mode?") };
    let args = Args::parse(rest)?;
    sys::rlimit::raise_nofile()?;
    match mode.as_str() {
        "serve" => return serve::run(&args),
        "proxy" => return proxy::run(&args),
        // Clients live where they are told to.
        _ => args.enter()?,
    }
    let answer = match mode.as_str() {
        "flood" => return flood::run(&args),
        "hold" => return hold::run(&args),
        "bulk" => bulk::client(&args)?,
        "close" => requests::client(&args, false)?,
        "keep" => requests::client(&args, true)?,
        "udp-flood" => udp::flood(&args)?,
        "udp-ping" => udp::ping(&args)?,
        "udp-query" => query::run(&args)?,
        _ => bail!("unknown mode {mode:?}"),
    };
    println!("{answer}");
    Ok(())
}

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    match run(&words) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("loadgen {}: {error:#}", words.join(" "));
            ExitCode::FAILURE
        }
    }
}
