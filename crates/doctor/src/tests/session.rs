//! Situations of a login session. The file is long because its tables, in this order, become sections of one page.

use std::fs;
use std::path::Path;

use super::Severity::{Advisory, Class, Fatal};
use super::host::Host;
use super::{Case, INSTALL, all, case};
use crate::facts::{Closed, Facts, Home, RuntimeState, WhyClosed};
use crate::findings::{Wish, diagnose};
use crate::probe::Probe;
use crate::units;

#[test]
fn situations_of_the_runtime_directory() {
    all(&the_runtime_directory());
}

pub(super) fn the_runtime_directory() -> Vec<Case> {
    vec![
        case(
            "XDG_RUNTIME_DIR is not set, and the user has no session",
            Fatal,
            "runtime-dir",
            "machinectl shell jo@",
            |h| {
                h.unset("XDG_RUNTIME_DIR");
                h.remove(&format!("run/user/{}", h.world.uid));
            },
        ),
        case(
            "XDG_RUNTIME_DIR is not set after su, but the directory exists",
            Advisory,
            "runtime-dir-found",
            "export XDG_RUNTIME_DIR=",
            |h| {
                h.unset("XDG_RUNTIME_DIR");
            },
        ),
        case(
            "XDG_RUNTIME_DIR does not exist",
            Fatal,
            "runtime-dir",
            "loginctl enable-linger jo",
            |h| {
                h.remove("run/user");
            },
        ),
        case(
            "XDG_RUNTIME_DIR is a relative path",
            Fatal,
            "runtime-dir",
            "export XDG_RUNTIME_DIR=",
            |h| {
                h.set("XDG_RUNTIME_DIR", ".");
            },
        ),
        case(
            "XDG_RUNTIME_DIR belongs to root, after su",
            Fatal,
            "runtime-dir",
            "export XDG_RUNTIME_DIR=",
            |h| {
                let dir = h.at("run/user/0");
                h.write("run/user/0/bus", "");
                h.set("XDG_RUNTIME_DIR", dir.to_str().expect("a path"));
            },
        )
        .facts(|facts| facts.account.runtime.state = RuntimeState::Foreign(0)),
        case("XDG_RUNTIME_DIR is read-only", Fatal, "runtime-dir", "chmod u+rwx", |_| {})
            .facts(|facts| facts.account.runtime.state = RuntimeState::ReadOnly),
        case("XDG_RUNTIME_DIR is below /tmp", Advisory, "runtime-dir-tmp", "export XDG", |h| {
            let dir = h.at("tmp/run");
            h.write("tmp/run/bus", "");
            h.mode(&dir, 0o700);
            h.set("XDG_RUNTIME_DIR", dir.to_str().expect("a path"));
        })
        .facts(|facts| {
            facts.account.runtime.state = RuntimeState::Fine;
            facts.account.bus = true;
        }),
        case(
            "XDG_RUNTIME_DIR is accessible to other users",
            Advisory,
            "runtime-dir-open",
            "chmod 0700",
            |h| {
                h.mode(&h.runtime(), 0o755);
            },
        ),
        case(
            "the path of XDG_RUNTIME_DIR is too long",
            Fatal,
            "runtime-dir-long",
            "shorter",
            |_| {},
        )
        .facts(|facts| facts.account.runtime.dir = Some(format!("/{}", "x".repeat(80)).into())),
        case(
            "XDG_RUNTIME_DIR is not set, without systemd (install creates a directory)",
            Advisory,
            "no-systemd",
            "",
            |h| {
                h.without_systemd();
                h.unset("XDG_RUNTIME_DIR");
                h.remove("run/user");
            },
        ),
        case(
            "XDG_RUNTIME_DIR is invalid, without systemd",
            Fatal,
            "runtime-dir no-systemd",
            "mkdir -p -m 0700",
            |h| {
                h.without_systemd();
                h.remove("run/user");
            },
        ),
    ]
}

#[test]
fn situations_of_service_manager_and_bus() {
    all(&service_manager_and_bus());
}

