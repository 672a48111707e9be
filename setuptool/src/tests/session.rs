use std::path::Path;

use super::Severity::{Advisory, Class, Fatal};
use super::host::Host;
use super::{Case, INSTALL, all, case};
use crate::doctor::{Wish, diagnose};
use crate::facts::{Closed, Facts, Home, RuntimeState, WhyClosed};
use crate::probe::Probe;
use crate::unit;

#[test]
fn f012_f045_f046_f047_f116_f153_f154_the_runtime_directory() {
    all(&the_runtime_directory());
}

pub(super) fn the_runtime_directory() -> Vec<Case> {
    vec![
        case("unset, and no session", Fatal, "runtime-dir", "machinectl shell jo@", |h| {
            h.unset("XDG_RUNTIME_DIR");
            h.remove(&format!("run/user/{}", h.world.uid));
        }),
        case(
            "unset after su, but there is one",
            Advisory,
            "runtime-dir-found",
            "export XDG_RUNTIME_DIR=",
            |h| {
                h.unset("XDG_RUNTIME_DIR");
            },
        ),
        case("not there", Fatal, "runtime-dir", "loginctl enable-linger jo", |h| {
            h.remove("run/user");
        }),
        case("a relative path", Fatal, "runtime-dir", "export XDG_RUNTIME_DIR=", |h| {
            h.set("XDG_RUNTIME_DIR", ".");
        }),
        case("of root, after su", Fatal, "runtime-dir", "export XDG_RUNTIME_DIR=", |h| {
            let dir = h.at("run/user/0");
            h.write("run/user/0/bus", "");
            h.set("XDG_RUNTIME_DIR", dir.to_str().expect("a path"));
        })
        .facts(|facts| facts.account.runtime.state = RuntimeState::Foreign(0)),
        case("read-only", Fatal, "runtime-dir", "XDG_RUNTIME_DIR", |_| {})
            .facts(|facts| facts.account.runtime.state = RuntimeState::ReadOnly),
        case("below /tmp", Advisory, "runtime-dir-tmp", ".docker/run", |h| {
            let dir = h.at("tmp/run");
            h.write("tmp/run/bus", "");
            h.mode(&dir, 0o700);
            h.set("XDG_RUNTIME_DIR", dir.to_str().expect("a path"));
        })
        .facts(|facts| {
            facts.account.runtime.state = RuntimeState::Fine;
            facts.account.bus = true;
        }),
        case("open to others", Advisory, "runtime-dir-open", "chmod 0700", |h| {
            h.mode(&h.runtime(), 0o755);
        }),
        case("too long", Fatal, "runtime-dir-long", "shorter", |_| {})
            .facts(|facts| facts.account.runtime.dir = Some(format!("/{}", "x".repeat(80)).into())),
        case("no systemd, unset: install makes one", Advisory, "no-systemd", "", |h| {
            h.without_systemd();
            h.unset("XDG_RUNTIME_DIR");
            h.remove("run/user");
        }),
        case("no systemd, wrong", Fatal, "runtime-dir no-systemd", "mkdir -p -m 0700", |h| {
            h.without_systemd();
            h.remove("run/user");
        }),
    ]
}

#[test]
fn f011_f019_f111_f112_f115_f147_f155_f159_service_manager_and_bus() {
    all(&service_manager_and_bus());
}

/// A unit as an earlier `install` with that launcher wrote it.
pub(super) fn installed(host: &Host, launcher: &Path) {
    for unit in unit::wanted(&host.world, launcher, false, false).expect("a home") {
        unit.write().expect("a unit");
    }
}

