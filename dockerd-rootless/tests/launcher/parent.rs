//! The parent pass with the real binary: an ordinary user, stub programs, and a rootlesskit that records
//! what it is started with. Needs root, to become an ordinary user.

use std::fs::{self, File, Permissions};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use crate::place::{Place, RECORD, finish};
use nix::fcntl::{Flock, FlockArg};

#[test]
fn the_whole_vector_and_untouched_options() {
    let place = Place::new();
    let done =
        place.launch(&["--experimental", "--storage-driver", "vfs", "", "a b", "--label=x=*"]);
    done.exits(0).says("INFO: starting dockerd 28.5.2");
    assert_eq!(done.stdout, "");
    let state_dir = format!("--state-dir={}/dockerd-rootless", place.text("run"));
    assert_eq!(
        place.argv(),
        [
            &state_dir,
            "--net=slirp4netns",
            "--mtu=65520",
            "--slirp4netns-sandbox=auto",
            "--slirp4netns-seccomp=auto",
            "--disable-host-loopback",
            "--port-driver=builtin",
            "--copy-up=/etc",
            "--copy-up=/run",
            "--propagation=rslave",
            place.binary().to_str().unwrap(),
            "--experimental",
            "--storage-driver",
            "vfs",
            "",
            "a b",
            "--label=x=*",
        ]
    );
    assert_eq!(place.recorded_env("_DOCKERD_ROOTLESS_CHILD").as_deref(), Some("1"));
}

#[test]
fn rootlesskit_takes_the_place_of_the_launcher() {
    let mut place = Place::new();
    place.set("NOTIFY_SOCKET", "/run/notify");
    place.set("LISTEN_FDS", "1");
    place.stub("rootlesskit", &format!("{RECORD}\nexit 42"));
    let done = place.launch(&[]);
    done.exits(42);
    assert_eq!(place.recorded("pid").trim(), done.pid.to_string());
    assert_eq!(place.recorded_env("NOTIFY_SOCKET").as_deref(), Some("/run/notify"));
    assert_eq!(place.recorded_env("LISTEN_FDS").as_deref(), Some("1"));
}

#[test]
fn a_relative_link_with_a_foreign_name_is_resolved() {
    let place = Place::new();
    symlink("dockerd-rootless", place.at("app/dockerd-rootless.sh")).unwrap();
    finish(place.command(Path::new("../app/dockerd-rootless.sh"))).exits(0);
    assert_eq!(place.argv().last().map(String::as_str), place.binary().to_str());
}

#[test]
fn help_comes_from_dockerd_without_namespaces() {
    let place = Place::new();
    place.stub("dockerd", "echo dockerd got $1");
    let done = place.launch(&["--help"]);
    done.exits(0);
    assert!(done.stdout.starts_with("Usage: dockerd-rootless.sh [DOCKERD OPTIONS]\n"));
    assert!(done.stdout.ends_with("\ndockerd got --help\n"), "{}", done.stdout);
    let done = place.launch(&["--version"]);
    done.exits(0);
    assert_eq!((done.stdout.as_str(), place.argv().len()), ("dockerd got --version\n", 0));
}

#[test]
fn the_driver_follows_what_is_installed() {
    let place = Place::new();
    let net = || place.argv().get(1).cloned().unwrap_or_default();
    place.stub("pasta", "echo pasta 2024_12_11.09478d5");
    place.stub("slirp4netns", "echo 'Usage: slirp4netns [OPTION]... PID TAPNAME'");
    place.launch(&[]).exits(0).says("WARN: ").says("older than 0.4.0");
    assert_eq!(net(), "--net=pasta");
    place.stub("slirp4netns", "echo libslirp.so.0: cannot open >&2; exit 127");
    let says = "slirp4netns: running it with --help failed: libslirp.so.0: cannot open";
    place.launch(&[]).exits(0).says("WARN: ").says(says);
    assert_eq!(net(), "--net=pasta");
    place.stub("pasta", "echo 'pasta 0.0~git20230309.7c7625d-1+deb12u1'");
    place.stub("vpnkit", "");
    place.launch(&[]).exits(0).says("version 2023_03_09");
    assert_eq!(net(), "--net=vpnkit");
    for name in ["vpnkit", "slirp4netns", "pasta"] {
        place.remove_stub(name);
    }
    place.stub("rootlesskit", "[ \"$1\" = --help ] && echo none, pasta, slirp4netns");
    place.launch(&[]).exits(1).says("ERROR: no network driver found").says("package passt");
}

