//! A virtual machine: a kernel of its own, and with it what the boxes lack, all controllers of cgroup v2.
//!
//! # Theory of operation
//! qemu emulates the processors, so this works wherever the boxes do, at a tenth of the speed. It comes from a tree
//! in the cache ([`Rootfs`](crate::Rootfs)) and runs in a chroot of it: nothing is installed on the machine. The
//! guest's kernel is one of Debian's archive. Its root file system is a cached disk that is not written to. A process
//! in the guest, the agent, unpacks the programs under test and runs the scripts that arrive through a serial line,
//! whose other end is qemu's standard input and output. Users are those of the boxes; the guest has loopback, and no
//! other network.

mod image;
mod kernel;

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::{Output, Suite, Under, install};
use image::Image;
pub use kernel::{Flavour, Kernel};

const START: &str = include_str!("start.sh");

/// Waits for the service manager of `tester`, or says why it did not start.
const AWAIT_SESSION: &str = "until [ -S /run/user/1001/bus ]; do
    systemctl -q is-failed user@1001 && { journalctl -b -n 100 --no-pager >&2; exit 1; }; sleep 0.1; done";

/// How long the start and a script may take. Both take seconds on an idle machine, and much longer on a busy one.
const LIMIT: Duration = Duration::from_secs(1200);

/// How often the console is searched for the end of the kernel while an answer is waited for.
const PANIC_INTERVAL: Duration = Duration::from_secs(5);

/// What the agent says.
enum Answer {
    /// The machine has started.
    Booted,
    /// A script has ended: its exit status, and the two streams.
    Ended(i32, Vec<u8>, Vec<u8>),
}

/// What a virtual machine is made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Machine {
    /// Its root file system.
    pub suite: Suite,
    /// More packages in it than those of the suite's test hosts.
    pub packages: &'static [&'static str],
    /// Its kernel.
    pub kernel: Kernel,
    /// How many processors it has.
    pub processors: u32,
    /// Its memory in MiB.
    pub memory: u32,
    /// Root has done what the documentation names: modules are loaded, and all users may ping. Without, the machine
    /// is as Debian installs it.
    pub prepared: bool,
    /// More options for the kernel, separated by spaces.
    pub append: String,
}

impl Machine {
    /// One of `suite` with two processors, which root has prepared.
    #[must_use]
    pub fn of(suite: Suite) -> Self {
        let kernel = Kernel { suite: "trixie", flavour: Flavour::Cloud };
        let (processors, memory) = (2, 2048);
        Self {
            suite,
            packages: &[],
            kernel,
            processors,
            memory,
            prepared: true,
            append: String::new(),
        }
    }
}

/// A running virtual machine. It ends when this value is dropped, and with the thread that booted it.
#[derive(Debug)]
pub struct Vm {
    qemu: Child,
    requests: Sender<Vec<u8>>,
    answers: Receiver<Answer>,
    work: tempfile::TempDir,
}

impl Vm {
    /// Makes sure that the cache holds what a machine needs.
    ///
    /// # Errors
    /// Making it failed; see [`Rootfs::get`](crate::Rootfs::get).
    pub fn prepare(machine: &Machine) -> Result<()> {
        Image::get(machine).map(drop)
    }

    /// Boots a machine and waits until the service manager of `tester` runs.
    ///
    /// # Errors
    /// Not root, no disk, or it does not come up (the message holds what its console showed).
    pub fn boot(machine: &Machine) -> Result<Self> {
        ensure!(
            nix::unistd::geteuid().is_root(),
            "virtual machines are made of mounts, which needs root\nhint: run `cargo xtask test` as root"
        );
        let image = Image::get(machine)?;
        let prepared = if machine.prepared { "agent.prepared " } else { "" };
        let work = tempfile::Builder::new().prefix("vm-").tempdir()?;
        // The script becomes qemu, so this child is the whole machine. It goes first where processors are scarce: at
        // a tenth of the speed, programs in the guest run into time limits of their own. dockerd gives its containerd
        // 15 s.
        let mut qemu = Command::new("setpriv")
            .args(["--pdeathsig", "KILL", "nice", "--adjustment=-15"])
            .args(["unshare", "--mount", "--propagation", "private", "bash", "-c", START])
            .env_clear()
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .env("EMULATOR", &image.emulator)
            .env("IMAGE", &image.files)
            .env("WORK", work.path())
            .env("PROCESSORS", machine.processors.to_string())
            .env("MEMORY", machine.memory.to_string())
            .env("APPEND", format!("{prepared}{}", machine.append))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(fs::File::create(work.path().join("qemu.log"))?)
            .spawn()
            .context("starting a virtual machine")?;
        let mut input = qemu.stdin.take().context("qemu's input")?;
        let mut output = BufReader::new(qemu.stdout.take().context("qemu's output")?);
        // Threads, since neither pipe may block a test for ever; the end of qemu ends both.
        let (requests, to_write) = mpsc::channel::<Vec<u8>>();
        std::thread::spawn(move || to_write.iter().try_for_each(|bytes| input.write_all(&bytes)));
        let (sender, answers) = mpsc::channel();
        std::thread::spawn(move || {
            while let Ok(answer) = read_answer(&mut output)
                && sender.send(answer).is_ok()
            {}
        });
        let mut vm = Self { qemu, requests, answers, work };
        vm.await_boot().context("the virtual machine does not boot")?;
        // First: tar closes directories to others for a moment, even those that it leaves as they are.
        vm.await_session()?;
        vm.install()?;
        Ok(vm)
    }

