//! Where the benchmark happens: a folder, a network of its own, and the programs that are compared.
//!
//! This process moves into a network namespace with loopback and an uplink that leads nowhere (pasta wants one to
//! copy), and into a mount namespace. Firewall rules, connection tracking and open ports of the machine neither
//! disturb nor are disturbed, and what is made here goes with the process.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};
use xtask_support::{cargo, command, host};

use crate::account::{Account, Accounts};
use crate::congestion::Congestion;
use crate::options::Options;
use crate::procs;
use crate::sheet::Side;
use crate::tools::{self, NetTools, Tool};

/// Files that a side with ten thousand ports has open, and some.
const FILES: u64 = 20_000;

/// The address of this network that is not loopback: servers that namespaces reach out to answer there.
pub(crate) const ADDRESS: &str = "192.0.2.1";

/// The network that stands for the machine's: loopback, and an uplink with a default route.
const NETWORK: &[&str] = &[
    "link set lo up",
    "link add uplink type veth peer name nowhere",
    "link set nowhere up",
    "link set uplink up",
    "address add 192.0.2.1/24 dev uplink",
    "route add default via 192.0.2.254 dev uplink",
];

/// What the results say about the machine.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct MachineFacts {
    /// How many processors the run could use.
    pub(crate) processors: usize,
    /// The processors' model.
    pub(crate) model: String,
    /// The release of the kernel.
    pub(crate) kernel: String,
    /// Whether forwarders and load had processors of their own (`--pin`).
    pub(crate) pinned: bool,
}

/// The users, the programs and the place.
#[derive(Debug)]
pub(crate) struct Machine {
    pub(crate) ours: Tool,
    pub(crate) theirs: Tool,
    /// An earlier build of ours, if `--before` names one.
    pub(crate) before: Option<Tool>,
    pub(crate) slirp4netns: Tool,
    pub(crate) pasta: Option<Tool>,
    /// If networks are measured.
    pub(crate) net: Option<NetTools>,
    pub(crate) loadgen: PathBuf,
    /// Whether the rootlesskit that ours is compared with has the network driver `none`.
    pub(crate) theirs_has_none: bool,
    /// Whether it has the network driver `gvisor-tap-vsock`.
    pub(crate) theirs_has_gvisor: bool,
    /// Whether it is the Go program at all: `--against` may name another build of ours.
    theirs_is_go: bool,
    pub(crate) accounts: Accounts,
    folder: tempfile::TempDir,
    pin: bool,
    /// Of every network namespace.
    pub(crate) congestion: RefCell<Congestion>,
    notes: RefCell<BTreeMap<String, usize>>,
}

/// Moves this process, which must have one thread, into namespaces of its own.
pub(crate) fn leave() -> Result<()> {
    unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS).context("new namespaces")?;
    let slave = MsFlags::MS_REC | MsFlags::MS_SLAVE;
    mount(None::<&str>, "/", None::<&str>, slave, None::<&str>)?;
    for line in NETWORK {
        command::quietly(Command::new("ip").args(line.split(' ')))?;
    }
    Ok(())
}

