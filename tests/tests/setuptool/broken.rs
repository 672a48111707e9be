//! Hosts in which one thing is wrong: `check` names it with one code and exit status 1, and what it tells the
//! administrator to do cures it.

use tests::{As, PATIENCE, Result, Suite, TestBox, ensure};

use crate::doctor::{Check, paste};
use crate::{TOOL, in_order};

/// Breaks something as root, expects this one fatal code, does what is printed, and expects that all is well.
fn cured(breaking: &str, code: &str, command: &str) -> Result<TestBox> {
    cured_with("", breaking, code, command)
}

/// The same with variables in front of the command.
fn cured_with(variables: &str, breaking: &str, code: &str, command: &str) -> Result<TestBox> {
    let b = TestBox::boot(Suite::Sid)?;
    let check = || b.user(&format!("{variables}{TOOL} check"));
    let healthy = check().run()?;
    ensure!(healthy.code == 0, "before anything is broken: {healthy}");
    b.root(breaking).ok()?;

    let seen = Check::of(b.user(&format!("{variables}{TOOL} check --json")))?;
    assert_eq!((seen.status, seen.fatal()), (1, vec![code.to_owned()]), "{seen:?}");
    let printed = check().run()?;
    assert_eq!(printed.code, 1, "{printed}");
    in_order(&printed.stderr, &[&format!("[ERROR] {code}: ")])?;
    in_order(&printed.stdout, &["########## BEGIN ##########\nsudo sh -eux <<'EOF'\n", command])?;
    paste(&b, &printed.stdout)?;
    let again = check().run()?;
    ensure!(again.code == 0, "after the administrator's commands: {again}");
    Ok(b)
}

