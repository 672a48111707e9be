//! All servers of one side, in the network namespace given by `--netns`.
//!
//! Each line on standard input is answered with how many datagrams were counted so far, and when.

use std::io::{BufRead as _, stdin};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Instant;

use anyhow::{Context, Result};
use serde_json::json;

use crate::{Args, bulk, requests, udp};

pub(crate) fn run(args: &Args) -> Result<()> {
    args.enter()?;
    let base: u16 = args.get("base")?;
    // Not on 127.0.0.1 alone: some versions of pasta connect to the namespace's other address.
    let address = |offset: u16| SocketAddr::from((Ipv4Addr::UNSPECIFIED, base + offset));
    let listen = |offset: u16| {
        let address = address(offset);
        TcpListener::bind(address).with_context(|| format!("binding {address}"))
    };
    let (all, close, keep) =
        (listen(loadgen::BULK)?, listen(loadgen::CLOSE)?, listen(loadgen::KEEP)?);
    thread::spawn(move || bulk::serve(&all));
    thread::spawn(move || {
        if let Err(error) = requests::serve(close, keep) {
            eprintln!("loadgen request server: {error:#}");
        }
    });
    let counted = Arc::new(AtomicU64::new(0));
    let [sink, echo] = loadgen::UDP_PORTS.map(|offset| udp::bind(address(offset)));
    let (sink, echo, counter) = (sink?, echo?, Arc::clone(&counted));
    thread::spawn(move || {
        if let Err(error) = udp::count(&sink, &counter) {
            eprintln!("loadgen udp server: {error:#}");
        }
    });
    thread::spawn(move || udp::echo(&echo));
    println!("ready");
    let started = Instant::now();
    for line in stdin().lock().lines() {
        line?;
        let datagrams = counted.load(Ordering::Relaxed);
        println!(
            "{}",
            json!({ "datagrams": datagrams, "seconds": started.elapsed().as_secs_f64() })
        );
    }
    Ok(())
}