/// A unit as an earlier `install` with that launcher wrote it.
pub(super) fn installed(host: &Host, launcher: &Path) {
    for unit in units::wanted(&host.world, launcher, false, false).expect("a home") {
        fs::create_dir_all(unit.path.parent().expect("a directory")).expect("a directory");
        fs::write(&unit.path, &unit.text).expect("a unit");
    }
}

pub(super) fn service_manager_and_bus() -> Vec<Case> {
    vec![
        case("no user manager is running", Class, "user-manager", "machinectl shell jo@", |h| {
            h.fails(Probe::UserManager, "Failed to connect to bus: No such file or directory");
        }),
        case(
            "a different XDG_RUNTIME_DIR hides the user manager",
            Class,
            "user-manager",
            "use the directory of the user manager: export XDG_RUNTIME_DIR=",
            |h| {
                h.fails(Probe::UserManager, "Failed to connect to bus: No such file or directory");
            },
        )
        .facts(|facts| facts.account.runtime.dir = Some("/home/jo/.docker/run".into())),
        case(
            "D-Bus for users is not installed on Debian",
            Class,
            "user-bus",
            "apt-get install -y dbus-user-session",
            |h| {
                h.remove("usr/lib/systemd");
                std::fs::remove_file(h.runtime().join("bus")).expect("bus");
            },
        ),
        case(
            "D-Bus for users is not installed, before an installation",
            Fatal,
            "user-bus",
            "log out and in",
            |h| {
                h.remove("usr/lib/systemd");
                std::fs::remove_file(h.runtime().join("bus")).expect("bus");
            },
        )
        .wish(INSTALL),
        case(
            "D-Bus for users is not installed on Fedora",
            Class,
            "user-bus",
            "dnf install -y dbus-daemon",
            |h| {
                h.os("ID=fedora\n");
                h.remove("usr/lib/systemd");
                std::fs::remove_file(h.runtime().join("bus")).expect("bus");
            },
        ),
        case(
            "the user's D-Bus session is not running",
            Class,
            "user-bus-stopped",
            "systemctl --user enable --now dbus.socket",
            |h| {
                std::fs::remove_file(h.runtime().join("bus")).expect("bus");
            },
        ),
        case("the user's D-Bus session uses another address", Class, "", "", |h| {
            std::fs::remove_file(h.runtime().join("bus")).expect("bus");
            h.write("run/other-bus", "");
            let address = format!("unix:path={},guid=1", h.at("run/other-bus").display());
            h.set("DBUS_SESSION_BUS_ADDRESS", &address);
        }),
        case("lingering is off", Advisory, "linger", "sudo loginctl enable-linger jo", |h| {
            h.remove("var/lib/systemd/linger/jo");
        }),
        case(
            "lingering is off on NixOS",
            Advisory,
            "linger",
            "users.users.jo.linger = true;",
            |h| {
                h.os("ID=nixos\n");
                h.remove("var/lib/systemd/linger/jo");
            },
        ),
        case(
            "the command runs in a system unit with User=",
            Advisory,
            "system-unit",
            "install",
            |h| {
                h.write("proc/self/cgroup", "0::/system.slice/docker-jo.service\n");
            },
        ),
        case(
            "the daemon is installed but stopped",
            Advisory,
            "daemon-stopped",
            "systemctl --user start docker.service",
            |h| {
                installed(h, &h.at("bin/dockerd-rootless.sh"));
            },
        ),
        case(
            "the daemon's programs were moved",
            Class,
            "unit-stale",
            "setuptool.sh install",
            |h| {
                installed(h, &h.at("old/launcher"));
            },
        ),
        case(
            "the daemon's programs are no longer executable",
            Class,
            "unit-stale",
            "setuptool.sh install",
            |h| {
                h.write("old/launcher", "");
                installed(h, &h.at("old/launcher"));
            },
        ),
        case(
            "the daemon's programs exist, and the daemon is stopped",
            Advisory,
            "daemon-stopped",
            "start docker.service",
            |h| {
                h.program("opt/My 50%/dockerd-rootless.sh");
                installed(h, &h.at("opt/My 50%/dockerd-rootless.sh"));
            },
        ),
        case(
            "the daemon is stopped, and the journal names the cause",
            Class,
            "log-cgroup-driver daemon-stopped",
            "remove native.cgroupdriver",
            |h| {
                installed(h, &h.at("bin/dockerd-rootless.sh"));
                let line =
                    "exec-opt native.cgroupdriver=systemd requires cgroup v2 for rootless mode";
                h.script("bin/systemctl", "echo failed");
                h.script("bin/journalctl", &format!("echo '{line}'"));
            },
        ),
        case(
            "the user stopped the daemon, and its log contains an earlier error that was not the cause",
            Advisory,
            "daemon-stopped",
            "systemctl --user start docker.service",
            |h| {
                installed(h, &h.at("bin/dockerd-rootless.sh"));
                h.script("bin/systemctl", "echo inactive");
                h.script("bin/journalctl", "echo 'lchown /x: invalid argument'");
            },
        ),
        case(
            "a supervised daemon is stopped, and its log names the cause",
            Class,
            "log-second-daemon no-systemd",
            "pkill -x dockerd",
            |h| {
                h.without_systemd();
                h.write(
                    "home/.local/state/docker-rootless/docker.log",
                    "error: another RootlessKit is running with the same state directory\n",
                );
            },
        ),
        case(
            "an older log, of another supervisor, contains an error",
            Advisory,
            "no-systemd",
            "",
            |h| {
                h.without_systemd();
                let (old, new) = ("docker.log", "log/current");
                let dir = "home/.local/state/docker-rootless";
                h.write(&format!("{dir}/{new}"), "terminated\n");
                h.write(&format!("{dir}/{old}"), "lchown /x: invalid argument\n");
                let file = std::fs::File::options().write(true).open(h.at(&format!("{dir}/{old}")));
                let before = std::time::SystemTime::UNIX_EPOCH;
                file.and_then(|file| file.set_modified(before)).expect("a time");
            },
        ),
        case("systemd is not running", Advisory, "no-systemd", "", |h| h.without_systemd()),
    ]
}