const TRIAL: &str = "--net=gateway --disable-host-loopback --copy-up=/etc --copy-up=/run true\n";

#[test]
fn the_gateway_comes_first_where_it_works() {
    let mut place = Place::new();
    place.with_gateway();
    place.set("NOTIFY_SOCKET", "/run/notify");
    let done = place.launch(&["--debug"]);
    done.exits(0).says("net=gateway mtu=1500 port-driver=gateway");
    // What is said of the routes depends on the host.
    let lines = done.stderr.lines().filter(|line| !line.contains("this host's network"));
    assert_eq!(lines.count(), 1, "{}", done.stderr);
    assert_eq!(place.recorded("trials"), TRIAL);
    let state_dir = format!("--state-dir={}/dockerd-rootless", place.text("run"));
    assert_eq!(
        place.argv(),
        [
            &state_dir,
            "--net=gateway",
            "--mtu=1500",
            "--disable-host-loopback",
            "--port-driver=gateway",
            "--gateway-dual-stack",
            "--copy-up=/etc",
            "--copy-up=/run",
            "--propagation=rslave",
            place.binary().to_str().unwrap(),
            "--debug",
        ]
    );
    assert_eq!(place.recorded_env("_DOCKERD_ROOTLESS_NET").as_deref(), Some("gateway"));
}

#[test]
fn a_gateway_that_does_not_work_is_told_once_and_replaced() {
    let mut place = Place::new();
    place.with_gateway();
    let refusal = "[rootlesskit:child ] error: no tproxy: not supported\nhint: load nft_tproxy\n\
                   [rootlesskit:parent] error: child exited: exit status 1\n";
    fs::write(place.at("refusal"), refusal).unwrap();
    let warning = "WARN: not using the gateway network driver: no tproxy: not supported; using slirp4netns \
                   instead. hint: load nft_tproxy\n";
    let done = place.launch(&[]);
    done.exits(0).says(warning);
    assert_eq!(done.stderr.matches("gateway").count(), 1, "{}", done.stderr);
    assert_eq!(place.argv()[1], "--net=slirp4netns");
    // Even if it was exported for some reason.
    place.set("_DOCKERD_ROOTLESS_NET", "gateway");
    place.launch(&[]).exits(0);
    assert_eq!(place.recorded_env("_DOCKERD_ROOTLESS_NET").as_deref(), Some("slirp4netns"));
    place.remove_stub("slirp4netns");
    place.launch(&[]).exits(1).says("ERROR: no network driver found").says("load nft_tproxy");
}

#[test]
fn what_is_named_is_not_tried() {
    let mut place = Place::new();
    place.with_gateway();
    fs::write(place.at("refusal"), "no\n").unwrap();
    for (name, value) in [
        ("NET", "gateway"),
        ("NET", "gvisor-tap-vsock"),
        ("NET", "slirp4netns"),
        ("PORT_DRIVER", "slirp4netns"),
        ("PORT_DRIVER", "gateway"),
        ("FLAGS", "--net=gateway"),
    ] {
        let name = format!("DOCKERD_ROOTLESS_ROOTLESSKIT_{name}");
        place.set(&name, value);
        let done = place.launch(&[]);
        done.exits(0);
        assert!(!done.stderr.contains("not using"), "{}", done.stderr);
        place.unset(&name);
    }
    assert_eq!(place.recorded("trials"), "");
}

#[test]
fn a_trial_that_hangs_is_given_up() {
    let place = Place::new();
    place.with_gateway();
    let script = format!("case \"$*\" in *' true') exec /bin/sleep 60;; esac\n{RECORD}");
    place.stub("rootlesskit", &script);
    let start = Instant::now();
    place.launch(&[]).exits(0).says("not using the gateway network driver: ").says("was killed");
    assert!(start.elapsed() < Duration::from_secs(40));
    assert_eq!(place.argv()[1], "--net=slirp4netns");
}

