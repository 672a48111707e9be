//! A host in a directory.

use std::ffi::OsStr;
use std::fs::{self, File, Permissions};
use std::os::unix::fs::{PermissionsExt as _, chown, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::fcntl::{Flock, FlockArg};
use serde_json::Value;

use crate::facts::{Facts, Room};
use crate::place::World;
use crate::probe::fake::Fake;
use crate::probe::{Outcome, Probe};

/// The programs of a healthy host.
const PROGRAMS: [&str; 11] = [
    "newuidmap",
    "newgidmap",
    "rootlesskit",
    "dockerd-rootless.sh",
    "dockerd",
    "docker",
    "iptables",
    "nsenter",
    "ps",
    "slirp4netns",
    "systemctl",
];

const UNIFIED: &str = "30 22 0:26 / /sys/fs/cgroup rw shared:9 - cgroup2 cgroup2 rw\n";

pub(super) struct Host {
    dir: tempfile::TempDir,
    pub(super) world: World,
    pub(super) prober: Fake,
    /// What a daemon that runs has locked.
    lock: Option<Flock<File>>,
}

impl Host {
    /// A Debian 13 on which nothing is missing, of the user `jo`.
    pub(super) fn healthy() -> Self {
        // Root may give the files to an ordinary user; everybody else is the ordinary user.
        let own = nix::unistd::geteuid();
        let uid = if own.is_root() { 1000 } else { own.as_raw() };
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().to_owned();
        let at = |name: &str| root.join(name).into_os_string();
        let env = [
            ("HOME", at("home")),
            ("PATH", at("bin")),
            ("XDG_RUNTIME_DIR", at(&format!("run/user/{uid}"))),
        ];
        let world =
            World { root: root.clone(), env: env.into_iter().collect(), uid, own_dir: None };
        let mut host = Self { dir, world, prober: Fake::default(), lock: None };
        host.fill(uid);
        host
    }

    fn fill(&mut self, uid: u32) {
        for name in PROGRAMS {
            self.program(&format!("bin/{name}"));
        }
        self.program("usr/sbin/usermod");
        self.prober.answers.insert("slirp4netns", "--netns-type=TYPE".into());
        self.prober.answers.insert("iptables", "iptables v1.8.11 (nf_tables)".into());
        self.os("ID=debian\nVERSION_ID=\"13\"\nPRETTY_NAME=\"Debian GNU/Linux 13 (trixie)\"\n");
        self.write(
            "etc/passwd",
            &format!("root:x:0:0::/root:/bin/sh\njo:x:{uid}:{uid}::/home/jo:/bin/sh\n"),
        );
        self.write("etc/subuid", "jo:100000:65536\n");
        self.write("etc/subgid", "jo:100000:65536\n");
        self.write("proc/sys/kernel/ostype", "Linux\n");
        self.write("proc/sys/kernel/osrelease", "6.12.0-1-amd64\n");
        self.write("proc/sys/user/max_user_namespaces", "63000\n");
        self.write("proc/sys/net/ipv4/ping_group_range", "0\t2147483647\n");
        self.write("proc/sys/net/ipv4/ip_unprivileged_port_start", "0\n");
        self.write(
            "proc/self/status",
            "Gid:\t1000\t1000\t1000\t1000\nGroups:\t27 1000\nNoNewPrivs:\t0\n",
        );
        self.write("proc/self/cgroup", "0::/user.slice/user-1000.slice/session-1.scope\n");
        self.write("proc/self/limits", "Max open files 1024 524288 files\n");
        self.write("proc/self/mountinfo", UNIFIED);
        self.write("sys/fs/cgroup/cgroup.controllers", "cpuset cpu io memory pids\n");
        let group = format!("sys/fs/cgroup/user.slice/user-{uid}.slice/user@{uid}.service");
        self.write(&format!("{group}/cgroup.controllers"), "cpuset cpu io memory pids\n");
        self.write(&format!("{group}/cgroup.subtree_control"), "memory pids\n");
        for file in [
            "dev/net/tun",
            "dev/fuse",
            "usr/lib/systemd/user/dbus.socket",
            "var/lib/systemd/linger/jo",
        ] {
            self.write(file, "");
        }
        for dir in ["home", "run/systemd/system", "proc/sys/net/bridge", "proc/sys/net/ipv6"] {
            fs::create_dir_all(self.at(dir)).unwrap();
        }
        let runtime = self.runtime();
        fs::create_dir_all(&runtime).unwrap();
        fs::write(runtime.join("bus"), "").unwrap();
        self.mode(&runtime, 0o700);
        if nix::unistd::geteuid().is_root() {
            chown(&runtime, Some(uid), Some(uid)).unwrap();
        }
    }

    /// What is found out about it. How much room there is on the file system of the fixture is replaced: it has nothing to do
    /// with the host that the fixture stands for.
    pub(super) fn facts(&self) -> Facts {
        let mut facts = Facts::gather(&self.world, &self.prober);
        facts.storage.free = Some(1 << 40);
        if let Room::Full(_) | Room::Quota = facts.storage.room {
            facts.storage.room = Room::Fine;
        }
        facts
    }

    pub(super) fn at(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(super) fn runtime(&self) -> PathBuf {
        self.at(&format!("run/user/{}", self.world.uid))
    }

    pub(super) fn write(&self, name: &str, text: &str) {
        let path = self.at(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    /// SELinux has a policy, and is in enforcing mode with "1", in permissive mode with "0".
    pub(super) fn selinux(&self, enforce: &str) {
        self.write("sys/fs/selinux/enforce", enforce);
        self.write("proc/self/attr/current", "unconfined_u:unconfined_r:unconfined_t:s0\0");
    }

    pub(super) fn program(&self, name: &str) {
        self.write(name, "");
        self.mode(&self.at(name), 0o4755);
    }

    /// A shell script. Another process writes it: what a test starts meanwhile would inherit the open file, and executing it
    /// would fail with `ETXTBSY`.
    pub(super) fn script(&self, name: &str, body: &str) {
        let write = "rm -f \"$1\"; printf '#!/bin/sh\\n%s\\n' \"$2\" > \"$1\"; chmod 0755 \"$1\"";
        let file = self.at(name);
        let words =
            [OsStr::new("-euc"), write.as_ref(), "sh".as_ref(), file.as_ref(), body.as_ref()];
        assert!(Command::new("sh").args(words).status().unwrap().success());
    }

    pub(super) fn mode(&self, path: &Path, mode: u32) {
        fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
    }

    pub(super) fn link(&self, name: &str, target: &str) {
        symlink(target, self.at(name)).unwrap();
    }

    pub(super) fn remove(&self, name: &str) {
        let path = self.at(name);
        if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) }.unwrap();
    }

    pub(super) fn os(&self, text: &str) {
        self.write("etc/os-release", text);
    }

    pub(super) fn set(&mut self, name: &str, value: &str) {
        self.world.env.set(name, value);
    }

    pub(super) fn unset(&mut self, name: &str) {
        self.world.env.remove(name);
    }

    pub(super) fn warns(&mut self, probe: Probe, text: &str) {
        self.prober.outcomes.insert(probe, Outcome::Warns(text.to_owned()));
    }

    pub(super) fn fails(&mut self, probe: Probe, text: &str) {
        self.prober.outcomes.insert(probe, Outcome::Fails(text.to_owned()));
    }

    pub(super) fn says(&mut self, program: &'static str, text: &str) {
        self.prober.answers.insert(program, text.to_owned());
    }

    /// The daemon runs, and answers to requests of its API.
    pub(super) fn runs(&mut self, answers: &[(&'static str, Value)]) {
        let state = self.runtime().join("dockerd-rootless");
        fs::create_dir(&state).unwrap();
        let lock = File::create(state.join("lock")).unwrap();
        self.lock = Some(Flock::lock(lock, FlockArg::LockExclusiveNonblock).unwrap());
        self.prober.docker.extend(answers.iter().cloned());
    }

    /// A host without systemd.
    pub(super) fn without_systemd(&mut self) {
        self.remove("run/systemd");
        self.remove("bin/systemctl");
        self.remove("var");
        self.prober.outcomes.insert(Probe::UserManager, Outcome::Unknown);
    }

    /// Everything there is, for comparing.
    pub(super) fn listing(&self) -> Vec<PathBuf> {
        let mut found = vec![self.dir.path().to_owned()];
        let mut next = 0;
        while let Some(path) = found.get(next).cloned() {
            next += 1;
            if path.is_dir() {
                let entries = fs::read_dir(path).unwrap();
                found.extend(entries.map(|entry| entry.unwrap().path()));
            }
        }
        found.sort();
        found
    }
}
