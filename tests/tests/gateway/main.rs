//! The gateway network without Docker, in boxes.
//!
//! What it promises: failures look as they do on the host, streams arrive whole, names follow the host, what is closed
//! stays closed, a dead gateway process is replaced, and a hostile program inside harms nobody else.

mod attack;
mod attribution;
mod badinput;
mod datagrams;
mod descriptors;
mod dns;
mod egress;
mod failures;
mod flags;
mod flows;
mod hung;
mod isolation;
mod overlay;
mod ping;
mod ports;
mod process;
mod restart;
mod soak;
mod storm;
mod streams;

use tests::kit;