#[test]
fn a_program_that_is_there_is_not_called_lost() {
    for (file, seen) in [("old/launcher", "which cannot be run"), ("x", "which does not exist")] {
        let host = Host::healthy();
        host.write(file, "");
        installed(&host, &host.at("old/launcher"));
        let findings = diagnose(&host.facts(), Wish::default());
        let stale = findings.iter().find(|finding| finding.code == "unit-stale").unwrap();
        assert!(stale.seen.ends_with(seen), "{}", stale.seen);
    }
}

#[test]
fn situations_of_user_and_home() {
    all(&user_and_home());
}

pub(super) fn user_and_home() -> Vec<Case> {
    vec![
        case("the command runs as root", Fatal, "root", "machinectl shell USER@", |h| {
            h.world.uid = 0;
        })
        .facts(|facts| facts.account.runtime.state = RuntimeState::Foreign(0)),
        case(
            "/proc is not mounted, as in a bare chroot",
            Fatal,
            "proc-missing",
            "mount -t proc",
            |h| {
                h.remove("proc");
            },
        ),
        case("the host is WSL 1", Fatal, "not-linux", "wsl --set-version DISTRIBUTION 2", |h| {
            h.write("proc/sys/kernel/osrelease", "4.4.0-19041-Microsoft\n");
        }),
        case("the host is WSL 2", Fatal, "", "", |h| {
            h.write("proc/sys/kernel/osrelease", "5.15.90.1-microsoft-standard-WSL2\n");
        }),
        case(
            "the host is another system that emulates Linux",
            Fatal,
            "not-linux",
            "Linux host",
            |h| {
                h.write("proc/sys/kernel/ostype", "FreeBSD\n");
            },
        ),
        case("HOME is not set", Fatal, "home-unset", "export HOME=", |h| h.unset("HOME")),
        case("HOME does not exist", Fatal, "home-missing", "install -d -m 0700 -o jo", |h| {
            h.remove("home");
        }),
        case("HOME is a relative path", Fatal, "home-relative", "getent passwd jo", |h| {
            h.set("HOME", "x");
        }),
        case("root created HOME", Fatal, "home-foreign", "chown jo: /home/jo", |_| {})
            .facts(|facts| facts.account.home = Home::Withheld("/home/jo".into(), 0)),
        case(
            "~/.docker belongs to root",
            Class,
            "config-closed",
            "chown -R jo: /home/jo/.docker",
            |_| {},
        )
        .facts(|facts| close(facts, "/home/jo/.docker", WhyClosed::Foreign)),
        case(
            "~/.config belongs to root",
            Fatal,
            "config-closed",
            "chown -R jo: /home/jo/.config",
            |_| {},
        )
        .facts(|facts| close(facts, "/home/jo/.config", WhyClosed::Foreign))
        .wish(INSTALL),
        case(
            "~/.config is not writable",
            Class,
            "config-closed",
            "chmod u+rwx /home/jo/.config",
            |_| {},
        )
        .facts(|facts| close(facts, "/home/jo/.config", WhyClosed::Mode)),
        case(
            "~/.config is a link to another user's directory",
            Class,
            "config-closed",
            "link to /srv/config,",
            |_| {},
        )
        .facts(|facts| close(facts, "/srv/config", WhyClosed::Outside)),
        case(
            "~/.config is on a read-only file system",
            Class,
            "config-closed",
            "remount,rw MOUNTPOINT",
            |_| {},
        )
        .facts(|facts| close(facts, "/store/c", WhyClosed::ReadOnly)),
        case("daemon.json has a syntax error", Fatal, "daemon-json", "dockerd --validate", |h| {
            h.write("home/.config/docker/daemon.json", "{\"debug\": true,}");
        }),
        case("daemon.json has a byte order mark", Fatal, "", "", |h| {
            h.write("home/.config/docker/daemon.json", "\u{feff}{\"debug\": true}");
        }),
        case("daemon.json is empty", Fatal, "", "", |h| {
            h.write("home/.config/docker/daemon.json", "\n");
        }),
        case("rootlesskit is not executable", Fatal, "not-executable", "chmod 0755", |h| {
            h.mode(&h.at("bin/rootlesskit"), 0o644);
        })
        .facts(|facts| facts.tools.unusable.values_mut().for_each(|found| found.own = true)),
        case(
            "root's docker-rootlesskit is not executable",
            Fatal,
            "not-executable",
            "chmod 0755",
            |h| {
                h.remove("bin/rootlesskit");
                h.program("bin/docker-rootlesskit");
                h.mode(&h.at("bin/docker-rootlesskit"), 0o644);
            },
        )
        .facts(|facts| facts.tools.unusable.values_mut().for_each(|found| found.own = false)),
        case(
            "dockerd-rootless in the tool's directory is not executable",
            Fatal,
            "not-executable",
            "chmod 0755",
            |h| {
                h.remove("bin/dockerd-rootless.sh");
                h.program("beside/dockerd-rootless");
                h.mode(&h.at("beside/dockerd-rootless"), 0o644);
                h.world.own_dir = Some(h.at("beside"));
            },
        )
        .facts(|facts| facts.tools.unusable.values_mut().for_each(|found| found.own = true)),
        case(
            "dockerd-rootless.sh is on a noexec mount",
            Fatal,
            "not-executable",
            "remount,exec",
            |h| {
                h.mode(&h.at("bin/dockerd-rootless.sh"), 0o644);
            },
        )
        .facts(|facts| {
            facts.tools.unusable.values_mut().for_each(|found| found.noexec = true);
        }),
        case("HOME is root's (common after sudo)", Fatal, "home-foreign", "export HOME=", |_| {})
            .facts(|facts| facts.account.home = Home::Foreign("/root".into(), 0)),
        case("HOME is read-only", Fatal, "home-read-only", "chmod u+rwx /home/jo", |_| {})
            .facts(|facts| facts.account.home = Home::ReadOnly("/home/jo".into())),
        case(
            "dockerd-rootless.sh is missing",
            Fatal,
            "launcher-missing",
            "apt-get install ./docker-ce-rootless-extras_*.deb",
            |h| {
                h.remove("bin/dockerd-rootless.sh");
            },
        ),
        case(
            "dockerd-rootless.sh is missing on Alpine",
            Fatal,
            "launcher-missing",
            "docker-rootless-extras",
            |h| {
                h.os("ID=alpine\n");
                h.remove("bin/dockerd-rootless.sh");
            },
        ),
        case(
            "dockerd-rootless.sh is missing on NixOS",
            Fatal,
            "launcher-missing",
            "packaging/templates",
            |h| {
                h.os("ID=nixos\n");
                h.remove("bin/dockerd-rootless.sh");
            },
        ),
        case(
            "rootlesskit is missing",
            Fatal,
            "rootlesskit-missing",
            "docker-ce-rootless-extras",
            |h| {
                h.remove("bin/rootlesskit");
            },
        ),
        case("only docker-rootlesskit is installed", Fatal, "", "", |h| {
            h.remove("bin/rootlesskit");
            h.program("bin/docker-rootlesskit");
        }),
        case("the docker CLI is missing", Class, "docker-cli-missing", "docker-ce-cli", |h| {
            h.remove("bin/docker");
        }),
        case(
            "the docker CLI is missing, before an installation",
            Fatal,
            "docker-cli-missing",
            "docker-ce-cli",
            |h| {
                h.remove("bin/docker");
            },
        )
        .wish(INSTALL),
        case("dockerd is in /usr/sbin, which is not in PATH", Fatal, "", "", |h| {
            h.remove("bin/dockerd");
            h.program("usr/sbin/dockerd");
        })
        .wish(INSTALL),
        case("DOCKERD is a quoted path with a space and arguments", Fatal, "", "", |h| {
            h.remove("bin/dockerd");
            h.program("opt/My Docker/dockerd");
            let path = h.at("opt/My Docker/dockerd");
            h.set("DOCKERD", &format!("'{}' --debug", path.display()));
        })
        .wish(INSTALL),
        case(
            "dockerd is missing on Arch",
            Fatal,
            "dockerd-missing",
            "sudo pacman -S --needed docker",
            |h| {
                h.os("ID=arch\n");
                h.remove("bin/dockerd");
            },
        )
        .wish(INSTALL),
    ]
}

