//! Booting, entering and ending a box.
//!
//! The file is long because a test host has one owner from its boot to its end.

use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context, Result, bail, ensure};

use crate::cgroup::Group;
use crate::clean::Baseline;
use crate::procs::{self, Proc};
use crate::{As, Cmd, PATIENCE, Rootfs, Suite, Under, install, paths, wait};

/// The script that turns fresh namespaces into a host.
const INIT: &str = include_str!("init.sh");

/// What names of work folders and cgroups start with.
const PREFIX: &str = "box-";

/// What a box is to be like.
#[derive(Debug, Clone)]
pub struct Builder {
    suite: Suite,
    under: Under,
    tun_mode: u32,
    pasta: Option<Suite>,
    systemd: bool,
    debians_dockerd: bool,
}

impl Builder {
    /// Keeps Debian's dockerd, whatever [`DOCKERD_VARIABLE`](crate::paths::DOCKERD_VARIABLE) says.
    #[must_use]
    pub fn debians_dockerd(mut self) -> Self {
        self.debians_dockerd = true;
        self
    }

    /// Makes systemd its PID 1, with a lingering service manager and a bus for the user. Takes a second or two more.
    ///
    /// The user's home is empty then: docker's data folder is not there yet. The mode of `/dev/net/tun` is what systemd
    /// makes of it.
    #[must_use]
    pub fn systemd(mut self) -> Self {
        self.systemd = true;
        self
    }

    /// Replaces pasta by that of another suite.
    #[must_use]
    pub fn pasta_of(mut self, suite: Suite) -> Self {
        self.pasta = Some(suite);
        self
    }

    /// Whose rootlesskit it gets; by default what the variable `UNDER` says.
    #[must_use]
    pub fn under(mut self, under: Under) -> Self {
        self.under = under;
        self
    }

    /// Mode of `/dev/net/tun`; 0666 by default, 0600 on machines without udev.
    #[must_use]
    pub fn tun_mode(mut self, mode: u32) -> Self {
        self.tun_mode = mode;
        self
    }

    /// Starts it and waits until it is ready.
    ///
    /// # Errors
    /// Not root, no cgroup v2, no root file system, or a step of its start failed (the message holds the script's
    /// output).
    pub fn boot(self) -> Result<TestBox> {
        ensure!(
            nix::unistd::geteuid().is_root(),
            "boxes need root\nhint: run `cargo xtask test` as root"
        );
        let rootfs = Rootfs::get(self.suite)?;
        let work = tempfile::Builder::new().prefix(PREFIX).tempdir()?;
        let name = work
            .path()
            .file_name()
            .context("name of the work folder")?
            .to_string_lossy()
            .into_owned();
        let group = Group::create(&name)?;
        let mut log = tempfile::tempfile()?;
        // PDEATHSIG and --kill-child: the box ends with the thread that booted it, whatever ends that one.
        let child = Command::new("sh")
            .args(["-c", r#"echo $$ > "$0/cgroup.procs" && exec "$@""#])
            .arg(group.path())
            .args("setpriv --pdeathsig KILL unshare --mount --pid --net --uts --ipc".split(' '))
            .args("--cgroup --fork --kill-child --propagation private bash -c".split(' '))
            .args([INIT, "box"])
            .env_clear()
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .env("TERM", "dumb")
            .env("LOWER", rootfs.path())
            .env("WORK", work.path())
            .env("TUN", format!("{:o}", self.tun_mode))
            .env("SYSTEMD", if self.systemd { "1" } else { "0" })
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log.try_clone()?)
            .spawn()
            .context("starting a box")?;
        let mut tb = TestBox {
            suite: self.suite,
            under: self.under,
            init: 0,
            depth: 0,
            counter: AtomicU32::new(0),
            baseline: Baseline::default(),
            child,
            group,
            _work: work,
        };
        let dockerd = match self.suite {
            Suite::Sid if !self.debians_dockerd => paths::dockerd_under_test()?,
            _ => None,
        };
        if let Err(error) = tb.finish_boot(self.pasta, self.systemd, dockerd.as_deref()) {
            let mut text = String::new();
            std::io::Seek::rewind(&mut log)?;
            log.read_to_string(&mut text)?;
            return Err(
                error.context(format!("a box of {} does not boot: {text}", self.suite.name()))
            );
        }
        Ok(tb)
    }
}

/// A disposable host. It ends when this value is dropped.
#[derive(Debug)]
pub struct TestBox {
    suite: Suite,
    under: Under,
    init: i32,
    depth: usize,
    counter: AtomicU32,
    baseline: Baseline,
    child: Child,
    // Order matters: the group's drop ends every process before the work folder goes.
    group: Group,
    _work: tempfile::TempDir,
}

impl TestBox {
    /// A box with the usual properties.
    ///
    /// # Errors
    /// See [`Builder::boot`].
    pub fn boot(suite: Suite) -> Result<Self> {
        Self::builder(suite).boot()
    }

