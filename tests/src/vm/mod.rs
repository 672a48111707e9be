//! A virtual machine: a kernel of its own, and with it what the boxes lack, all controllers of cgroup v2.
//!
//! # Theory of operation
//! qemu emulates the processors, so this works wherever the boxes do, at a tenth of the speed. It comes, like the guest's
//! kernel, from a tree in the cache ([`Rootfs`](crate::Rootfs)) and runs in a chroot of it: nothing is installed on the
//! machine. The guest's root file system is a cached disk that is not written to. A process in the guest, the agent, unpacks
//! the programs under test and runs the scripts that arrive through a serial line, whose other end is qemu's standard
//! input and output. Users are those of the boxes; the guest has loopback, and no other network.

mod image;

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use crate::{Output, Suite, Under, install};
use image::Image;

const START: &str = include_str!("start.sh");

/// How long the start and a script may take. Both take seconds on an idle machine, and much longer on a busy one.
const LIMIT: Duration = Duration::from_secs(1200);

/// What the agent said: an exit status, and the two streams.
type Answer = (i32, Vec<u8>, Vec<u8>);

/// A running virtual machine. It ends when this value is dropped, and with the thread that booted it.
#[derive(Debug)]
pub struct Vm {
    qemu: Child,
    requests: Sender<Vec<u8>>,
    answers: Receiver<Answer>,
    work: tempfile::TempDir,
}

impl Vm {
    /// Makes sure that the cache holds what a machine of `suite` needs.
    ///
    /// # Errors
    /// Making it failed; see [`Rootfs::get`](crate::Rootfs::get).
    pub fn prepare(suite: Suite) -> Result<()> {
        Image::get(suite).map(drop)
    }

    /// Boots a machine of `suite` and waits until the service manager of `tester` runs.
    ///
    /// # Errors
    /// Not root, no disk, or it does not come up (the message holds what its console showed).
    pub fn boot(suite: Suite) -> Result<Self> {
        ensure!(
            nix::unistd::geteuid().is_root(),
            "virtual machines are made of mounts, which needs root\nhint: run `cargo xtask test` as root"
        );
        let image = Image::get(suite)?;
        let work = tempfile::Builder::new().prefix("vm-").tempdir()?;
        // The script becomes qemu, so this child is the whole machine. It goes first where processors are scarce: at a tenth of
        // the speed, programs in the guest run into time limits of their own. dockerd gives its containerd 15 s.
        let mut qemu = Command::new("setpriv")
            .args(["--pdeathsig", "KILL", "nice", "--adjustment=-15"])
            .args(["unshare", "--mount", "--propagation", "private", "bash", "-c", START])
            .env_clear()
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .env("EMULATOR", &image.emulator)
            .env("KERNEL", image.kernel()?)
            .env("DISK", &image.disk)
            .env("WORK", work.path())
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
        vm.answer().context("the virtual machine does not boot")?;
        vm.install()?;
        // The bus is the last that the service manager of the user brings.
        vm.root("until [ -S /run/user/1001/bus ]; do sleep 0.1; done")?.ok()?;
        Ok(vm)
    }

    /// Brings the programs under test.
    fn install(&mut self) -> Result<()> {
        let tree = self.work.path().join("tree");
        fs::create_dir_all(tree.join("usr/bin"))?;
        fs::create_dir_all(tree.join("usr/local/bin"))?;
        install::install(&tree, Under::from_env())?;
        let tar = Command::new("tar").arg("-C").arg(&tree).args(["-c", "usr"]).output()?;
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
        let (code, stdout, stderr) = self.answer().with_context(|| format!("{who}: {script}"))?;
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        let argv = vec![who.to_owned(), script.to_owned()];
        let took = started.elapsed();
        Ok(Output { argv, code, stdout: text(stdout), stderr: text(stderr), took })
    }

    fn answer(&self) -> Result<Answer> {
        let reason = match self.answers.recv_timeout(LIMIT) {
            Ok(answer) => return Ok(answer),
            Err(RecvTimeoutError::Timeout) => format!("no answer within {LIMIT:?}"),
            Err(RecvTimeoutError::Disconnected) => "the machine ended".to_owned(),
        };
        let said = |file: &str| {
            let bytes = fs::read(self.work.path().join(file)).unwrap_or_default();
            String::from_utf8_lossy(&bytes).into_owned()
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
    let mut numbers = line.split_whitespace();
    let mut number = || numbers.next().context("the agent's line is short");
    let code = number()?.parse()?;
    let mut stdout = vec![0; number()?.parse()?];
    let mut stderr = vec![0; number()?.parse()?];
    from.read_exact(&mut stdout)?;
    from.read_exact(&mut stderr)?;
    Ok((code, stdout, stderr))
}
