//! The clients of rootlesskit: those that Debian ships, unmodified, and those it does not, replayed.
//!
//! A replay does what the client does: the same flags, files, environment and requests, in the client's order. Doc
//! comments say which fact a step stands for.

mod buildkit;
mod containerd;
mod docker;
mod k3s;
mod kit;
mod nerdctl;
mod options;
mod usernetes;
