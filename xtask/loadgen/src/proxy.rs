//! The measuring stick: what a proxy between two namespaces can do at best with splice(2).
//!
//! Two threads per connection, each with a pipe of 1 MiB. The inner sockets come from a helper thread that lives in
//! the inner namespace. It measures bytes; the threads make it slow at new connections.

use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::fd::AsFd as _;
use std::sync::mpsc::{self, Receiver, Sender};
use std::{io, thread};

use anyhow::{Context, Result, ensure};
use nix::fcntl::{FcntlArg, OFlag, SpliceFFlags, fcntl, splice};
use nix::unistd::pipe2;

use crate::{Args, loopback, until_end_of_input};

/// What one pipe holds, and the most that an ordinary user may ask for (pipe(7)).
const PIPE: usize = 1 << 20;

/// A port to connect to in there, and where to put the socket.
type Wish = (u16, Sender<io::Result<TcpStream>>);

pub(crate) fn run(args: &Args) -> Result<()> {
    let base: u16 = args.get("base")?;
    let (wishes, granted) = mpsc::channel();
    let (entered, has_entered) = mpsc::channel();
    let inside = Args(args.0.clone());
    thread::spawn(move || connect_inside(&inside, &entered, &granted));
    has_entered.recv()??;
    for offset in loadgen::TCP_PORTS {
        let port = base + offset;
        let listener =
            TcpListener::bind(loopback(port)).with_context(|| format!("binding {port}"))?;
        let wishes = wishes.clone();
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                if let Err(error) = forward(client, port, &wishes) {
                    eprintln!("loadgen proxy: {error:#}");
                }
            }
        });
    }
    until_end_of_input()
}

/// The helper thread: connects in the inner namespace.
fn connect_inside(args: &Args, entered: &Sender<Result<()>>, wishes: &Receiver<Wish>) {
    let result = args.enter();
    let failed = result.is_err();
    if entered.send(result).is_err() || failed {
        return;
    }
    for (port, answer) in wishes {
        // The asker waits for it; if it has gone the socket is closed.
        let _ = answer.send(TcpStream::connect(loopback(port)));
    }
}

fn forward(client: TcpStream, port: u16, wishes: &Sender<Wish>) -> Result<()> {
    let (answer, socket) = mpsc::channel();
    wishes.send((port, answer))?;
    let backend = socket.recv()??;
    client.set_nodelay(true)?;
    backend.set_nodelay(true)?;
    let (from, to) = (client.try_clone()?, backend.try_clone()?);
    thread::spawn(move || one_way(&from, &to));
    thread::spawn(move || one_way(&backend, &client));
    Ok(())
}

fn one_way(from: &TcpStream, to: &TcpStream) {
    // Whatever ends it, the other side has to see an end.
    let _ = move_all(from, to);
    let _ = to.shutdown(Shutdown::Write);
}

fn move_all(from: &TcpStream, to: &TcpStream) -> Result<()> {
    let (out, into) = pipe2(OFlag::O_CLOEXEC)?;
    let size = fcntl(into.as_fd(), FcntlArg::F_SETPIPE_SZ(i32::try_from(PIPE)?))?;
    ensure!(usize::try_from(size)? >= PIPE, "the pipe holds {size} bytes only");
    loop {
        let mut held = splice(from, None, &into, None, PIPE, SpliceFFlags::SPLICE_F_MOVE)?;
        if held == 0 {
            return Ok(());
        }
        while held > 0 {
            held -= splice(&out, None, to, None, held, SpliceFFlags::SPLICE_F_MOVE)?;
        }
    }
}