    /// Describes a box.
    #[must_use]
    pub fn builder(suite: Suite) -> Builder {
        Builder {
            suite,
            under: Under::from_env(),
            tun_mode: 0o666,
            pasta: None,
            systemd: false,
            debians_dockerd: false,
        }
    }

    /// Removes what boxes of a killed test process left: empty cgroups and empty work folders. Never anything in use:
    /// rmdir(2) refuses what is not empty, and a box that just boots has had its work folder for a moment only.
    pub fn sweep() {
        let groups = Group::root().ok();
        for parent in groups.into_iter().chain([std::env::temp_dir()]) {
            for entry in fs::read_dir(parent).into_iter().flatten().flatten() {
                let age = entry
                    .metadata()
                    .and_then(|meta| meta.modified())
                    .ok()
                    .and_then(|time| time.elapsed().ok());
                let old = age.is_some_and(|age| age > PATIENCE);
                if entry.file_name().to_string_lossy().starts_with(PREFIX) && old {
                    let _ = fs::remove_dir(entry.path());
                }
            }
        }
    }

    fn finish_boot(
        &mut self,
        pasta: Option<Suite>,
        systemd: bool,
        dockerd: Option<&Path>,
    ) -> Result<()> {
        let unshare = self.child.id();
        let children = format!("/proc/{unshare}/task/{unshare}/children");
        self.init = wait::until("the box is ready", PATIENCE, || {
            if let Some(status) = self.child.try_wait()? {
                bail!("ended with {status}");
            }
            let pid = fs::read_to_string(&children).unwrap_or_default().trim().parse::<i32>().ok();
            Ok(pid.filter(|pid| Path::new(&format!("/proc/{pid}/root/run/box/ready")).exists()))
        })?;
        self.depth = procs::depth_of(self.init);
        install::install(&self.path("/"), self.under)?;
        if let Some(suite) = pasta {
            install::pasta(Rootfs::get(suite)?.path(), &self.path("/"))?;
        }
        if let Some(dockerd) = dockerd {
            install::dockerd(dockerd, &self.path("/"))?;
        }
        if systemd {
            self.await_systemd()?;
        }
        self.start_services()?;
        self.baseline = Baseline::of(self)?;
        Ok(())
    }

    /// The state `running` means that no unit failed; the bus is the last that the user's manager brings.
    fn await_systemd(&self) -> Result<()> {
        let state = || self.root("systemctl is-system-running").run();
        wait::until_true("systemd has booted", PATIENCE, || match state()?.stdout.trim() {
            "running" => Ok(self.exists("/run/user/1001/bus")),
            "degraded" | "maintenance" => {
                bail!(
                    "units failed: {}",
                    self.root("systemctl --no-pager list-units --failed").ok()?
                )
            }
            _ => Ok(false),
        })
    }

    /// The page on the host's own loopback and the other machine's DNS and web server; see the crate's picture.
    fn start_services(&self) -> Result<()> {
        // `setsid -f`: they belong to the box's PID 1, not to a command of the test.
        let services =
            "setsid -f fixture http 127.0.0.1:7001 loopback >/run/box/http.log 2>&1 </dev/null";
        self.root(services).ok()?;
        let services = "setsid -f fixture dns 0.0.0.0:53 >/run/box/dns.log 2>&1 </dev/null
            setsid -f fixture http [::]:7000 peer >/run/box/peer.log 2>&1 </dev/null";
        self.peer(services).ok()?;
        wait::until_true("the services of a box", PATIENCE, || {
            let ready = |log: &str| {
                fs::read_to_string(self.path(log)).is_ok_and(|text| text.contains("ready"))
            };
            Ok(ready("/run/box/http.log")
                && ready("/run/box/dns.log")
                && ready("/run/box/peer.log"))
        })
    }

    /// Which Debian it is.
    #[must_use]
    pub fn suite(&self) -> Suite {
        self.suite
    }

    /// Whose rootlesskit it has.
    #[must_use]
    pub fn under(&self) -> Under {
        self.under
    }

