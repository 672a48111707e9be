//! The harness: disposable Linux hosts ("boxes") in which the scenarios of `tests/tests/` run.
//!
//! # Theory of operation
//!
//! A box is a set of namespaces (mount, pid, net, uts, ipc, cgroup) over a Debian root file system that was made once
//! and cached ([`Rootfs`]). Everything that is written in it lands in a tmpfs that only the box sees, all its processes
//! are in one cgroup, and its network is a private one with a second machine, the *peer*, at the other end of a veth.
//! So a box starts in well under a second, several run next to each other with the same ports, and its end is one write
//! to `cgroup.kill`, also when the test panicked. If the whole test process is killed, the box follows (PDEATHSIG).
//!
//! ```text
//!   box, netns "host"                                 netns "peer"
//!   127.0.0.1:7001 fixture http "loopback"            10.77.0.2, fd77::2
//!   10.77.0.1, fd77::1  <------- veth -------------->  :53 DNS, :7000 fixture http "peer", default gateway
//!   user `tester`, uid 1001, subids, /run/user/1001
//! ```
//!
//! Several boxes can have a common network besides ([`Lan`]).
//!
//! What a box cannot have is a kernel of its own, with all of cgroup v2: for that there is a virtual machine ([`Vm`]).
//!
//! The host's `unshare`, `nsenter`, `setpriv` (util-linux) and one shell script ([`boxes`]) do the privileged steps: the
//! harness needs root but no unsafe code.
//!
//! # A test
//!
//! ```no_run
//! use tests::{Result, Suite, TestBox};
//!
//! fn the_target_is_root_in_its_own_user_namespace() -> Result<()> {
//!     let b = TestBox::boot(Suite::Sid)?;
//!     let out = b.user("rootlesskit --net=none id -u").ok()?;
//!     assert_eq!(out, "0\n");
//!     b.assert_clean(&[])
//! }
//! ```
//!
//! Tests are named for the behaviour that they show. Nothing sleeps for a fixed time:
//! [`wait::until`] waits for a condition and says what it waited for, [`PATIENCE`] at most. What a test needs for passing on
//! a busy machine is in `tests/README.md`. The variable `UNDER=theirs` runs the same suite
//! against Debian's own rootlesskit ([`Under`]), which tells a broken test from a broken product. `DOCKERD_UNDER_TEST=PATH`
//! gives the boxes of Debian sid another dockerd, with the `docker-proxy` that lies beside it: a newer release, or one
//! that you built ([`paths::DOCKERD_VARIABLE`]).

pub mod boxes;
mod cache;
mod cgroup;
mod clean;
pub mod clock;
pub mod containers;
pub mod docker;
pub mod egress;
pub mod exec;
pub mod install;
pub mod kit;
pub mod lan;
pub mod limits;
pub mod needs;
pub mod networks;
pub mod page;
pub mod paths;
pub mod procs;
pub mod rootfs;
pub mod snapshot;
pub mod vm;
pub mod wait;

pub use boxes::{Builder, TestBox};
pub use exec::{As, Cmd, Output, Running};
pub use install::{UPSTREAM_LAUNCHER, UPSTREAM_SETUPTOOL, Under};
pub use lan::Lan;
pub use rootfs::{Recipe, Rootfs, Suite, mirror};
pub use snapshot::Snapshot;
pub use vm::{Flavour, Kernel, Machine, Vm};
pub use wait::PATIENCE;

/// Results of harness calls and of tests.
pub type Result<T, E = anyhow::Error> = std::result::Result<T, E>;

pub use anyhow::{Context, Error, bail, ensure};
