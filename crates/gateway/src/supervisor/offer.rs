//! Offering a port to a gateway, again if need be.
//!
//! Whoever publishes a port does not wait for a slow gateway. If such a gateway refuses in the end, the port is listed
//! and nobody serves it; what was short, a descriptor or memory, may be there a moment later. So the port is offered
//! again with each check of the gateway's health, until it is served or withdrawn.

use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Weak};

use ipnet::IpNet;

use super::job::Job;
use crate::control::{Reply, Request};

/// A port as the supervisor knows it.
#[derive(Debug)]
pub(super) struct Port {
    pub(super) udp: bool,
    pub(super) target: SocketAddr,
    pub(super) allow_from: Vec<IpNet>,
    pub(super) name: String,
    pub(super) listener: Arc<OwnedFd>,
}

/// A port to be served. It does not keep the listener open.
pub(super) struct Offer {
    pub(super) id: u64,
    pub(super) port: Weak<Port>,
}

impl Offer {
    /// The name of the port, `None` if it is not published any more.
    pub(super) fn name(&self) -> Option<String> {
        Some(self.port.upgrade()?.name.clone())
    }

    /// The job to serve the port; `None` if it is not published any more. `done` gets the offer back with the reply.
    pub(super) fn job(
        self,
        done: impl FnOnce(Self, Option<Reply>) + Send + 'static,
    ) -> Option<Job> {
        let port = self.port.upgrade()?;
        let request = Request::Publish {
            id: self.id,
            udp: port.udp,
            target: port.target,
            allow_from: port.allow_from.clone(),
            name: port.name.clone(),
        };
        let fds = vec![Arc::clone(&port.listener)];
        Some(Job { request, fds, done: Box::new(move |reply| done(self, reply)) })
    }
}
