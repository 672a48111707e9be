//! A connection that hyper reads and writes, and that somebody else may look at meanwhile.

use std::io;
use std::net::Shutdown;
use std::os::fd::AsFd as _;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::UnixStream;

/// Time between two looks at a client whose answer goes on. An event would take another descriptor, or would come as long as
/// there are bytes that nobody reads.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// A connection. Clones are the same one.
#[derive(Clone, Debug)]
pub(super) struct Stream(Rc<UnixStream>);

impl Stream {
    pub(super) fn new(stream: UnixStream) -> Self {
        Self(Rc::new(stream))
    }

    /// Waits until the client is gone. hyper notices that itself while it reads, which it does not do in the middle of an
    /// answer if the client has sent something behind its request.
    pub(super) async fn hung_up(&self) {
        loop {
            let mut fds = [PollFd::new(self.0.as_fd(), PollFlags::empty())];
            // POLLHUP and POLLERR are told in any case.
            if poll(&mut fds, PollTimeout::ZERO).is_ok() && fds[0].any() == Some(true) {
                return;
            }
            tokio::time::sleep(LOOK_INTERVAL).await;
        }
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            ready!(self.0.poll_read_ready(cx))?;
            match self.0.try_read(buf.initialize_unfilled()) {
                Ok(length) => {
                    buf.advance(length);
                    return Poll::Ready(Ok(()));
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                Err(e) => return Poll::Ready(Err(e)),
            }
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        loop {
            ready!(self.0.poll_write_ready(cx))?;
            match self.0.try_write(bytes) {
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                outcome => return Poll::Ready(outcome),
            }
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(SockRef::from(&*self.0).shutdown(Shutdown::Write))
    }
}