#[test]
fn a_helper_that_hangs_is_given_up() {
    let place = Place::new();
    place.stub("slirp4netns", "exec /bin/sleep 60");
    place.stub("pasta", "echo pasta 2024_12_11.09478d5");
    let start = Instant::now();
    place.launch(&[]).exits(0).says("not using ").says("was killed");
    assert!(start.elapsed() < Duration::from_secs(40));
    assert_eq!(place.argv()[1], "--net=pasta");
}

#[test]
fn overrides_reach_rootlesskit() {
    let mut place = Place::new();
    for (name, value, expected) in [
        ("NET", "lxc-user-nic", "--net=lxc-user-nic"),
        ("NET", "pasta", "--port-driver=implicit"),
        ("MTU", "1400", "--mtu=1400"),
        ("PORT_DRIVER", "slirp4netns", "--port-driver=slirp4netns"),
        ("FLAGS", "-p 0.0.0.0:2376:2376/tcp", "0.0.0.0:2376:2376/tcp"),
        ("FLAGS", "--net=vpnkit --vpnkit-binary=/opt/vpn*", "--vpnkit-binary=/opt/vpn*"),
        ("DETACH_NETNS", "1", "--detach-netns"),
        ("STATE_DIR", "/tmp/a b", "--state-dir=/tmp/a b"),
    ] {
        let name = format!("DOCKERD_ROOTLESS_ROOTLESSKIT_{name}");
        place.set(&name, value);
        place.launch(&[]).exits(0);
        assert!(place.argv().iter().any(|a| a == expected), "{name}={value}: {:?}", place.argv());
        place.unset(&name);
    }
    place.set("DOCKERD_ROOTLESS_ROOTLESSKIT_DISABLE_HOST_LOOPBACK", "false");
    place.launch(&[]).exits(0);
    assert!(!place.argv().iter().any(|a| a == "--disable-host-loopback"));
}

#[test]
fn docker_rootlesskit_comes_first_and_the_neighbour_last() {
    let place = Place::new();
    place.stub("docker-rootlesskit", "echo docker-rootlesskit");
    assert_eq!(place.launch(&[]).stdout, "docker-rootlesskit\n");
    place.remove_stub("docker-rootlesskit");
    fs::rename(place.at("bin/rootlesskit"), place.at("app/rootlesskit")).unwrap();
    place.launch(&[]).exits(0);
    assert_eq!(place.argv()[1], "--net=slirp4netns");
    fs::remove_file(place.at("app/rootlesskit")).unwrap();
    place.launch(&[]).exits(1).says("ERROR: rootlesskit needs to be installed").says("hint:");
}

#[test]
fn directories_that_cannot_be_used() {
    let mut place = Place::new();
    let (run, home) = (place.text("run"), place.text("home"));
    for (name, value) in
        [("XDG_RUNTIME_DIR", ""), ("XDG_RUNTIME_DIR", "/"), ("HOME", ""), ("HOME", "/nonexistent")]
    {
        place.set(name, value);
        place.launch(&[]).exits(1).says(&format!("ERROR: {name} needs to be set")).says("hint:");
        place.set("XDG_RUNTIME_DIR", &run);
        place.set("HOME", &home);
    }
    // HOME need not be writable
    fs::set_permissions(place.at("home"), Permissions::from_mode(0o555)).unwrap();
    place.launch(&[]).exits(0);
    place.unset("XDG_RUNTIME_DIR");
    place
        .launch(&[])
        .exits(1)
        .says("XDG_RUNTIME_DIR needs to be set")
        .says("mkdir -p -m 700 $HOME/.docker/run");
}

#[test]
fn vpnkit_under_its_docker_name_is_no_crash() {
    let place = Place::new();
    place.stub("docker-vpnkit", "");
    place.launch(&[]).exits(0);
    assert_eq!(place.argv()[1], "--net=slirp4netns");
}

#[test]
fn words_for_the_set_up_tool() {
    let place = Place::new();
    for word in ["check", "install", "uninstall", "nsenter"] {
        let done = place.launch(&[word, "-f"]);
        done.exits(1).says(&format!("hint: did you mean: dockerd-rootless-setuptool.sh {word} -f"));
    }
    assert!(place.argv().is_empty());
}