pub(super) fn service_manager_and_bus() -> Vec<Case> {
    vec![
        case("no manager, as on CentOS 7", Class, "user-manager", "machinectl shell jo@", |h| {
            h.fails(Probe::UserManager, "Failed to connect to bus: No such file or directory");
        }),
        case(
            "a directory of one's own hides the manager",
            Class,
            "user-manager",
            "it listens in another directory: export XDG_RUNTIME_DIR=",
            |h| {
                h.fails(Probe::UserManager, "Failed to connect to bus: No such file or directory");
            },
        )
        .facts(|facts| facts.account.runtime.dir = Some("/home/jo/.docker/run".into())),
        case("no bus on Debian", Class, "user-bus", "apt-get install -y dbus-user-session", |h| {
            h.remove("usr/lib/systemd");
            std::fs::remove_file(h.runtime().join("bus")).expect("bus");
        }),
        case("no bus, to be installed", Fatal, "user-bus", "log out and in", |h| {
            h.remove("usr/lib/systemd");
            std::fs::remove_file(h.runtime().join("bus")).expect("bus");
        })
        .wish(INSTALL),
        case("no bus on Fedora", Class, "user-bus", "dnf install -y dbus-daemon", |h| {
            h.os("ID=fedora\n");
            h.remove("usr/lib/systemd");
            std::fs::remove_file(h.runtime().join("bus")).expect("bus");
        }),
        case(
            "a bus that is not running",
            Class,
            "user-bus-stopped",
            "systemctl --user enable --now dbus.socket",
            |h| {
                std::fs::remove_file(h.runtime().join("bus")).expect("bus");
            },
        ),
        case("a bus elsewhere", Class, "", "", |h| {
            std::fs::remove_file(h.runtime().join("bus")).expect("bus");
            h.write("run/other-bus", "");
            let address = format!("unix:path={},guid=1", h.at("run/other-bus").display());
            h.set("DBUS_SESSION_BUS_ADDRESS", &address);
        }),
        case("no linger", Advisory, "linger", "sudo loginctl enable-linger jo", |h| {
            h.remove("var/lib/systemd/linger/jo");
        }),
        case("no linger on NixOS", Advisory, "linger", "users.users.jo.linger = true;", |h| {
            h.os("ID=nixos\n");
            h.remove("var/lib/systemd/linger/jo");
        }),
        case("system unit with User=", Advisory, "system-unit", "install", |h| {
            h.write("proc/self/cgroup", "0::/system.slice/docker-jo.service\n");
        }),
        case(
            "installed and stopped",
            Advisory,
            "daemon-stopped",
            "systemctl --user start docker.service",
            |h| {
                installed(h, &h.at("bin/dockerd-rootless.sh"));
            },
        ),
        case("its programs were moved", Class, "unit-stale", "setuptool.sh install", |h| {
            installed(h, &h.at("old/launcher"));
        }),
        case("its programs lost x", Class, "unit-stale", "setuptool.sh install", |h| {
            h.write("old/launcher", "");
            installed(h, &h.at("old/launcher"));
        }),
        case("its programs are there", Advisory, "daemon-stopped", "start docker.service", |h| {
            h.program("opt/My 50%/dockerd-rootless.sh");
            installed(h, &h.at("opt/My 50%/dockerd-rootless.sh"));
        }),
        case(
            "stopped, and the journal says why",
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
            "stopped by its user, after an error that did not end it",
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
            "stopped under a supervisor, and its log says why",
            Class,
            "log-second-daemon no-systemd",
            "stop the other one",
            |h| {
                h.without_systemd();
                h.write(
                    "home/.local/state/docker-rootless/docker.log",
                    "error: another RootlessKit is running with the same state directory\n",
                );
            },
        ),
        case("the log of a former supervisor explains nothing", Advisory, "no-systemd", "", |h| {
            h.without_systemd();
            let (old, new) = ("docker.log", "log/current");
            let dir = "home/.local/state/docker-rootless";
            h.write(&format!("{dir}/{new}"), "terminated\n");
            h.write(&format!("{dir}/{old}"), "lchown /x: invalid argument\n");
            let file = std::fs::File::options().write(true).open(h.at(&format!("{dir}/{old}")));
            let before = std::time::SystemTime::UNIX_EPOCH;
            file.and_then(|file| file.set_modified(before)).expect("a time");
        }),
        case("no systemd at all", Advisory, "no-systemd", "", |h| h.without_systemd()),
    ]
}

#[test]
fn f148_a_program_that_is_there_is_not_called_lost() {
    for (file, seen) in [("old/launcher", "which cannot be run"), ("x", "which is not there")] {
        let host = Host::healthy();
        host.write(file, "");
        installed(&host, &host.at("old/launcher"));
        let findings = diagnose(&Facts::gather(&host.world, &host.prober), Wish::default());
        let stale = findings.iter().find(|finding| finding.code == "unit-stale").unwrap();
        assert!(stale.seen.ends_with(seen), "{}", stale.seen);
    }
}

#[test]
fn f022_f105_f171_user_and_home() {
    all(&user_and_home());
}

