//! `dockerd-rootless`, also installed as `dockerd-rootless.sh`: starts dockerd as an ordinary user.
//!
//! # Theory of operation
//! The program runs twice. The *parent* pass is what the user or systemd starts: it checks, decides, and
//! becomes rootlesskit with itself as the command to run. Rootlesskit makes the namespaces and starts the
//! *child* pass in them, which tidies the private `/etc` and `/run`, turns on packet forwarding and becomes
//! dockerd. Both become their successor by execve(2), so the process that systemd started is rootlesskit
//! itself: signals reach it, its exit status is the service's, and `LISTEN_PID` stays right.
//!
//! The program has no options: all arguments are dockerd's, which finds out by itself
//! (`ROOTLESSKIT_STATE_DIR`) that it is rootless. `--help` prints a summary of the variables in front of dockerd's help. The environment variables are those of Docker's own
//! launcher, see <https://docs.docker.com/engine/security/rootless/>.
//!
//! Exit status: 1 for a refusal, 127 when dockerd is missing, 126 when a program cannot be executed, and
//! otherwise that of rootlesskit, which passes on dockerd's. Messages go to standard error, one line each,
//! with a level.

mod child;
mod config;
mod dirs;
mod dns;
mod dockerd;
mod egress;
mod ending;
mod etc_ssl;
mod exec;
mod extra;
mod forwarding;
mod guard;
mod help;
mod host;
mod hostgateway;
mod leftover;
mod loopback;
mod netdriver;
mod parent;
mod pass;
mod plan;
mod removal;
mod report;
mod resolved;
mod selinux;
mod settings;
mod swarm;
#[cfg(test)]
mod tests;
mod ways;

use std::convert::Infallible;
use std::ffi::OsString;
use std::process::ExitCode;

use hostenv::Env;
use hostenv::vars;

use crate::pass::Pass;
use crate::report::Failure;

fn main() -> ExitCode {
    match run() {
        Ok(never) => match never {},
        Err(failure) => failure.report().into(),
    }
}

fn run() -> Result<Infallible, Failure> {
    let env = Env::current();
    let args: Vec<OsString> = std::env::args_os().skip(1).collect();
    if let Some(pids) = env.nonempty(vars::DOCKERD_ROOTLESS_END) {
        return ending::run(&pids.to_string_lossy());
    }
    match Pass::current(&env)? {
        Pass::Parent => parent::run(&env, args),
        Pass::Child => child::run(&env, &args),
    }
}
