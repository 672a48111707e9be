//! The builtin port driver's data path: published ports to sockets inside the namespace.
//!
//! # Theory of operation
//!
//! A socket belongs for life to the network namespace it was made in, whoever holds it. So the two
//! halves of a forwarded connection can live in one process: the accepted socket of the host's
//! namespace and a backend socket of the child's. Only *making* the second one needs a thread in there:
//!
//! ```text
//!   host namespace (parent process)             child's network namespace
//!   ┌──────────────────────────────┐            ┌───────────────────────┐
//!   │ thread "ports": Engine       │  kind, n   │ factory::serve        │
//!   │  epoll: listeners, TCP, UDP  │ ─────────▶ │ socket(2) × n         │
//!   │  pool of ready sockets       │ ◀───────── │                       │
//!   └──────────────────────────────┘ SCM_RIGHTS └───────────────────────┘
//! ```
//!
//! * [`factory`] makes unconnected sockets in batches; `pool` asks for them ahead of use, so
//!   a new connection costs no round trip. The parent owns the child's user namespace and thereby has
//!   every capability over the sockets of its network namespace: it sets options, binds, connects.
//! * One event loop serves every port. Nothing in it blocks; a port costs a listener and a table entry.
//! * `tcp` accepts, connects (with retries) and drives two `direction`s per
//!   connection. A direction copies through one shared buffer until it proves to be bulk, then it splices
//!   through a pipe that it borrows from `pipe` and gives back whenever it is empty.
//! * Streams that have moved a lot while others do too are dealt out to further threads, each with an event
//!   loop of the same kind but without ports: one thread alone would wake every receiver on another processor.
//! * Connections that an event handler has begun can be judged anew while they go on ([`Judge`]), whichever thread has
//!   them.
//! * `udp` keeps a flow per client address, moves datagrams in batches and answers from the
//!   address that was asked.
//! * Epoll is edge-triggered for connections (registered once, never modified; readiness is remembered
//!   in each direction) and level-triggered for everything else.
//!
//! Every resource has a bound: descriptors ([`room`] shares them out, [`budget`] says how many), bytes kept for slow
//! readers, datagrams and connections that wait for a socket, pipes, flows, time to connect.

mod client_address;
mod command;
pub mod congestion;
mod connect_outcome;
mod ctx;
pub mod datagrams;
mod direction;
mod early;
mod engine;
pub mod event_handler;
pub mod factory;
pub mod flow_log;
mod inbound;
mod judge;
mod kept;
pub mod listen;
mod mailbox;
mod options;
pub mod order;
pub mod overlay;
mod pipe;
mod pool;
mod reactor;
pub mod room;
mod self_connection;
mod service;
pub mod slab;
mod stock;
mod sync;
mod tcp;
#[cfg(test)]
mod testing;
mod timers;
mod total;
mod traffic;
mod udp;
pub mod wake;

pub use client_address::make_transparent;
pub use connect_outcome::connect_outcome;
pub use engine::Engine;
pub use event_handler::{EventHandler, EventLoop};
pub use inbound::Inbound;
pub use judge::{Judge, RuleName};
pub use listen::{Listener, Proto};
pub use options::{Options, Transparent, UDP_FLOW_IDLE_TIMEOUT};
pub use self_connection::refuse_self_connection;
pub use service::{AllowList, Service};
pub use traffic::{Attribution, Counted, Opened, Traffic};