/// An apt-get that knows one package, whose files lie in /opt/away until it is installed.
fn apt(package: &str, files: &str) -> String {
    format!(
        "mkdir /opt/away && mv {files} /opt/away
         cat > /usr/local/sbin/apt-get <<'APT'
#!/bin/sh
[ \"$*\" = 'install -y {package}' ] && mv /opt/away/* /usr/bin
APT
         chmod 755 /usr/local/sbin/apt-get"
    )
}

#[test]
fn newuidmap_is_installed() -> Result<()> {
    let breaking = apt("uidmap", "/usr/bin/newuidmap /usr/bin/newgidmap");
    cured(&breaking, "newuidmap-missing", "apt-get install -y uidmap\n").map(drop)
}

#[test]
fn newuidmap_gets_its_power_back() -> Result<()> {
    let breaking = "for f in /usr/bin/newuidmap /usr/bin/newgidmap; do setcap -r $f 2>/dev/null || :; chmod 755 $f; done";
    cured(breaking, "newuidmap-powerless", "setcap cap_setuid=ep /usr/bin/newuidmap\n").map(drop)
}

#[test]
fn subordinate_ids_that_nobody_has_are_given() -> Result<()> {
    let breaking = "echo other:100000:65536 | tee /etc/subuid > /etc/subgid";
    let b = cured(
        breaking,
        "subid-missing",
        "usermod --add-subuids 165536-231071 --add-subgids 165536-231071 tester\n",
    )?;
    assert_eq!(b.read("/etc/subgid")?, "other:100000:65536\ntester:165536:65536\n");
    Ok(())
}

#[test]
fn a_network_stack_is_installed() -> Result<()> {
    let breaking = apt("slirp4netns", "/usr/bin/slirp4netns /usr/bin/pasta");
    // The gateway network needs none, but does not go with that port driver.
    let variables = "DOCKERD_ROOTLESS_ROOTLESSKIT_PORT_DRIVER=slirp4netns ";
    let missing = "network-helper-missing";
    cured_with(variables, &breaking, missing, "apt-get install -y slirp4netns\n").map(drop)
}

#[test]
fn dev_net_tun_is_opened() -> Result<()> {
    cured("chmod 0600 /dev/net/tun", "tun-closed", "chmod 0666 /dev/net/tun\n").map(drop)
}

#[test]
fn iptables_is_installed_or_done_without() -> Result<()> {
    let b = TestBox::boot(Suite::Sid)?;
    b.root("rm /usr/sbin/iptables").ok()?;
    let seen = b.user(&format!("{TOOL} check")).fails_with(1)?;
    in_order(
        &seen,
        &["apt-get install -y iptables\n", "[ERROR] iptables-missing: ", "use --skip-iptables"],
    )?;
    b.user(&format!("{TOOL} --skip-iptables check")).ok().map(drop)
}

#[test]
fn a_rootful_docker_is_removed_or_ignored() -> Result<()> {
    let b = TestBox::boot(Suite::Sid)?;
    b.root("setsid -f socat UNIX-LISTEN:/run/docker.sock,mode=666 /dev/null </dev/null >/dev/null 2>&1").ok()?;
    tests::wait::until_true("the socket is there", PATIENCE, || Ok(b.exists("/run/docker.sock")))?;
    let seen = Check::of(b.user(&format!("{TOOL} check --json")))?;
    assert_eq!((seen.status, seen.fatal()), (1, vec!["rootful-docker".to_owned()]));
    let said = b.user(&format!("{TOOL} install")).fails_with(1)?;
    in_order(
        &said,
        &[
            "[ERROR] rootful-docker: ",
            // The box has no systemd.
            "sudo kill \"$(cat /run/docker.pid)\"\n",
            "sudo rm -f /var/run/docker.sock\n",
            "--force",
        ],
    )?;
    b.user(&format!("{TOOL} check --force")).ok()?;
    b.root("chmod 600 /run/docker.sock").ok()?;
    b.user(&format!("{TOOL} check")).ok()?;
    b.root("rm -f /var/run/docker.sock").ok()?;
    b.user(&format!("{TOOL} check")).ok().map(drop)
}

/// The limit of user namespaces belongs to a user namespace: the machine's is not touched.
#[test]
fn user_namespaces_are_allowed() -> Result<()> {
    let b = TestBox::boot(Suite::Sid)?;
    let holder = b
        .root("exec unshare --user sh -c 'until grep -q 4294967295 /proc/self/uid_map; do :; done; exec sleep infinity'")
        .spawn()?;
    let pid = holder.pid().to_string();
    tests::wait::until_true("the namespace has its maps", PATIENCE, || {
        let map = "for f in gid_map uid_map; do echo 0 0 4294967295 > /proc/$0/$f; done";
        Ok(b.argv(As::Root, &["sh", "-c", map, &pid]).run()?.code == 0)
    })?;
    let inside = |argv: &[&str]| {
        b.argv(As::Root, &[&["nsenter", "-t", &pid, "-U", "--preserve-credentials"], argv].concat())
    };
    let user = |words: &str| {
        let ids = [
            "setpriv",
            "--reuid=1001",
            "--regid=1001",
            "--init-groups",
            "env",
            "HOME=/home/tester",
        ];
        inside(
            &[
                &ids[..],
                &["XDG_RUNTIME_DIR=/run/user/1001", "sh", "-c", &format!("{TOOL} {words}")],
            ]
            .concat(),
        )
    };
    let limit = "/proc/sys/user/max_user_namespaces";
    user("check").ok()?;
    inside(&["sh", "-c", &format!("echo 0 > {limit}")]).ok()?;
    let seen = Check::of(user("check --json"))?;
    assert_eq!((seen.status, seen.fatal()), (1, vec!["userns-none".to_owned()]), "{seen:?}");

    let printed = user("check").run()?.stdout;
    in_order(&printed, &["/etc/sysctl.d/51-rootless.conf", "sysctl --system\n"])?;
    // The real one would set every kernel parameter of the machine that a file in the box names.
    b.script(
        "/usr/local/sbin/sysctl",
        &format!(
            "#!/bin/sh\n[ \"$*\" = --system ] && exec nsenter -t {pid} -U \
        --preserve-credentials /usr/sbin/sysctl -p /etc/sysctl.d/51-rootless.conf\n"
        ),
    )?;
    paste(&b, &printed)?;
    assert_eq!(inside(&["cat", limit]).ok()?, "28633\n");
    user("check").ok().map(drop)
}