impl Machine {
    pub(crate) fn prepare(options: &Options) -> Result<Self> {
        let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
        let files = hard.max(FILES);
        setrlimit(Resource::RLIMIT_NOFILE, files.min(hard), files)
            .context("raising the limit of open files, which 10,000 ports need")?;
        // A short path: sockets below it have to fit into 108 bytes.
        let folder = tempfile::Builder::new().prefix("rk-bench-").tempdir_in("/var/tmp")?;
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755))?;
        let accounts = Accounts::prepare(options.user.as_deref(), folder.path())?;
        let (congestion, note) = Congestion::begin(&options.congestion)?;
        let bin = folder.path().join("bin");
        fs::create_dir(&bin)?;
        let theirs = tools::theirs(options.against.as_deref(), &bin.join("theirs/rootlesskit"))?;
        let before = options
            .before
            .as_deref()
            .map(|given| tools::given_program("--before", given, &bin.join("before/rootlesskit")));
        let slirp4netns = tools::slirp4netns(&bin)?;
        let net = match options.wants_networks() {
            true => Some(NetTools::find(&bin, &slirp4netns)?),
            false => None,
        };
        let this = Self {
            theirs_has_none: tools::has_none(&theirs.path)?,
            theirs_has_gvisor: tools::has_gvisor(&theirs.path)?,
            theirs_is_go: tools::is_go(&theirs.path),
            ours: tools::ours(options.ours.as_deref(), &bin.join("ours/rootlesskit"))?,
            theirs,
            before: before.transpose()?,
            slirp4netns,
            net,
            pasta: tools::pasta(&bin)?,
            loadgen: cargo::programs("release")?.join("loadgen"),
            accounts,
            pin: options.pin,
            congestion: RefCell::new(congestion),
            notes: RefCell::default(),
            folder,
        };
        if let Some(note) = note {
            this.note(note);
        }
        this.bring_tun()?;
        if options.pin {
            ensure!(procs::processors() > 1, "--pin needs two processors");
            // Everything started from here inherits it; forwarders are moved to the others.
            let own = i32::try_from(std::process::id())?;
            procs::confine(&[own], &this.generators())?;
        }
        Ok(this)
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Where clients, servers and what is ours may write.
    pub(crate) fn tmp(&self) -> PathBuf {
        self.accounts.main().folder.join("tmp")
    }

    /// Where a side may write.
    pub(crate) fn tmp_of(&self, side: Side) -> PathBuf {
        self.accounts.of(side).folder.join("tmp")
    }

    /// A command of the main account.
    pub(crate) fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        self.command_as(self.accounts.main(), program)
    }

    /// A command of a side's account.
    pub(crate) fn command_of(&self, side: Side, program: impl AsRef<std::ffi::OsStr>) -> Command {
        self.command_as(self.accounts.of(side), program)
    }

    /// A command with an account's ids and a clean environment, away from the terminal's signals.
    pub(crate) fn command_as(
        &self,
        account: &Account,
        program: impl AsRef<std::ffi::OsStr>,
    ) -> Command {
        let mut command = Command::new(program);
        let bin = self.path("bin");
        command
            .uid(account.uid)
            .gid(account.gid)
            .env_clear()
            .env("HOME", account.folder.join("home"))
            .env("USER", &account.name)
            .env("XDG_RUNTIME_DIR", account.folder.join("run"))
            .env("TMPDIR", account.folder.join("tmp"))
            .env("PATH", format!("{}:/usr/sbin:/usr/bin:/sbin:/bin", bin.display()))
            .current_dir("/")
            .stdin(Stdio::null());
        command
    }

    /// The network driver under which ports are measured: the least that both sides have.
    pub(crate) fn driver(&self) -> &'static str {
        if self.theirs_has_none { "none" } else { "slirp4netns" }
    }

    fn why_driver(&self) -> String {
        let driver = format!("--net={}", self.driver());
        let why = " (theirs has no --net=none, which came after 2.0)";
        driver + if self.theirs_has_none { "" } else { why }
    }

    /// Whether a side's rootlesskit replaces the host's congestion control in its own namespace.
    pub(crate) fn replaces_congestion(&self, side: Side) -> bool {
        !matches!(side, Side::Theirs | Side::Gvisor) || !self.theirs_is_go
    }

    /// Puts a forwarder where the load is not, if that was asked for.
    pub(crate) fn pin_forwarder(&self, pids: &[i32]) -> Result<()> {
        if !self.pin {
            return Ok(());
        }
        let all = allowed();
        procs::confine(pids, &all[..all.len() / 2])
    }

    fn generators(&self) -> Vec<usize> {
        let all = allowed();
        all[all.len() / 2..].to_vec()
    }

    /// Keeps something that the report has to say.
    pub(crate) fn note(&self, text: String) {
        eprintln!("note: {text}");
        *self.notes.borrow_mut().entry(text).or_default() += 1;
    }

    pub(crate) fn notes(&self) -> Vec<String> {
        let many = |(text, count): (&String, &usize)| match count {
            1 => text.clone(),
            _ => format!("{text} ({count} times)"),
        };
        self.notes.borrow().iter().map(many).collect()
    }

    /// Where it was measured.
    pub(crate) fn facts(&self) -> MachineFacts {
        MachineFacts {
            processors: allowed().len(),
            model: host::processor_model(),
            kernel: host::kernel_release(),
            pinned: self.pin,
        }
    }

    /// What was compared and where.
    pub(crate) fn description(&self) -> Vec<String> {
        let MachineFacts { processors, model, kernel, .. } = self.facts();
        let pasta = self.pasta.as_ref().map_or("none new enough".to_owned(), Tool::what);
        let pin = if self.pin { ", forwarders and load on separate ones" } else { "" };
        let mut lines = vec![
            format!("machine: {processors} processors ({model}), Linux {kernel}{pin}"),
            format!("ours: {}", self.ours.what()),
            format!("theirs: {}", self.theirs.what()),
            format!("slirp4netns: {}", self.slirp4netns.what()),
            format!("pasta: {pasta}"),
            format!("ports and memory: builtin port driver, {} on both sides", self.why_driver()),
        ];
        lines.extend(self.before.as_ref().map(|tool| format!("earlier build: {}", tool.what())));
        lines.extend(self.congestion.borrow().lines());
        if let Some(net) = &self.net {
            let proxy = net.docker_proxy.as_ref();
            let proxy = proxy.map_or("none that runs here".to_owned(), Tool::what);
            lines.push(format!("networks: slirp4netns is {}", net.slirp4netns.what()));
            lines.push(format!("networks: docker-proxy is {proxy}"));
        }
        lines
    }

    /// Gives this process's mount namespace a `/dev/net/tun` that the user can open, whatever happens to the machine's.
    fn bring_tun(&self) -> Result<()> {
        ensure!(
            Path::new("/dev/net").is_dir(),
            "there is no /dev/net/tun, which every user-space network needs\nhint: modprobe tun"
        );
        let options = Some("mode=755");
        mount(Some("tmpfs"), "/dev/net", Some("tmpfs"), MsFlags::empty(), options)?;
        command::quietly(Command::new("mknod").args([
            "-m",
            "666",
            "/dev/net/tun",
            "c",
            "10",
            "200",
        ]))?;
        let mut command = self.command("sh");
        command.args(["-c", ": <>/dev/net/tun"]).stderr(Stdio::null());
        ensure!(command.status()?.success(), "/dev/net/tun cannot be opened\nhint: modprobe tun");
        Ok(())
    }

    /// Ends what is left of throw-away accounts, the folder, and the accounts.
    pub(crate) fn remove(self) -> Result<()> {
        self.accounts.end_processes()?;
        let path = self.folder.path().to_owned();
        self.folder.close().with_context(|| format!("removing {}", path.display()))?;
        self.accounts.delete()
    }
}

/// The processors that this process could use at first.
fn allowed() -> Vec<usize> {
    static ALLOWED: std::sync::OnceLock<Vec<usize>> = std::sync::OnceLock::new();
    ALLOWED
        .get_or_init(|| {
            let set = nix::sched::sched_getaffinity(Pid::from_raw(0));
            let set = set.unwrap_or_default();
            let numbers = 0..nix::sched::CpuSet::count();
            numbers.filter(|number| set.is_set(*number).unwrap_or(false)).collect()
        })
        .clone()
}
