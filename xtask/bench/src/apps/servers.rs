//! The servers of one route: PostgreSQL, Redis, nginx and an echo of datagrams, each with its own data.

use std::fs::{self, File};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use xtask_support::command;

use super::programs::Programs;
use crate::instance::serve;
use crate::machine::Machine;
use crate::process::{PROCESS_TIMEOUT, Process};
use crate::route::command_in;

/// Ports, behind those of the load generator's own servers.
pub(super) const POSTGRES: u16 = 5;
pub(super) const REDIS: u16 = 6;
pub(super) const NGINX: u16 = 7;

/// What nginx serves, as names and sizes in bytes.
pub(super) const FILES: [(&str, usize); 3] =
    [("1k", 1 << 10), ("100k", 100 << 10), ("10m", 10 << 20)];

/// The role that owns the database, which has the same name.
pub(super) const ROLE: &str = "postgres";

/// Fields end in this order.
#[derive(Debug)]
pub(super) struct Servers {
    _echo: Process,
    _apps: Vec<Server>,
}

/// A server that removes what it made when it is interrupted.
#[derive(Debug)]
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        // Nobody has waited for it yet, so the number is still its own.
        if matches!(self.0.try_wait(), Ok(None)) {
            let _ = kill(Pid::from_raw(self.0.id().cast_signed()), Signal::SIGINT);
        }
        let end = Instant::now() + PROCESS_TIMEOUT;
        while matches!(self.0.try_wait(), Ok(None)) {
            if Instant::now() > end {
                let _ = self.0.kill();
                let _ = self.0.wait();
                return;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

/// A new folder of the user.
fn folder(machine: &Machine, path: &Path) -> Result<()> {
    fs::create_dir(path).with_context(|| format!("making {}", path.display()))?;
    let account = machine.accounts.main();
    Ok(chown(path, Some(account.uid), Some(account.gid))?)
}

/// What every server's data begins as.
#[derive(Debug)]
pub(super) struct Data {
    postgres: PathBuf,
    www: PathBuf,
}

impl Data {
    /// Makes a database and files.
    pub(super) fn make(machine: &Machine, programs: &Programs, scale: u32) -> Result<Self> {
        let (postgres, www) = (machine.tmp().join("postgres"), machine.tmp().join("www"));
        folder(machine, &www)?;
        for (name, size) in FILES {
            fs::write(www.join(name), vec![b'x'; size])?;
        }
        let mut command = user(machine, programs, None, "initdb")?;
        command.arg("-D").arg(&postgres).args(["-U", ROLE, "-A", "trust", "-E", "UTF8"]);
        command::quietly(command.args(["--locale=C", "--no-sync"]))?;
        // Clients come from wherever the network driver says.
        let hba = "host all all 0.0.0.0/0 trust\nlocal all all trust\n";
        fs::write(postgres.join("pg_hba.conf"), hba)?;
        let this = Self { postgres, www };
        let port = 20_990;
        {
            let _server = this.start_postgres(machine, programs, None, &this.postgres, port)?;
            listening(None, port, "postgres", &this.postgres)?;
            let mut command = user(machine, programs, None, "pgbench")?;
            command.args(["-i", "-q", "-h", "127.0.0.1", "-p", &port.to_string(), "-U", ROLE]);
            let scale = scale.to_string();
            until_it_works(command.args(["-s", &scale, ROLE]))?;
            let mut stop = user(machine, programs, None, "pg_ctl")?;
            stop.arg("-D").arg(&this.postgres).args(["-m", "fast", "-w", "stop"]);
            command::quietly(&mut stop)?;
        }
        Ok(this)
    }

    fn start_postgres(
        &self,
        machine: &Machine,
        programs: &Programs,
        netns: Option<&str>,
        data: &Path,
        port: u16,
    ) -> Result<Server> {
        let mut command = user(machine, programs, netns, "postgres")?;
        command.arg("-D").arg(data).args(["-p", &port.to_string()]);
        for setting in [
            "listen_addresses=0.0.0.0",
            "unix_socket_directories=",
            "fsync=off",
            "shared_buffers=64MB",
            "max_connections=40",
            "autovacuum=off",
            "jit=off",
        ] {
            command.args(["-c", setting]);
        }
        spawn(command, &data.with_extension("log"))
    }

    /// Starts servers on the ports from `base` in a network namespace, or in the machine's own.
    pub(super) fn serve(
        &self,
        machine: &Machine,
        programs: &Programs,
        netns: Option<&str>,
        base: u16,
    ) -> Result<Servers> {
        let place = machine.tmp().join(format!("servers-{base}"));
        folder(machine, &place)?;
        let data = place.join("postgres");
        command::quietly(Command::new("cp").arg("-a").arg(&self.postgres).arg(&data))?;
        let mut apps =
            vec![self.start_postgres(machine, programs, netns, &data, base + POSTGRES)?];
        let mut redis = user(machine, programs, netns, "redis-server")?;
        redis.args(["--port", &(base + REDIS).to_string(), "--bind", "0.0.0.0"]);
        redis.args(["--protected-mode", "no", "--save", "", "--appendonly", "no", "--dir"]);
        redis.arg(&place);
        apps.push(spawn(redis, &place.join("redis.log"))?);
        let config = place.join("nginx.conf");
        fs::write(&config, nginx_config(&place, &self.www, base + NGINX))?;
        let mut nginx = user(machine, programs, netns, "nginx")?;
        nginx.arg("-e").arg("stderr").arg("-p").arg(&place).arg("-c").arg(&config);
        apps.push(spawn(nginx, &place.join("nginx.log"))?);
        let echo = serve(machine, base, netns)?;
        for (offset, name) in [(POSTGRES, "postgres"), (REDIS, "redis"), (NGINX, "nginx")] {
            listening(netns, base + offset, name, &place.join(name))?;
        }
        Ok(Servers { _echo: echo, _apps: apps })
    }
}

/// The configuration of an nginx of one process, whose end is the end of all of it.
fn nginx_config(place: &Path, www: &Path, port: u16) -> String {
    let (place, www) = (place.display(), www.display());
    let temporary = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"];
    let temporary: String =
        temporary.iter().map(|name| format!("{name}_temp_path {place}/{name};\n")).collect();
    format!(
        "daemon off;\nmaster_process off;\npid {place}/nginx.pid;\nerror_log stderr;\n\
         events {{ worker_connections 1024; }}\n\
         http {{\n{temporary}access_log off;\nsendfile on;\ntcp_nopush on;\nkeepalive_requests 100000000;\n\
         server {{ listen 0.0.0.0:{port}; root {www}; }}\n}}\n"
    )
}

/// A program as the ordinary user, in a network namespace or in the machine's own.
pub(super) fn user(
    machine: &Machine,
    programs: &Programs,
    netns: Option<&str>,
    program: &str,
) -> Result<Command> {
    let mut command = command_in(machine, netns, &programs.find(program)?)?;
    command.env("LD_LIBRARY_PATH", &programs.library_path).env("LC_ALL", "C");
    Ok(command)
}

fn spawn(mut command: Command, log: &Path) -> Result<Server> {
    let log = File::create(log).with_context(|| format!("making {}", log.display()))?;
    command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
    Ok(Server(command.spawn().context("starting a server")?))
}

/// Waits until a server listens.
fn listening(netns: Option<&str>, port: u16, name: &str, data: &Path) -> Result<()> {
    let end = Instant::now() + 3 * PROCESS_TIMEOUT;
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    loop {
        let tried = match netns {
            None => TcpStream::connect(address).map(drop).map_err(Into::into),
            Some(netns) => {
                crate::congestion::inside(netns, || Ok(TcpStream::connect(address).map(drop)?))
            }
        };
        let Err(error) = tried else { return Ok(()) };
        let log = fs::read_to_string(data.with_extension("log")).unwrap_or_default();
        ensure!(Instant::now() < end, "{name} does not listen: {error:#}: {}", log.trim());
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// A server that listens may not be ready yet.
fn until_it_works(command: &mut Command) -> Result<()> {
    let end = Instant::now() + PROCESS_TIMEOUT;
    loop {
        match command::quietly(command) {
            Ok(_) => return Ok(()),
            Err(error) if Instant::now() > end => return Err(error),
            Err(_) => std::thread::sleep(Duration::from_millis(100)),
        }
    }
}