fn close(facts: &mut Facts, real: &str, why: WhyClosed) {
    facts.account.closed = vec![Closed { dir: "/home/jo/.config".into(), real: real.into(), why }];
}

#[test]
fn situations_of_others_in_the_way() {
    all(&others_in_the_way());
}

pub(super) fn others_in_the_way() -> Vec<Case> {
    let force = Wish { force: true, ..INSTALL };
    let disable = "sudo systemctl disable --now docker.service docker.socket";
    vec![
        case(
            "rootful Docker is running, and the user can access it",
            Fatal,
            "rootful-docker",
            disable,
            |h| {
                h.write("var/run/docker.sock", "");
            },
        ),
        case(
            "rootful Docker is running, with --force",
            Class,
            "rootful-docker",
            "sudo rm -f /var/run/docker.sock",
            |h| {
                h.write("var/run/docker.sock", "");
            },
        )
        .wish(force),
        case(
            "rootful Docker is running, and the user cannot access it",
            Advisory,
            "rootful-docker-beside",
            disable,
            |h| {
                h.write("var/run/docker.sock", "");
            },
        )
        .facts(|facts| facts.tools.rootful = Some(("/var/run/docker.sock".into(), false))),
        case(
            "rootful Docker is active without a socket",
            Advisory,
            "rootful-docker-beside",
            disable,
            |h| {
                h.write("run/systemd/units/x", "");
                h.link("run/systemd/units/invocation:docker.service", "0123456789abcdef");
            },
        ),
        case(
            "rootful Docker is running, without systemd",
            Advisory,
            "rootful-docker-beside no-systemd",
            "sudo kill \"$(cat /run/docker.pid)\"",
            |h| {
                h.without_systemd();
                h.write("run/docker.pid", "77\n");
                h.write("proc/77/comm", "dockerd\n");
            },
        ),
        case("only the PID file of a stopped rootful Docker daemon is left", Fatal, "", "", |h| {
            h.write("run/docker.pid", "77");
            h.write("proc/77/comm", "bash\n");
        }),
        case(
            "DOCKER_HOST points to another daemon",
            Advisory,
            "docker-host-elsewhere",
            "unset DOCKER_HOST",
            |h| h.set("DOCKER_HOST", "unix:///var/run/docker.sock"),
        ),
        case("DOCKER_HOST points to this daemon", Fatal, "", "", |h| {
            let host = format!("unix://{}/docker.sock", h.runtime().display());
            h.set("DOCKER_HOST", &host);
            h.set("DOCKER_CONTEXT", "x");
        }),
        case(
            "DOCKER_CONTEXT selects another context",
            Advisory,
            "docker-host-elsewhere",
            "unset DOCKER_CONTEXT",
            |h| {
                h.set("DOCKER_CONTEXT", "default");
            },
        ),
        case(
            "the current context was deleted",
            Class,
            "context-missing",
            "docker --context=default context use default",
            |h| h.write("home/.docker/config.json", "{\"currentContext\": \"work\"}"),
        ),
        case(
            "the context points to a former runtime directory",
            Advisory,
            "context-elsewhere",
            "docker context update rootless --docker host=",
            |h| context(h, "unix:///home/jo/.docker/run/docker.sock"),
        ),
        case("the context points to this daemon", Advisory, "", "", |h| {
            let host = format!("unix://{}/docker.sock", h.runtime().display());
            h.write("home/.docker/config.json", "{\"currentContext\": \"rootless\"}");
            context(h, &host);
        }),
        case("a stale containerd-rootless directory exists", Fatal, "", "", |h| {
            let dir = h.runtime().join("containerd-rootless");
            std::fs::create_dir(&dir).expect("directory");
            std::fs::write(dir.join("child_pid"), "7").expect("file");
        }),
        case(
            "containerd-rootless is running (--force does not help)",
            Fatal,
            "containerd-rootless",
            "uninstall",
            |h| {
                let dir = h.runtime().join("containerd-rootless");
                std::fs::create_dir(&dir).expect("directory");
                std::fs::write(dir.join("child_pid"), "7").expect("file");
                h.write("proc/7/environ", &format!("ROOTLESSKIT_STATE_DIR={}\0", dir.display()));
            },
        )
        .wish(force),
    ]
}

fn context(host: &Host, endpoint: &str) {
    let meta = format!(
        "{{\"Name\":\"rootless\",\"Endpoints\":{{\"docker\":{{\"Host\":\"{endpoint}\"}}}}}}"
    );
    host.write("home/.docker/contexts/meta/0/meta.json", &meta);
}

#[test]
fn machinectl_is_to_be_installed_only_where_it_is_missing() {
    let mut host = Host::healthy();
    host.fails(Probe::UserManager, "Failed to connect to bus: No such file or directory");
    let remedy = |host: &Host| {
        let findings = diagnose(&host.facts(), Wish::default());
        let finding = findings.iter().find(|finding| finding.code == "user-manager").unwrap();
        super::remedy(finding).join("\n")
    };
    assert!(remedy(&host).contains("install -y systemd-container"), "{}", remedy(&host));
    host.program("bin/machinectl");
    let with = remedy(&host);
    assert!(!with.contains("install") && with.contains("machinectl shell jo@"), "{with}");
}
