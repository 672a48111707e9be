use super::Severity::{Advisory, Class, Fatal};
use super::host::Host;
use super::{Case, INSTALL, all, case};
use crate::findings::{Wish, diagnose};
use crate::probe::Probe;

const EPERM: &str = "[rootlesskit:parent] error: failed to start the child: fork/exec /proc/self/exe: operation not permitted";
const EACCES: &str = "[rootlesskit:parent] error: failed to start the child: fork/exec /proc/self/exe: permission denied";
const RESTRICT: &str = "proc/sys/kernel/apparmor_restrict_unprivileged_userns";

#[test]
fn situations_of_kernel_parameters() {
    all(&kernel_parameters());
}

pub(super) fn kernel_parameters() -> Vec<Case> {
    vec![
        case(
            "kernel.unprivileged_userns_clone is 0 on Debian 10",
            Fatal,
            "userns-clone",
            "echo 'kernel.unprivileged_userns_clone = 1' > /etc/sysctl.d/50-rootless.conf",
            |h| {
                h.write("proc/sys/kernel/unprivileged_userns_clone", "0\n");
                h.fails(Probe::Namespaces, EPERM);
            },
        ),
        case("kernel.unprivileged_userns_clone is 1", Fatal, "", "", |h| {
            h.write("proc/sys/kernel/unprivileged_userns_clone", "1\n");
        }),
        case(
            "user.max_user_namespaces is 0 on RHEL 7",
            Fatal,
            "userns-none",
            "user.max_user_namespaces = 28633",
            |h| {
                h.os("ID=\"rhel\"\nVERSION_ID=\"7.9\"\n");
                h.write("proc/sys/user/max_user_namespaces", "0\n");
                h.fails(Probe::Namespaces, "no space left on device");
            },
        ),
        case("user.max_user_namespaces is low", Advisory, "userns-few", "28633", |h| {
            h.write("proc/sys/user/max_user_namespaces", "100\n");
        }),
        case(
            "user.max_net_namespaces is 0",
            Fatal,
            "namespaces-none",
            "echo 'user.max_net_namespaces = 28633' > /etc/sysctl.d/51-rootless-net.conf",
            |h| {
                h.write("proc/sys/user/max_net_namespaces", "0\n");
                for probe in [Probe::Network, Probe::Gateway, Probe::Nat] {
                    h.fails(probe, "no space left on device");
                }
            },
        ),
        case(
            "user.max_mnt_namespaces is 0",
            Fatal,
            "namespaces-none",
            "user.max_mnt_namespaces = 28633",
            |h| {
                h.write("proc/sys/user/max_mnt_namespaces", "0\n");
                h.fails(Probe::Namespaces, "no space left on device");
            },
        ),
        case(
            "user.max_pid_namespaces is 0",
            Fatal,
            "namespaces-none",
            "user.max_pid_namespaces = 28633",
            |h| {
                h.write("proc/sys/user/max_pid_namespaces", "0\n");
                h.fails(Probe::Proc, "no space left on device");
            },
        ),
        case(
            "user.max_user_namespaces is 0 on Alpine",
            Fatal,
            "userns-none",
            "sysctl -p /etc/sysctl.d/51-rootless.conf",
            |h| {
                h.os("ID=alpine\n");
                h.write("proc/sys/user/max_user_namespaces", "0\n");
            },
        ),
        case(
            "kernel.unprivileged_userns_clone is 0 on NixOS",
            Fatal,
            "userns-clone",
            "boot.kernel.sysctl.\"kernel.unprivileged_userns_clone\" = 1;",
            |h| {
                h.os("ID=nixos\n");
                h.write("proc/sys/kernel/unprivileged_userns_clone", "0\n");
            },
        ),
    ]
}

#[test]
fn situations_of_apparmor() {
    all(&apparmor());
}

/// rootlesskit and its launcher as the installer of the tarball puts them.
fn in_home(host: &mut Host) {
    host.remove("bin/rootlesskit");
    host.program("home/bin/rootlesskit");
    let dirs = ["home/bin", "bin"].map(|dir| host.at(dir));
    let path = std::env::join_paths(dirs).expect("no colon");
    host.set("PATH", path.to_str().expect("a path"));
}

