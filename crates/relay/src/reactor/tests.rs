//! What a thread that only moves bytes reports.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::Ordering;

use super::*;
use crate::command::Command;
use crate::event_handler::OUTBOUND;
use crate::tcp::Moved;
use crate::testing::eventually;
use crate::traffic::{Counted, Traffic};

/// What takes longer than this hangs.
const PATIENCE: Duration = Duration::from_secs(60);

/// Both ends of a connection; the second one is for the event loop.
fn connection() -> (TcpStream, Socket) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let ours = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    ours.set_read_timeout(Some(PATIENCE)).unwrap();
    let theirs = Socket::from(listener.accept().unwrap().0);
    theirs.set_nonblocking(true).unwrap();
    (ours, theirs)
}

#[test]
fn a_connection_that_was_handed_over_is_counted_until_it_ends_as_what_it_was() {
    let helper = Mailbox::new().unwrap();
    let (mailbox, pipes) = (Arc::clone(&helper), Stock::new(0));
    let reactor = Reactor::new(mailbox, None, Options::default(), Vec::new(), pipes, None).unwrap();
    let thread = std::thread::spawn(move || reactor.run());
    for (id, what) in [(1, Use::In), (OUTBOUND, Use::Out), (2, Use::In)] {
        let ((mut client, near), (mut server, far)) = (connection(), connection());
        let traffic = Arc::<Traffic>::default();
        helper.hand_over(id, Moved::new(near, far, Counted::open(Arc::clone(&traffic)))).unwrap();
        eventually(PATIENCE, "it is counted", || helper.held() == Held::default().with(what, 2));
        // So are its bytes, where they were before.
        client.write_all(b"ping").unwrap();
        server.read_exact(&mut [0; 4]).unwrap();
        server.write_all(b"to").unwrap();
        client.read_exact(&mut [0; 2]).unwrap();
        eventually(PATIENCE, "its bytes are counted", || {
            let counters = [&traffic.active, &traffic.up, &traffic.down];
            counters.map(|counter| counter.load(Ordering::Relaxed)) == [1, 4, 2]
        });
        drop((client, server));
        // And nothing else happens here.
        eventually(PATIENCE, "it has ended", || helper.held() == Held::default());
        assert_eq!(traffic.active.load(Ordering::Relaxed), 0);
    }
    helper.post(Command::Stop).unwrap();
    thread.join().unwrap();
}