    /// The bus is the last that the service manager of the user brings.
    fn await_session(&mut self) -> Result<()> {
        self.root(AWAIT_SESSION)?.ok().map(drop)
    }

    /// Restarts the machine as its administrator would, and waits until the service manager of `tester` runs again.
    /// What is on the disk is kept.
    ///
    /// # Errors
    /// It does not come up again (the message holds what its console showed).
    pub fn reboot(&mut self) -> Result<()> {
        let _ = self.requests.send(b"reboot 0\n".to_vec());
        self.await_boot().context("the virtual machine does not boot again")?;
        self.await_session()
    }

    /// Stops the machine, and continues it after this time, which its own clocks count.
    ///
    /// # Errors
    /// It has ended.
    pub fn pause(&mut self, time: Duration) -> Result<()> {
        let qemu = Pid::from_raw(i32::try_from(self.qemu.id())?);
        kill(qemu, Signal::SIGSTOP).context("stopping the virtual machine")?;
        std::thread::sleep(time);
        kill(qemu, Signal::SIGCONT).context("continuing the virtual machine")
    }

    fn await_boot(&self) -> Result<()> {
        let answer = self.answer()?;
        ensure!(matches!(answer, Answer::Booted), "a script ended that was not asked for");
        Ok(())
    }

    /// Brings the programs under test.
    fn install(&mut self) -> Result<()> {
        let tree = self.work.path().join("tree");
        fs::create_dir_all(tree.join("usr/bin"))?;
        fs::create_dir_all(tree.join("usr/local/bin"))?;
        install::install(&tree, Under::from_env())?;
        install::with_own_libraries(&tree, "fixture")?;
        let tar = Command::new("tar").arg("-C").arg(&tree).args(["-c", "usr", "opt"]).output()?;
        ensure!(tar.status.success(), "tar: {}", String::from_utf8_lossy(&tar.stderr));
        fs::remove_dir_all(&tree)?;
        self.run("files", &tar.stdout)?.ok().map(drop)
    }

    /// Runs a shell script as `tester`, with the environment of a login session, and in `/`.
    ///
    /// # Errors
    /// It does not end in time, or the machine ended; the message holds what its console showed.
    pub fn user(&mut self, script: &str) -> Result<Output> {
        self.run("user", script.as_bytes())
    }

    /// Runs a shell script as root.
    ///
    /// # Errors
    /// As [`user`](Self::user).
    pub fn root(&mut self, script: &str) -> Result<Output> {
        self.run("root", script.as_bytes())
    }

    fn run(&mut self, who: &str, input: &[u8]) -> Result<Output> {
        let started = Instant::now();
        let script = if who == "files" { "" } else { std::str::from_utf8(input)? };
        // That the machine is gone is seen, and said, where its answer is waited for.
        let _ = self.requests.send([format!("{who} {}\n", input.len()).as_bytes(), input].concat());
        let answer = self.answer().with_context(|| format!("{who}: {script}"))?;
        let Answer::Ended(code, stdout, stderr) = answer else {
            bail!("the machine restarted in the middle of {who}: {script}");
        };
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        let argv = vec![who.to_owned(), script.to_owned()];
        let took = started.elapsed();
        Ok(Output { argv, code, stdout: text(stdout), stderr: text(stderr), took })
    }

    fn answer(&self) -> Result<Answer> {
        let said = |file: &str| {
            let bytes = fs::read(self.work.path().join(file)).unwrap_or_default();
            String::from_utf8_lossy(&bytes).into_owned()
        };
        let started = Instant::now();
        let reason = loop {
            match self.answers.recv_timeout(PANIC_INTERVAL) {
                Ok(answer) => return Ok(answer),
                Err(RecvTimeoutError::Disconnected) => break "the machine ended".to_owned(),
                Err(RecvTimeoutError::Timeout) if said("console").contains("Kernel panic") => {
                    break "its kernel panicked".to_owned();
                }
                Err(RecvTimeoutError::Timeout) if started.elapsed() > LIMIT => {
                    break format!("no answer within {LIMIT:?}");
                }
                Err(RecvTimeoutError::Timeout) => {}
            }
        };
        bail!("{reason}; qemu said: {}\nits console showed:\n{}", said("qemu.log"), said("console"))
    }
}

impl Drop for Vm {
    fn drop(&mut self) {
        let _ = self.qemu.kill();
        let _ = self.qemu.wait();
    }
}

/// Reads `STATUS BYTES BYTES`, and the bytes.
fn read_answer(from: &mut BufReader<ChildStdout>) -> Result<Answer> {
    let mut line = String::new();
    from.read_line(&mut line)?;
    let mut words = line.split_whitespace();
    let mut word = || words.next().context("the agent's line is short");
    let status = word()?;
    if status == "boot" {
        return Ok(Answer::Booted);
    }
    let code = status.parse()?;
    let mut stdout = vec![0; word()?.parse()?];
    let mut stderr = vec![0; word()?.parse()?];
    from.read_exact(&mut stdout)?;
    from.read_exact(&mut stderr)?;
    Ok(Answer::Ended(code, stdout, stderr))
}
