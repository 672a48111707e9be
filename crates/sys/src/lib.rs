//! The only crate with unsafe code: system calls that neither std nor nix offers in a safe form.
//!
//! Each module is one kernel facility behind a small safe function that cites its man page. Policy
//! (what to mount, whom to signal, when to give up) lives elsewhere.

pub mod capture;
mod cmsg;
pub mod command;
pub mod fdpass;
pub mod inherit;
pub mod mmsg;
pub mod mount;
pub mod packet;
mod pages;
pub mod pidfd;
#[cfg(feature = "tokio")]
pub mod readable;
pub mod rlimit;
mod sockopt;
pub mod spawn;
pub mod tap;
pub mod wait;
pub mod whole;
pub mod xattr;
