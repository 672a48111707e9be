//! `cargo xtask demo`: a real dockerd, started by an ordinary user through our binaries, on this machine.
//!
//! # Theory of operation
//! Two processes. The outer one makes sure of the prerequisites, builds, and starts the inner one in a process group of
//! its own, holding the write end of its standard input. The inner one does the work and the cleaning up. When the
//! outer one goes, by Ctrl-C or in any other way, the inner one reads the end of its input and cleans up all the same.
//!
//! Everything lies in one temporary folder: the binaries, the image, HOME, `XDG_RUNTIME_DIR`, Docker's data. As root
//! the inner process has a mount namespace of its own, so that a `/dev/net/tun` which ordinary users cannot open
//! is replaced in there and nothing changes on the machine.

mod daemon;
mod user;
mod web;

use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use xtask_support::host::{self, Need};
use xtask_support::stages::{self, Stages};
use xtask_support::{cargo, command};

use daemon::Daemon;
use user::User;

/// Set when the outer process is gone.
static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// Fails once the demo was interrupted; called between steps and in every wait.
fn go_on() -> Result<()> {
    ensure!(!INTERRUPTED.load(Ordering::Relaxed), "interrupted");
    Ok(())
}

/// The programs that the demo runs.
const BINARIES: [&str; 4] =
    ["rootlesskit", "rootlessctl", "rootlesskit-docker-proxy", "dockerd-rootless"];

/// The packages of the workspace that they are in.
const PACKAGES: [&str; 3] = ["rootlesskit", "rootlesskit-docker-proxy", "dockerd-rootless"];

/// The profile that they are built with here: the demo shows what the programs do, not how fast they are.
const PROFILE: &str = "demo";

/// Programs the demo uses beside our own. Since Debian 13 the client is a package of its own.
fn needs() -> Vec<Need> {
    let release = std::fs::read_to_string("/etc/os-release").unwrap_or_default();
    let twelve = release.lines().any(|line| line == "VERSION_ID=\"12\"");
    vec![
        ("dockerd", "docker.io"),
        ("docker", if twelve { "docker.io" } else { "docker-cli" }),
        ("newuidmap", "uidmap"),
        ("newgidmap", "uidmap"),
        ("slirp4netns", "slirp4netns"),
        ("iptables", "iptables"),
        ("busybox", "busybox-static"),
        ("setpriv", "util-linux"),
        ("unshare", "util-linux"),
        ("tar", "tar"),
    ]
}

pub(crate) fn run() -> Result<()> {
    let mut stages = Stages::new(stages::WATCHED);
    stages.run("prerequisites", || {
        let had_docker = host::find("dockerd").is_some();
        host::ensure_programs(&needs())?;
        if !had_docker {
            eprintln!(
                "note: the package of dockerd also has a system-wide service; it was not started, but the next boot\n\
                 does (sudo systemctl disable docker.service docker.socket)"
            );
        }
        ensure!(
            std::fs::read_to_string("/proc/self/mounts")?.lines().any(|l| l.contains(" cgroup")),
            "no cgroup hierarchy is mounted, and no container runs without\n\
             hint: mount -t cgroup2 cgroup2 /sys/fs/cgroup"
        );
        Ok(())
    })?;
    stages.run("build", || {
        let packages = PACKAGES.iter().flat_map(|package| ["--package", package]);
        command::visibly(cargo::build(PROFILE)?.args(packages))
    })?;
    stages.run("rootless Docker", || {
        let own = std::env::current_exe()?;
        let mut command = if host::euid()? == 0 {
            let mut command = Command::new("unshare");
            // "slave": mounts of the machine still arrive, those of the demo do not leave.
            command.args(["--mount", "--propagation", "slave"]).arg(own);
            command
        } else {
            Command::new(own)
        };
        command.args(["demo", "--inner"]).stdin(Stdio::piped()).process_group(0);
        let mut child = command.spawn().context("starting the inner demo")?;
        // Held until the child ended; its end is the signal to stop (see above).
        let _alive = child.stdin.take();
        let status = child.wait()?;
        ensure!(status.success(), "the demo failed");
        Ok(())
    })?;
    stages.print();
    Ok(())
}

pub(crate) fn inner(args: &[&str]) -> Result<()> {
    ensure!(args.is_empty(), "unexpected arguments {args:?}");
    std::thread::spawn(|| {
        let _ = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
        INTERRUPTED.store(true, Ordering::Relaxed);
    });
    let user = User::choose()?;
    let shown = show(&user);
    let cleaned = user.remove();
    if cleaned.is_ok() {
        println!("left behind: nothing (packages that were installed stay)");
    }
    shown.and(cleaned)
}

/// What is shown, from top to bottom.
fn show(user: &User) -> Result<()> {
    println!("user:      {}", user.description());
    user.ensure_tun()?;
    let daemon = Daemon::start(user)?;
    let shown = containers(&daemon);
    let stopped = daemon.stop();
    if INTERRUPTED.load(Ordering::Relaxed) {
        return shown;
    }
    if let Err(error) = shown {
        return Err(error.context(format!("the daemon's log ends with:\n{}", user.log_tail())));
    }
    stopped
}

fn containers(daemon: &Daemon<'_>) -> Result<()> {
    let version = daemon.docker("version --format {{.Server.Version}}")?;
    println!("dockerd:   {}, {}", version.trim(), daemon.identity()?);
    println!("security:  {}", daemon.docker("info --format {{.SecurityOptions}}")?.trim());
    println!("ports by:  {}", daemon.rootlesskit()?);

    daemon.import_image()?;
    let port = web::free_port()?;
    daemon.docker(&format!("run -d --name web -p {port}:80 demo /bin/httpd -f -p 80 -h /www"))?;
    println!("container: web, port {port} of the host leads to its port 80");
    for address in web::host_addresses(port) {
        let page = daemon::wait("the published port answers", Duration::from_secs(15), || {
            Ok(web::fetch(address).ok())
        })?;
        println!("answer:    http://{address}/ says {:?}", page.trim());
    }

    let outside = web::Outside::listen()?;
    let (ip, port) = (outside.address().ip(), outside.address().port());
    let answer =
        daemon.docker_with_input(&format!("exec -i web /bin/nc {ip} {port}"), web::REQUEST)?;
    let answer = web::body(&answer).context("the way out: no answer from the host's server")?;
    println!("way out:   from the container, http://{ip}:{port}/ says {:?}", answer.trim());
    daemon.docker("rm -f web")?;
    Ok(())
}