    /// A path of the box as the machine reaches it. Absolute symbolic links in it would lead out of the box.
    #[must_use]
    pub fn path(&self, inside: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/root/{}", self.init, inside.trim_start_matches('/')))
    }

    /// A shell command as `tester`.
    #[must_use]
    pub fn user(&self, script: &str) -> Cmd<'_> {
        Cmd::new(self, As::User, &["sh", "-c", script])
    }

    /// A shell command as root.
    #[must_use]
    pub fn root(&self, script: &str) -> Cmd<'_> {
        Cmd::new(self, As::Root, &["sh", "-c", script])
    }

    /// A shell command on the machine at the other end of the wire.
    #[must_use]
    pub fn peer(&self, script: &str) -> Cmd<'_> {
        Cmd::new(self, As::Peer, &["sh", "-c", script])
    }

    /// A command without a shell.
    #[must_use]
    pub fn argv(&self, who: As, argv: &[&str]) -> Cmd<'_> {
        Cmd::new(self, who, argv)
    }

    /// Writes a file as root, mode 0644 (make it executable with [`root`](Self::root)).
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn write(&self, inside: &str, text: &str) -> Result<()> {
        let path = self.path(inside);
        fs::write(&path, text).with_context(|| format!("writing {}", path.display()))
    }

    /// Writes an executable script as root.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn script(&self, inside: &str, text: &str) -> Result<()> {
        use std::os::unix::fs::PermissionsExt as _;
        self.write(inside, text)?;
        Ok(fs::set_permissions(self.path(inside), fs::Permissions::from_mode(0o755))?)
    }

    /// Reads a file.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn read(&self, inside: &str) -> Result<String> {
        let path = self.path(inside);
        fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))
    }

    /// Whether a path exists (as a link, if it is one).
    #[must_use]
    pub fn exists(&self, inside: &str) -> bool {
        fs::symlink_metadata(self.path(inside)).is_ok()
    }

    /// Sends a signal to a process of the box, by the box's number.
    ///
    /// # Errors
    /// There is no such process.
    pub fn signal(&self, pid: i32, name: &str) -> Result<()> {
        let found = self.processes().into_iter().find(|p| p.pid == pid);
        let process = found.with_context(|| format!("no process {pid} in the box"))?;
        let signal: nix::sys::signal::Signal = format!("SIG{name}").parse()?;
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(process.host_pid), signal)
            .with_context(|| format!("SIG{name} to {process:?}"))
    }

    /// Ends the name server of the other machine, so that a scenario can have one of its own at its address.
    ///
    /// # Errors
    /// It is not there, or keeps its port.
    pub fn stop_name_server(&self) -> Result<()> {
        let server = self.processes().into_iter().find(|p| p.command.contains("fixture dns"));
        self.signal(server.context("no name server in the box")?.pid, "KILL")?;
        wait::until_true("the port of the name server is free", PATIENCE, || {
            Ok(self.peer("ss -Hltun 'sport = :53'").ok()?.is_empty())
        })
    }

    /// Every process of the box, its own services included.
    #[must_use]
    pub fn processes(&self) -> Vec<Proc> {
        procs::read(&self.group.pids(), self.depth)
    }

    /// The processes of the user and of its subids, zombies included.
    #[must_use]
    pub fn user_processes(&self) -> Vec<Proc> {
        self.processes().into_iter().filter(|p| p.uid != 0).collect()
    }

    /// The one process of the user whose program has this name. One that starts another program is two for a moment.
    ///
    /// # Errors
    /// There is none, or there stay more than one.
    pub fn process(&self, program: &str) -> Result<Proc> {
        let found = wait::until(&format!("one {program}"), PATIENCE, || {
            let all = self.user_processes().into_iter().filter(|p| p.program() == program);
            let mut found: Vec<_> = all.collect();
            Ok((found.len() < 2).then(|| found.pop()))
        })?;
        found.with_context(|| format!("no {program}: {:#?}", self.user_processes()))
    }

    pub(crate) fn baseline(&self) -> &Baseline {
        &self.baseline
    }

    pub(crate) fn init_pid(&self) -> i32 {
        self.init
    }

    pub(crate) fn group_path(&self) -> &Path {
        self.group.path()
    }

    pub(crate) fn next_number(&self) -> u32 {
        self.counter.fetch_add(1, Ordering::Relaxed)
    }
}

impl Drop for TestBox {
    fn drop(&mut self) {
        // Ends PID 1 through --kill-child; the rest is the group's.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
