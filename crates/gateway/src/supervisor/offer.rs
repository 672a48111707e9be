//! Offering a port to a gateway, again if need be.
//!
//! Whoever publishes a port does not wait for a slow gateway. If such a gateway refuses in the end, the port is listed
//! and nobody serves it; what was short, a descriptor or memory, may be there a moment later. So the port is offered
//! again with each check of the gateway's health, until it is served or withdrawn.

use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Weak};

use tracing::{debug, info};

use super::line::{Job, Shared};
use crate::control::{Reply, Request};

/// A port as the supervisor knows it.
#[derive(Debug)]
pub(super) struct Port {
    pub(super) udp: bool,
    pub(super) target: SocketAddr,
    pub(super) name: String,
    pub(super) listener: Arc<OwnedFd>,
}

/// A port to be served. It does not keep the listener open.
pub(super) struct Offer {
    pub(super) id: u64,
    pub(super) port: Weak<Port>,
}

impl Offer {
    /// Asks the gateway to serve it. `refused` takes the answer and says whether it is a refusal that nobody else hears
    /// of. `None` if the port is not published any more.
    pub(super) fn job(
        self,
        line: &Arc<Shared>,
        refused: impl FnOnce(Option<Reply>) -> bool + Send + 'static,
    ) -> Option<Job> {
        let port = self.port.upgrade()?;
        let (id, name) = (self.id, port.name.clone());
        let request = Request::Publish { id, udp: port.udp, target: port.target, name };
        let line = Arc::downgrade(line);
        let done = move |reply| {
            if refused(reply)
                && let Some(line) = line.upgrade()
            {
                line.refused(self);
            }
        };
        Some(Job { request, fds: vec![Arc::clone(&port.listener)], done: Box::new(done) })
    }

    pub(super) fn again(self, line: &Arc<Shared>) -> Option<Job> {
        let name = self.port.upgrade()?.name.clone();
        self.job(line, move |reply| match reply {
            Some(Reply::Failed(why)) => {
                debug!("the gateway still does not serve {name}: {why}");
                true
            }
            Some(_) => {
                info!("the gateway serves {name} now");
                false
            }
            // Its successor is told.
            None => false,
        })
    }
}
