//! Forwards one port within this network namespace: something for perf and strace to look at.
//!
//! `relay PROTO LISTEN-IP LISTEN-PORT TARGET`, for example `relay tcp 127.0.0.1 8080 127.0.0.1:80`.

use std::error::Error;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
use relay::{Engine, Options};

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [proto, ip, port, target] = &args[..] else {
        return Err("usage: relay PROTO LISTEN-IP LISTEN-PORT TARGET".into());
    };
    let pair = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)?;
    let (ours, theirs): (OwnedFd, OwnedFd) = pair;
    std::thread::spawn(move || relay::factory::serve(theirs, || false));
    let engine = Engine::start(ours, Options::default())?;
    let listener = relay::listen::bind(proto.parse()?, Some(ip.parse()?), port.parse()?)?;
    engine.add(1, listener, target.parse()?, Arc::default())?;
    loop {
        std::thread::park();
    }
}
