//! A request to the gateway process and who waits for its reply.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use crate::control::{Reply, Request};

/// Takes the reply; `None` if the gateway ended, or was given up, before it came. Runs on the thread that
/// talks to the gateway: it must not block.
pub(super) type Done = Box<dyn FnOnce(Option<Reply>) + Send>;

pub(super) struct Job {
    pub(super) request: Request,
    pub(super) fds: Vec<Arc<OwnedFd>>,
    pub(super) done: Done,
}

impl Job {
    pub(super) fn new(request: Request, done: impl FnOnce(Option<Reply>) + Send + 'static) -> Self {
        Self { request, fds: Vec::new(), done: Box::new(done) }
    }
}
