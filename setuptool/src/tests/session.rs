use super::Severity::{Advisory, Class, Fatal};
use super::{INSTALL, all, case};
use crate::doctor::Wish;
use crate::facts::{Home, RuntimeState};
use crate::probe::Probe;

#[test]
fn f012_f045_f046_f047_f116_f153_f154_the_runtime_directory() {
    all(&[
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
    ]);
}

#[test]
fn f011_f019_f111_f112_f115_f147_f155_f159_service_manager_and_bus() {
    all(&[
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
        case("system unit with User=", Advisory, "system-unit", "install", |h| {
            h.write("proc/self/cgroup", "0::/system.slice/docker-jo.service\n");
        }),
        case(
            "installed and stopped",
            Advisory,
            "daemon-stopped",
            "systemctl --user start docker.service",
            |h| {
                h.write("home/.config/systemd/user/docker.service", "");
            },
        ),
        case("no systemd at all", Advisory, "no-systemd", "", |h| h.without_systemd()),
    ]);
}

#[test]
fn f022_f105_f171_user_and_home() {
    all(&[
        case("root", Fatal, "root", "machinectl shell USER@", |h| h.world.uid = 0)
            .facts(|facts| facts.account.runtime.state = RuntimeState::Foreign(0)),
        case("no HOME", Fatal, "home-unset", "export HOME=", |h| h.unset("HOME")),
        case("HOME is not there", Fatal, "home-missing", "install -d -m 0700 -o jo", |h| {
            h.remove("home");
        }),
        case("HOME is read-only", Fatal, "home-read-only", "", |_| {})
            .facts(|facts| facts.account.home = Home::ReadOnly("/home/jo".into())),
        case(
            "no launcher",
            Fatal,
            "launcher-missing",
            "apt-get install -y docker-ce-rootless-extras",
            |h| {
                h.remove("bin/dockerd-rootless.sh");
            },
        ),
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
        case("no dockerd", Fatal, "dockerd-missing", "sudo pacman -S --needed docker", |h| {
            h.os("ID=arch\n");
            h.remove("bin/dockerd");
        })
        .wish(INSTALL),
    ]);
}

#[test]
fn f103_f104_f172_others_in_the_way() {
    let force = Wish { force: true, ..INSTALL };
    let disable = "sudo systemctl disable --now docker.service docker.socket";
    all(&[
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
    ]);
}
