//! The commands that the handle [`crate::Engine`] sends to a thread, and one thread to another.

use std::io;
use std::sync::mpsc::SyncSender;

use crate::event_handler::OUTBOUND;
use crate::judge::Judge;
use crate::listen::Listener;
use crate::room::{Held, Use};
use crate::service::Service;
use crate::tcp::Moved;

#[derive(Debug)]
pub(crate) enum Command {
    Add {
        id: u64,
        listener: Listener,
        service: Service,
        done: SyncSender<io::Result<()>>,
    },
    Remove {
        id: u64,
        done: SyncSender<bool>,
    },
    /// A connection of the port `id` whose bytes this thread moves from now on.
    Adopt {
        id: u64,
        conn: Box<Moved>,
    },
    /// End the event handler's connections that may not go on.
    Judge(Judge),
    /// Tell the event handler that something has changed.
    Change {
        done: SyncSender<()>,
    },
    Ping {
        done: SyncSender<()>,
    },
    Stop,
}

pub(crate) type Mailbox = crate::mailbox::Mailbox<Command>;

impl Mailbox {
    /// Gives the thread an open connection of the port `id`.
    pub(crate) fn hand_over(&self, id: u64, conn: Moved) -> io::Result<()> {
        let what = if id == OUTBOUND { Use::Out } else { Use::In };
        let conn = Box::new(conn);
        self.post_with(Command::Adopt { id, conn }, Held::default().with(what, 2))
    }
}
