//! `cargo xtask bench`: our rootlesskit, the Go program and a few measuring sticks, in one interleaved run.
//!
//! # Theory of operation
//! Two processes. The outer one checks, builds and starts the inner one in a process group of its own, holding the
//! write end of its standard input; when the outer one goes in any way, the inner one reads the end of its input,
//! stops before the next sample and cleans up.
//!
//! The inner one moves into network and mount namespaces of its own ([`machine`]), makes an ordinary user, and runs the
//! parts. A part starts every side afresh ([`instance`]): a forwarder, with a server in the namespace behind it, on
//! ports of its own. Then it goes round ([`rounds`]): each side is measured once per round. Ratios are taken within a
//! round and their median is what counts, because absolute figures of a shared machine mean little. Samples during
//! which the rest of the machine took more than a tenth of the processors are left out where enough others remain.
//!
//! Every namespace has the same congestion control ([`congestion`]); `--congestion` with two names compares them
//! ([`compare`]). The part `apps` runs real programs ([`apps`]).
//!
//! The part `speed` measures whole configurations side by side ([`speed`]).
//!
//! The parts `net-*` measure the way out of a namespace and of a container in it ([`net`]), likewise interleaved.
//! The part `policy` measures what an egress policy costs there ([`net::policy`]), the part `fairness` what a container
//! that floods costs another one ([`net::fairness`]).
//!
//! The part `overlay` measures VXLAN between two hosts ([`overlay`]).
//!
//! Load and servers are `loadgen`, a package of its own; it checks every answer.

mod account;
mod api;
mod apps;
mod compare;
mod congestion;
mod instance;
mod layout;
mod machine;
mod memory;
mod net;
mod options;
mod overlay;
mod plot;
mod process;
mod procs;
mod report;
mod requests;
mod results;
mod rounds;
mod route;
mod script;
mod sheet;
mod speed;
mod start;
mod streams;
mod tcp;
mod tools;
mod udp;
mod units;

use std::os::unix::process::CommandExt as _;
use std::process::{Command, ExitCode, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Result, ensure};
use xtask_support::host::{self, Need};
use xtask_support::stages::{self, Stages};
use xtask_support::{cargo, command};

use machine::Machine;
use options::Options;
use results::Results;
use rounds::Bench;
use sheet::Sheet;

/// Set when the outer process is gone.
static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// Fails once the benchmark was interrupted; called before every sample.
fn go_on() -> Result<()> {
    ensure!(!INTERRUPTED.load(Ordering::Relaxed), "interrupted");
    Ok(())
}

const NEEDS: &[Need] = &[
    ("ip", "iproute2"),
    ("unshare", "util-linux"),
    ("nsenter", "util-linux"),
    ("newuidmap", "uidmap"),
    ("newgidmap", "uidmap"),
    ("slirp4netns", "slirp4netns"),
    ("useradd", "passwd"),
];

/// What containers behind a bridge need besides.
const NET_NEEDS: &[Need] = &[("iptables", "iptables"), ("setpriv", "util-linux")];

/// What enters a namespace as the ordinary user.
const ROUTE_NEEDS: &[Need] = &[("setpriv", "util-linux")];

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let result = match args.as_slice() {
        ["--inner", rest @ ..] => inner(rest),
        _ => run(&args),
    };
    command::exit_code(&result)
}

fn run(args: &[&str]) -> Result<()> {
    let options = Options::parse(args)?;
    if let Some(file) = &options.plot {
        let images = || Ok::<_, anyhow::Error>(cargo::workspace()?.join("docs/images"));
        return plot::run(file, &options.out.clone().map_or_else(images, Ok)?);
    }
    ensure!(
        host::euid()? == 0,
        "the benchmark makes an account and namespaces and reads the memory of others, which needs root\n\
         hint: sudo --preserve-env=PATH cargo xtask bench"
    );
    host::ensure_programs(NEEDS)?;
    if options.compares() || options.wants(options::APPS) {
        host::ensure_programs(ROUTE_NEEDS)?;
    }
    if options.wants(options::APPS) {
        apps::fetch()?;
    }
    if options.wants_containers() {
        host::ensure_programs(NET_NEEDS)?;
    }
    build(&options)?;
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["--inner"]).args(args).stdin(Stdio::piped()).process_group(0);
    let mut child = command.spawn().context("starting the inner benchmark")?;
    // Held until the child ended; its end is the signal to stop (see above).
    let _alive = child.stdin.take();
    let status = child.wait()?;
    ensure!(status.success(), "the benchmark failed");
    Ok(())
}

