//! From spawn to the first byte that the target writes.

use std::fs::File;
use std::io::Read as _;
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, ensure};

use crate::machine::Machine;
use crate::process::Process;
use crate::procs;
use crate::rounds::{Bench, Values};
use crate::sheet::Side;

/// The network drivers that are timed.
const DRIVERS: [&str; 4] = ["host", "none", "slirp4netns", "pasta"];

pub(crate) fn run(bench: &mut Bench<'_>) -> Result<()> {
    let machine = bench.machine;
    let drivers = DRIVERS.iter().filter(|name| **name != "pasta" || machine.pasta.is_some());
    for driver in drivers {
        eprintln!("    --net={driver}, {} rounds", bench.options.starts());
        // The first of each reads the program from disk.
        for round in 0..=bench.options.starts() {
            let mut sides = [Side::Ours, Side::Theirs, Side::Floor];
            sides.rotate_left(round % 3);
            for side in sides {
                if side == Side::Theirs && driver == &"none" && !machine.theirs_has_none {
                    if round == 0 {
                        let reason = "theirs has no --net=none, which came after 2.0".to_owned();
                        bench.sheet.miss("start.none", side, None, reason);
                    }
                    continue;
                }
                let take = || match side {
                    Side::Floor => floor(machine, driver),
                    _ => ready(machine, side, driver),
                };
                if round == 0 {
                    let _ = take();
                    continue;
                }
                let row = format!("start.{driver}");
                bench.enter(&row, side, round, || Ok(vec![("", take()?)]) as Result<Values>)?;
            }
        }
    }
    Ok(())
}

/// Milliseconds until the first byte on a command's standard output.
fn first_byte(command: &mut Command) -> Result<(f64, Process)> {
    let started = Instant::now();
    let mut process = Process::start(command)?;
    process.line().context("no word from the target")?;
    Ok((started.elapsed().as_secs_f64() * 1e3, process))
}

fn ready(machine: &Machine, side: Side, driver: &str) -> Result<f64> {
    let program = if side == Side::Ours { &machine.ours } else { &machine.theirs };
    let mut command = machine.command(&program.path);
    command.arg(format!("--net={driver}")).args(["echo", "ready"]);
    let log = machine.path("start.log");
    let (time, process) = first_byte(command.stderr(File::create(&log)?))
        .with_context(|| std::fs::read_to_string(&log).unwrap_or_default().trim().to_owned())?;
    process.finished()?;
    Ok(time)
}

/// unshare(1) with the same namespaces, and the network helper, which does not know of rootlesskit.
fn floor(machine: &Machine, driver: &str) -> Result<f64> {
    let mut command = machine.command("unshare");
    command.args(["-r", "--map-auto", "--mount"]);
    if driver != "host" {
        command.arg("--net");
    }
    command.args(["sh", "-c", "echo ready; exec cat"]);
    let (time, holder) = first_byte(&mut command)?;
    // The shell becomes cat(1) a moment after it spoke.
    let pid = holder.pid().to_string();
    let helper = match driver {
        "slirp4netns" => slirp4netns(machine, &pid)?,
        "pasta" => pasta(machine, &pid)?,
        _ => 0.0,
    };
    Ok(time + helper)
}

fn slirp4netns(machine: &Machine, pid: &str) -> Result<f64> {
    let mut command = machine.command(&machine.slirp4netns.path);
    // It says "1" on descriptor 1 when it is ready, and ends when descriptor 0 does.
    command.args(["--configure", "--mtu=65520", "--ready-fd=1", "--exit-fd=0", pid, "tap0"]);
    command.stderr(Stdio::null());
    let started = Instant::now();
    let mut process = Process::start(&mut command)?;
    let mut word = [0];
    process.output()?.read_exact(&mut word).context("slirp4netns does not become ready")?;
    Ok(started.elapsed().as_secs_f64() * 1e3)
}

fn pasta(machine: &Machine, pid: &str) -> Result<f64> {
    let tool = machine.pasta.as_ref().context("there is no pasta")?;
    let file = machine.tmp().join("pasta.pid");
    let mut command = machine.command(&tool.path);
    command.args(["--config-net", "-t", "none", "-u", "none", "--pid"]).arg(&file).arg(pid);
    command.stdout(Stdio::null()).stderr(Stdio::null());
    let started = Instant::now();
    // It goes to the background when it is ready.
    let status = command.status()?;
    let time = started.elapsed().as_secs_f64() * 1e3;
    ensure!(status.success(), "pasta: {status}");
    let background: i32 = std::fs::read_to_string(&file)?.trim().parse()?;
    let process = sys::pidfd::PidFd::open(nix::unistd::Pid::from_raw(background))?;
    ensure!(
        procs::owner(background) == Some(machine.accounts.main().uid),
        "{background} is not our pasta"
    );
    process.kill()?;
    Ok(time)
}
