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

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::UnixListener;

    use super::super::{Backend, BackendError, LineWriter, Lines, serve};
    use crate::types::{Info, PortId, PortSpec, PortStatus};

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(60);

    /// The ends that make the lines of all followers.
    #[derive(Default)]
    struct Log(RefCell<Vec<LineWriter>>);

    impl Backend for Log {
        fn info(&self) -> Result<Info, BackendError> {
            Ok(Info::default())
        }

        fn ports(&self) -> Result<Vec<PortStatus>, BackendError> {
            Err(BackendError::NoPortDriver)
        }

        async fn add(&self, _: PortSpec) -> Result<PortStatus, BackendError> {
            Err(BackendError::NoPortDriver)
        }

        async fn remove(&self, _: PortId) -> Result<(), BackendError> {
            Err(BackendError::NoPortDriver)
        }

        async fn flows(&self) -> Result<Lines, BackendError> {
            let (writer, lines) = Lines::new();
            self.0.borrow_mut().push(writer);
            Ok(lines)
        }
    }

    impl Log {
        fn write(&self, line: &'static [u8]) {
            self.0.borrow().iter().for_each(|writer| writer.write(&line.into()));
        }

        fn closed(&self) -> Vec<bool> {
            self.0.borrow().iter().map(LineWriter::is_closed).collect()
        }
    }

    async fn read_until(client: &mut UnixStream, end: &[u8]) {
        let mut seen = Vec::new();
        while !seen.ends_with(end) {
            seen.push(client.read_u8().await.unwrap());
        }
    }

    /// Some send a byte behind their request, which nobody reads, and some do not read what they get.
    #[tokio::test]
    async fn followers_that_go_are_noticed_and_others_stay() {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("s");
        let (listener, log) = (UnixListener::bind(&socket).unwrap(), Rc::<Log>::default());
        let test = async {
            let mut clients = Vec::new();
            for more in ["", "x", "", "x"] {
                let mut client = UnixStream::connect(&socket).await.unwrap();
                let request = format!("GET /v1/flows HTTP/1.1\r\nHost: x\r\n\r\n{more}");
                client.write_all(request.as_bytes()).await.unwrap();
                log.write(b"line\n");
                read_until(&mut client, b"\r\n\r\n").await;
                clients.push(client);
            }
            clients.drain(..2);
            while log.closed() != [true, true, false, false] {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            log.write(b"last\n");
            for client in &mut clients {
                read_until(client, b"last\n").await;
            }
        };
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let server = serve(listener, Rc::clone(&log), async { drop(stopped.await) });
        let test = async {
            tokio::time::timeout(PATIENCE, test).await.expect("in time");
            drop(stop);
        };
        tokio::join!(server, test);
    }
}