/// Builds what is measured and what measures, as released.
fn build(options: &Options) -> Result<()> {
    let mut command = cargo::build("release")?;
    // Where one program is named, cargo builds none that is not.
    command.args(["-p", "loadgen", "--bin", "loadgen"]);
    if options.ours.is_none() {
        command.args(["-p", "rootlesskit", "--bin", "rootlesskit"]);
    }
    command::visibly(&mut command)
}

fn inner(args: &[&str]) -> Result<()> {
    let options = Options::parse(args)?;
    machine::leave()?;
    std::thread::spawn(|| {
        let _ = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
        INTERRUPTED.store(true, Ordering::Relaxed);
    });
    let machine = Machine::prepare(&options)?;
    let date = results::now();
    let mut sheet = Sheet::default();
    let measured = measure(&machine, &options, &mut sheet);
    print(&machine, &options, &sheet);
    let error = measured.as_ref().err().map(|error| format!("{error:#}"));
    let kept = keep(&Results::of(&machine, &options, &sheet, &date, error), &options);
    let cleaned = machine.remove();
    measured?;
    kept?;
    cleaned
}

type Part = fn(&mut Bench<'_>) -> Result<()>;

fn measure(machine: &Machine, options: &Options, sheet: &mut Sheet) -> Result<()> {
    for line in machine.description() {
        eprintln!("{line}");
    }
    let parts: [(&str, Part); 17] = [
        ("start", start::run),
        ("tcp", tcp::run),
        ("conn", requests::connections),
        ("keepalive", requests::keepalive),
        ("udp", udp::run),
        ("memory", memory::run),
        (options::SPEED, speed::run),
        ("net-tcp", net::tcp),
        ("net-udp", net::udp),
        ("net-requests", net::keepalive),
        ("net-conn", net::connections),
        ("net-published", net::published),
        ("net-memory", net::memory),
        (options::OVERLAY, overlay::run),
        (options::APPS, apps::run),
        (options::POLICY, net::policy::run),
        (options::FAIRNESS, net::fairness::run),
    ];
    let mut stages = Stages::new(stages::LOGGED);
    for (name, part) in parts {
        if options.wants(name) {
            sheet.begin(name);
            stages.run(name, || part(&mut Bench { machine, options, sheet }))?;
        }
    }
    if options.compares() {
        sheet.begin("congestion");
        let name = format!("congestion control {}", options.congestion.join(" and "));
        stages.run(&name, || compare::run(&mut Bench { machine, options, sheet }))?;
    }
    stages.print();
    Ok(())
}

/// Writes the results to the file that was named, or to one that is named for the date.
fn keep(results: &Results, options: &Options) -> Result<()> {
    let path = match &options.json {
        Some(path) => path.clone(),
        None => results::default_file(&cargo::target()?, &results.date),
    };
    results.write(&path)?;
    eprintln!("results: {}", path.display());
    Ok(())
}

fn print(machine: &Machine, options: &Options, sheet: &Sheet) {
    let description = machine.description();
    let notes = machine.notes();
    let bullet = if options.markdown { "- " } else { "" };
    for line in description.iter().chain(&notes) {
        println!("{bullet}{line}");
    }
    let table = report::table(sheet, machine.theirs.number(), options.markdown);
    if !table.is_empty() {
        let (reached, goals) = report::reached(sheet);
        println!(
            "\n{table}\n\
             {reached} of {goals} goals reached. Medians; ratios are medians over rounds (min–max), above 1 is better. \
             ~ the rest of the machine was busy.\n\
             Baselines: floor, unshare(1) and the network helper alone; splice, a bare splice(2) proxy between the \
             namespaces; pasta, its implicit ports without rootlesskit; loopback, no forwarder at all."
        );
    }
    print!("{}", speed::report(sheet, machine.theirs.number(), options.markdown));
    print!("{}", net::report(sheet, options.markdown));
    print!("{}", overlay::report(sheet, options.markdown));
    print!("{}", apps::report(sheet, options.markdown));
    print!("{}", net::policy::report(sheet, options.markdown));
    print!("{}", net::fairness::report(sheet, options.flood_rate(), options.markdown));
    print!("{}", compare::report(sheet, &options.congestion, options.markdown));
}