#[test]
fn root_is_refused_first() {
    let place = Place::new();
    let mut command = Command::new(place.binary());
    command.env_clear();
    finish(command).exits(1).says("ERROR: dockerd-rootless refuses to run as root");
}

#[test]
fn refusals_are_status_1_and_start_nothing() {
    let mut place = Place::new();
    for (name, value) in [
        ("NET", "host"),
        ("NET", "tun"),
        ("DETACH_NETNS", "maybe"),
        ("MTU", "65522"),
        ("PORT_DRIVER", "implicit"),
        ("SWARM", "192.0.2.10"),
    ] {
        let name = match name {
            "SWARM" => "DOCKERD_ROOTLESS_SWARM".to_owned(),
            name => format!("DOCKERD_ROOTLESS_ROOTLESSKIT_{name}"),
        };
        place.set(&name, value);
        place.launch(&[]).exits(1).says(&format!("ERROR: {name} is {value:?}")).says("\nhint: ");
        place.unset(&name);
    }
    assert!(place.argv().is_empty());
}

#[test]
fn containerd_rootless_is_a_conflict_only_while_it_runs() {
    let place = Place::new();
    let dir = place.at("run/containerd-rootless");
    fs::create_dir(&dir).unwrap();
    fs::set_permissions(place.at("run"), Permissions::from_mode(0o755)).unwrap();
    let held =
        Flock::lock(File::create(dir.join("lock")).unwrap(), FlockArg::LockExclusiveNonblock)
            .unwrap();
    place
        .launch(&[])
        .exits(1)
        .says("ERROR: conflicts with containerd-rootless")
        .says(dir.to_str().unwrap());
    assert!(place.argv().is_empty());
    drop(held);
    place.launch(&[]).exits(0).says("WARN: ").says("is stale");
}

#[test]
fn a_second_daemon_is_told_who_is_first() {
    let place = Place::new();
    let dir = place.at("run/dockerd-rootless");
    fs::create_dir(&dir).unwrap();
    let _held =
        Flock::lock(File::create(dir.join("lock")).unwrap(), FlockArg::LockExclusiveNonblock)
            .unwrap();
    // A child of this process stands for the child of rootlesskit.
    let mut sleep = place.command(Path::new("/bin/sleep"));
    sleep.arg("60").env("ROOTLESSKIT_STATE_DIR", &dir);
    let mut child = crate::place::spawn(sleep);
    fs::write(dir.join("child_pid"), child.id().to_string()).unwrap();
    let done = place.launch(&[]);
    child.kill().unwrap();
    child.wait().unwrap();
    done.exits(1).says(&format!("another RootlessKit is running (pid {})", std::process::id()));
}

#[test]
fn detaching_follows_the_daemon() {
    let place = Place::new();
    let detached = || place.argv().iter().any(|a| a == "--detach-netns");
    for (version, expected) in
        [("29.5.0", true), ("29.4.3", false), ("dev", false), ("30.1.0-rc.2", true)]
    {
        place.stub("dockerd", &format!("echo 'Docker version {version}, build x'"));
        place.launch(&[]).exits(0);
        assert_eq!(detached(), expected, "{version}");
    }
}

#[test]
fn dockerd_with_arguments_and_without() {
    let mut place = Place::new();
    place.stub("moby", "[ \"$*\" = '--log x --version' ] && echo 'Docker version 29.6.1, build x'");
    place.set("DOCKERD", "moby --log 'x'");
    place.launch(&[]).exits(0).says("starting dockerd 29.6.1");
    place.set("DOCKERD", "/nonexistent/dockerd");
    place.launch(&[]).exits(127).says("ERROR: \"/nonexistent/dockerd\" not found").says("hint:");
}

#[test]
fn a_marker_in_the_environment_is_no_way_in() {
    let mut place = Place::new();
    place.set("ROOTLESSKIT_STATE_DIR", "/tmp");
    place.set("ROOTLESSKIT_PARENT_EUID", "1000");
    for marker in ["1", "2"] {
        place.set("_DOCKERD_ROOTLESS_CHILD", marker);
        place
            .launch(&[])
            .exits(1)
            .says("rootlesskit did not start this process")
            .says("hint: unset _DOCKERD_ROOTLESS_CHILD");
    }
}