pub(super) fn user_and_home() -> Vec<Case> {
    vec![
        case("root", Fatal, "root", "machinectl shell USER@", |h| h.world.uid = 0)
            .facts(|facts| facts.account.runtime.state = RuntimeState::Foreign(0)),
        case("no /proc, as in a bare chroot", Fatal, "proc-missing", "mount -t proc", |h| {
            h.remove("proc");
        }),
        case("WSL 1", Fatal, "not-linux", "wsl --set-version DISTRIBUTION 2", |h| {
            h.write("proc/sys/kernel/osrelease", "4.4.0-19041-Microsoft\n");
        }),
        case("WSL 2", Fatal, "", "", |h| {
            h.write("proc/sys/kernel/osrelease", "5.15.90.1-microsoft-standard-WSL2\n");
        }),
        case("the Linux emulation of another system", Fatal, "not-linux", "Linux host", |h| {
            h.write("proc/sys/kernel/ostype", "FreeBSD\n");
        }),
        case("no HOME", Fatal, "home-unset", "export HOME=", |h| h.unset("HOME")),
        case("HOME is not there", Fatal, "home-missing", "install -d -m 0700 -o jo", |h| {
            h.remove("home");
        }),
        case("a relative HOME", Fatal, "home-relative", "getent passwd jo", |h| h.set("HOME", "x")),
        case("HOME made by root", Fatal, "home-foreign", "chown jo: /home/jo", |_| {})
            .facts(|facts| facts.account.home = Home::Withheld("/home/jo".into(), 0)),
        case("~/.docker of root", Class, "config-closed", "chown -R jo: /home/jo/.docker", |_| {})
            .facts(|facts| close(facts, "/home/jo/.docker", WhyClosed::Foreign)),
        case("~/.config of root", Fatal, "config-closed", "chown -R jo: /home/jo/.config", |_| {})
            .facts(|facts| close(facts, "/home/jo/.config", WhyClosed::Foreign))
            .wish(INSTALL),
        case("~/.config locked", Class, "config-closed", "chmod u+rwx /home/jo/.config", |_| {})
            .facts(|facts| close(facts, "/home/jo/.config", WhyClosed::Mode)),
        case("~/.config links to others", Class, "config-closed", "lead to /srv/config,", |_| {})
            .facts(|facts| close(facts, "/srv/config", WhyClosed::Outside)),
        case("~/.config in a store", Class, "config-closed", "/store/c is read-only", |_| {})
            .facts(|facts| close(facts, "/store/c", WhyClosed::ReadOnly)),
        case("daemon.json with a slip", Fatal, "daemon-json", "dockerd --validate", |h| {
            h.write("home/.config/docker/daemon.json", "{\"debug\": true,}");
        }),
        case("daemon.json with a byte order mark", Fatal, "", "", |h| {
            h.write("home/.config/docker/daemon.json", "\u{feff}{\"debug\": true}");
        }),
        case("an empty daemon.json", Fatal, "", "", |h| {
            h.write("home/.config/docker/daemon.json", "\n");
        }),
        case("a rootlesskit without x", Fatal, "not-executable", "chmod 0755", |h| {
            h.mode(&h.at("bin/rootlesskit"), 0o644);
        })
        .facts(|facts| facts.tools.unusable.values_mut().for_each(|found| found.own = true)),
        case(
            "a docker-rootlesskit of root without x",
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
            "a launcher beside this program without x",
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
        case("a launcher on noexec", Fatal, "not-executable", "remount,exec", |h| {
            h.mode(&h.at("bin/dockerd-rootless.sh"), 0o644);
        })
        .facts(|facts| {
            facts.tools.unusable.values_mut().for_each(|found| found.noexec = true);
        }),
        case("HOME of root, as sudo leaves it", Fatal, "home-foreign", "export HOME=", |_| {})
            .facts(|facts| facts.account.home = Home::Foreign("/root".into(), 0)),
        case("HOME is read-only", Fatal, "home-read-only", "chmod u+rwx /home/jo", |_| {})
            .facts(|facts| facts.account.home = Home::ReadOnly("/home/jo".into())),
        case(
            "no launcher",
            Fatal,
            "launcher-missing",
            "apt-get install ./docker-ce-rootless-extras_*.deb",
            |h| {
                h.remove("bin/dockerd-rootless.sh");
            },
        ),
        case("no launcher on Alpine", Fatal, "launcher-missing", "docker-rootless-extras", |h| {
            h.os("ID=alpine\n");
            h.remove("bin/dockerd-rootless.sh");
        }),
        case("no launcher on NixOS", Fatal, "launcher-missing", "packaging/templates", |h| {
            h.os("ID=nixos\n");
            h.remove("bin/dockerd-rootless.sh");
        }),
        case("no rootlesskit", Fatal, "rootlesskit-missing", "docker-ce-rootless-extras", |h| {
            h.remove("bin/rootlesskit");
        }),
        case("docker-rootlesskit will do", Fatal, "", "", |h| {
            h.remove("bin/rootlesskit");
            h.program("bin/docker-rootlesskit");
        }),
        case("no docker, only looking", Class, "docker-cli-missing", "docker-ce-cli", |h| {
            h.remove("bin/docker");
        }),
        case("no docker, to be installed", Fatal, "docker-cli-missing", "docker-ce-cli", |h| {
            h.remove("bin/docker");
        })
        .wish(INSTALL),
        case("dockerd in /usr/sbin, which no login's PATH names", Fatal, "", "", |h| {
            h.remove("bin/dockerd");
            h.program("usr/sbin/dockerd");
        })
        .wish(INSTALL),
        case("DOCKERD is a quoted path with a space, and has arguments", Fatal, "", "", |h| {
            h.remove("bin/dockerd");
            h.program("opt/My Docker/dockerd");
            let path = h.at("opt/My Docker/dockerd");
            h.set("DOCKERD", &format!("'{}' --debug", path.display()));
        })
        .wish(INSTALL),
        case("no dockerd", Fatal, "dockerd-missing", "sudo pacman -S --needed docker", |h| {
            h.os("ID=arch\n");
            h.remove("bin/dockerd");
        })
        .wish(INSTALL),
    ]
}

fn close(facts: &mut Facts, real: &str, why: WhyClosed) {
    facts.account.closed = vec![Closed { dir: "/home/jo/.config".into(), real: real.into(), why }];
}

#[test]
fn f103_f104_f172_others_in_the_way() {
    all(&others_in_the_way());
}

pub(super) fn others_in_the_way() -> Vec<Case> {
    let force = Wish { force: true, ..INSTALL };
    let disable = "sudo systemctl disable --now docker.service docker.socket";
    vec![
        case("rootful Docker", Fatal, "rootful-docker", disable, |h| {
            h.write("var/run/docker.sock", "");
        }),
        case("--force", Class, "rootful-docker", "sudo rm -f /var/run/docker.sock", |h| {
            h.write("var/run/docker.sock", "");
        })
        .wish(force),
        case("not for this user", Advisory, "rootful-docker-beside", disable, |h| {
            h.write("var/run/docker.sock", "");
        })
        .facts(|facts| facts.tools.rootful = Some(("/var/run/docker.sock".into(), false))),
        case("active without a socket", Advisory, "rootful-docker-beside", disable, |h| {
            h.write("run/systemd/units/x", "");
            h.link("run/systemd/units/invocation:docker.service", "0123456789abcdef");
        }),
        case(
            "running without systemd",
            Advisory,
            "rootful-docker-beside no-systemd",
            disable,
            |h| {
                h.without_systemd();
                h.write("run/docker.pid", "77\n");
                h.write("proc/77/comm", "dockerd\n");
            },
        ),
        case("the pid file of a dead one", Fatal, "", "", |h| {
            h.write("run/docker.pid", "77");
            h.write("proc/77/comm", "bash\n");
        }),
        case(
            "DOCKER_HOST of another",
            Advisory,
            "docker-host-elsewhere",
            "unset DOCKER_HOST",
            |h| h.set("DOCKER_HOST", "unix:///var/run/docker.sock"),
        ),
        case("DOCKER_HOST of one's own", Fatal, "", "", |h| {
            let host = format!("unix://{}/docker.sock", h.runtime().display());
            h.set("DOCKER_HOST", &host);
            h.set("DOCKER_CONTEXT", "x");
        }),
        case("another context", Advisory, "docker-host-elsewhere", "unset DOCKER_CONTEXT", |h| {
            h.set("DOCKER_CONTEXT", "default");
        }),
        case(
            "the current context is gone",
            Class,
            "context-missing",
            "docker --context=default context use default",
            |h| h.write("home/.docker/config.json", "{\"currentContext\": \"work\"}"),
        ),
        case(
            "a context of a former runtime directory",
            Advisory,
            "context-elsewhere",
            "docker context update rootless --docker host=",
            |h| context(h, "unix:///home/jo/.docker/run/docker.sock"),
        ),
        case("the context of this daemon", Advisory, "", "", |h| {
            let host = format!("unix://{}/docker.sock", h.runtime().display());
            h.write("home/.docker/config.json", "{\"currentContext\": \"rootless\"}");
            context(h, &host);
        }),
        case("a stale directory", Fatal, "", "", |h| {
            let dir = h.runtime().join("containerd-rootless");
            std::fs::create_dir(&dir).expect("directory");
            std::fs::write(dir.join("child_pid"), "7").expect("file");
        }),
        case(
            "containerd-rootless runs, --force does not help",
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
