//! `dockerd-rootless-setuptool`, also installed as `dockerd-rootless-setuptool.sh`: sets rootless Docker up for the user
//! who runs it, and says why when it cannot.
//!
//! # Theory of operation
//! The crate [`doctor`] looks at the host once and turns what it sees into findings with remedies. The verbs act on them:
//! `check` only prints, `install` goes on if nothing is fatal, and the other verbs do not ask.
//!
//! Exit status: 0, 1 for everything that this program finds wrong, the status of `docker` or `systemctl` where one of
//! them failed, and with `nsenter` that of the program.

mod activation;
mod apparmor;
mod check;
mod cli;
mod context;
mod install;
mod nsenter;
mod plan;
mod purge;
mod ready;
mod report;
mod run;
mod supervise;
mod swarm;
mod systemd;
mod ui;
mod uninstall;
mod write;

use std::ffi::OsString;
use std::process::ExitCode;

use doctor::facts::Facts;
use doctor::findings::Wish;
use doctor::place::World;
use doctor::probe;

use crate::cli::{Cli, Stop, Verb};
use crate::run::Failed;
use crate::ui::Ui;

fn main() -> ExitCode {
    let world = World::current();
    let mut ui = Ui::new(&world.env);
    let args: Vec<OsString> = std::env::args_os().skip(1).collect();
    match cli::parse(&args) {
        Ok(cli) => perform(&mut ui, &world, &cli).into(),
        Err(stop) => refuse(&mut ui, stop).into(),
    }
}

fn perform(ui: &mut Ui, world: &World, cli: &Cli) -> u8 {
    let look = |world: &World| Facts::gather(world, &probe::System::new(&world.env));
    let wish = Wish {
        install: cli.verb == Verb::Install,
        force: cli.force,
        skip_iptables: cli.skip_iptables,
    };
    let done: Result<(), Failed> = match &cli.verb {
        Verb::Check => return check::run(ui, world, &look(world), wish, cli.json),
        Verb::Install => {
            // What is about to be, and not what files say now.
            let mut ahead = world.clone();
            if let Some(choice) = &cli.swarm {
                ahead.env.set(hostenv::vars::DOCKERD_ROOTLESS_SWARM, choice.value());
            }
            install::run(ui, world, &look(&ahead), wish, cli)
        }
        Verb::Uninstall => uninstall::run(ui, world, cli.purge),
        Verb::Supervise { once } => supervise::daemon::run(ui, world, *once),
        Verb::Apparmor(file) => {
            apparmor::run(ui, world, file.as_deref(), cli.force, cli.print.is_some())
        }
        Verb::Delete(words) => purge::delete(ui, words),
        Verb::Nsenter(words) => nsenter::run(world, words).map(|never| match never {}),
    };
    let Err(failed) = done else { return 0 };
    failed.text.lines().for_each(|line| ui.error(line));
    failed.code
}

fn refuse(ui: &mut Ui, stop: Stop) -> u8 {
    match stop {
        Stop::Help(help) => {
            ui.plain(help.trim_end());
            0
        }
        Stop::Usage(message, help) => {
            ui.aside(&message);
            ui.plain(help.trim_end());
            1
        }
        Stop::Command(message) => {
            message.lines().for_each(|line| ui.error(line));
            1
        }
    }
}
