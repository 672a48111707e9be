//! What a capture of packets is made of: which packets are wanted, their checksums, the file.
//!
//! # Theory of operation
//! * [`Filter`] becomes a program that the kernel runs for each frame of a link, so that what is not wanted costs
//!   nothing.
//! * [`checksum`] finishes what a sender of this machine leaves to a network card that is not there.
//! * [`pcapng`] writes frames as Wireshark reads them.
//!
//! Pure: no sockets, no files, no clock. `sys::capture` reads frames, and rootlessctl does the rest.

pub mod checksum;
mod filter;
pub mod pcapng;

pub use filter::Filter;