pub(super) fn apparmor() -> Vec<Case> {
    let force = Wish { force: true, ..INSTALL };
    vec![
        case(
            "rootlesskit is in ~/bin on Ubuntu 24.04",
            Fatal,
            "apparmor-userns",
            "systemctl restart apparmor.service",
            |h| {
                in_home(h);
                h.os("ID=ubuntu\nID_LIKE=debian\nVERSION_ID=\"24.04\"\n");
                h.write(RESTRICT, "1\n");
                h.write(
                    "etc/apparmor.d/rootlesskit",
                    "profile rootlesskit /usr/bin/rootlesskit flags=(unconfined) {}",
                );
                h.fails(Probe::Namespaces, EACCES);
            },
        ),
        case(
            "rootlesskit is in ~/bin on Ubuntu 24.04, with --force",
            Class,
            "apparmor-userns",
            "userns,",
            |h| {
                in_home(h);
                h.write(RESTRICT, "1\n");
                h.fails(Probe::Namespaces, EACCES);
            },
        )
        .wish(force),
        case(
            "a profile exists but is not loaded",
            Fatal,
            "apparmor-not-loaded",
            "systemctl restart apparmor.service",
            |h| {
                let kit = h.at("bin/rootlesskit");
                h.write(RESTRICT, "1\n");
                h.write(
                    "etc/apparmor.d/mine",
                    &format!("profile mine {} flags=(unconfined) {{ userns, }}", kit.display()),
                );
                h.fails(Probe::Namespaces, EACCES);
            },
        ),
        case(
            "rootlesskit is a link in ~/bin on Ubuntu 24.04",
            Fatal,
            "apparmor-userns",
            "/opt/docker/rootlesskit\" flags=(unconfined) {",
            |h| {
                h.remove("bin/rootlesskit");
                h.program("opt/docker/rootlesskit");
                let real = h.at("opt/docker/rootlesskit");
                h.link("bin/rootlesskit", real.to_str().expect("a path"));
                h.write(RESTRICT, "1\n");
                h.fails(Probe::Namespaces, EACCES);
            },
        ),
        case("user namespaces are restricted, but the trial run succeeds", Fatal, "", "", |h| {
            h.write(RESTRICT, "1\n");
        }),
        case("unconfined programs are also restricted", Advisory, "apparmor-unconfined", "", |h| {
            h.write("proc/sys/kernel/apparmor_restrict_unprivileged_unconfined", "1\n");
        }),
    ]
}

#[test]
fn situations_of_whatever_else_forbids_them() {
    all(&whatever_else_forbids_them());
}

pub(super) fn whatever_else_forbids_them() -> Vec<Case> {
    let force = Wish { force: true, ..INSTALL };
    vec![
        case(
            "the trial run fails for an unknown reason",
            Fatal,
            "rootlesskit-fails",
            "rootlesskit --debug true",
            |h| {
                h.fails(Probe::Namespaces, "something odd");
            },
        ),
        case(
            "the trial run fails with a known message",
            Fatal,
            "rootlesskit-fails",
            "sudo \"$(command -v dockerd-rootless-setuptool.sh)\" apparmor",
            |h| {
                h.fails(Probe::Namespaces, EPERM);
            },
        ),
        case(
            "an AppArmor profile for rootlesskit forbids user namespaces",
            Fatal,
            "rootlesskit-fails",
            "add the line `userns,` to that profile",
            |h| {
                h.fails(Probe::Namespaces, EACCES);
            },
        ),
        case(
            "an AppArmor profile does not let rootlesskit run in its namespaces",
            Fatal,
            "rootlesskit-fails",
            "`attach_disconnected` to its flags",
            |h| {
                h.fails(Probe::Namespaces, &format!("{EACCES}\nhint: attach_disconnected"));
            },
        ),
        case(
            "the trial run fails in a container",
            Fatal,
            "rootlesskit-fails in-container",
            "seccomp=unconfined",
            |h| {
                h.write(".dockerenv", "");
                h.fails(Probe::Namespaces, EPERM);
            },
        ),
        case(
            "the kernel lacks CONFIG_USER_NS",
            Fatal,
            "rootlesskit-fails",
            "CONFIG_USER_NS=y",
            |h| {
                h.fails(
                    Probe::Namespaces,
                    "error: failed to start the child: fork/exec /proc/self/exe: invalid argument",
                );
            },
        ),
        case("the kernel lacks clone3", Fatal, "rootlesskit-fails", "upgrade the kernel", |h| {
            h.fails(
                Probe::Namespaces,
                "error: failed to start the child: fork/exec /proc/self/exe: function not implemented",
            );
        }),
        case("the trial run fails, with --force", Class, "rootlesskit-fails", "", |h| {
            h.fails(Probe::Namespaces, "something odd");
        })
        .wish(force),
        case("/proc is masked", Class, "proc-masked", "systempaths=unconfined", |h| {
            h.fails(Probe::Proc, "mount: /proc: permission denied.");
        }),
    ]
}

/// sudo does not look for it where the user's PATH does.
#[test]
fn root_is_told_where_this_program_is() {
    let mut host = Host::healthy();
    in_home(&mut host);
    host.program("home/bin/dockerd-rootless-setuptool.sh");
    host.world.own_dir = Some(host.at("home/bin"));
    host.write(RESTRICT, "1\n");
    host.fails(Probe::Namespaces, EACCES);
    let findings = diagnose(&host.facts(), Wish::default());
    let dir = host.at("home/bin").display().to_string();
    assert_eq!(
        findings[0].remedy.said,
        [format!(
            "or, instead of these commands: sudo {dir}/dockerd-rootless-setuptool.sh apparmor {dir}/rootlesskit"
        )]
    );
}
