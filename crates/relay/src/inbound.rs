//! What goes from published ports into the namespace, for the event handler.

use std::net::SocketAddr;

use crate::slab::Key;
use crate::traffic::Attribution;

/// A connection or flow of a published port, for whoever finds out which container answers it.
#[derive(Clone, Debug)]
pub struct Inbound {
    /// Whether it is a flow of datagrams.
    pub udp: bool,
    /// The published port. A port that is published once more is another one.
    pub port: Key,
    /// Its end on this side, in the namespace's eyes.
    pub client: SocketAddr,
    /// What was connected to: the target of the port.
    pub server: SocketAddr,
    /// To be told which container answers.
    pub attribution: Attribution,
}
