//! The installer script: what it installs runs Docker, what goes wrong leaves nothing, and what it removes is its own.

#[path = "installer/release.rs"]
mod release;

use release::{PORT, Stubs, copy_release, serve};
use tests::docker::{Docker, LEFT_BY_DOCKERD, MAKE_IMAGE};
use tests::{Builder, PATIENCE, Result, Suite, TestBox, Under, ensure, wait};

const PAGE: &str = "hello-from-container\n";

/// A box without any rootlesskit, and with a folder `/srv/release`.
fn host(builder: Builder) -> Result<TestBox> {
    let b = builder.under(Under::Theirs).boot()?;
    b.root(
        "dpkg --remove --force-depends rootlesskit
        rm -f /usr/bin/dockerd-rootless.sh /usr/bin/dockerd-rootless-setuptool.sh
        mkdir /srv/release",
    )
    .ok()?;
    Ok(b)
}

/// A folder `/opt/bb` with busybox under all its names, and the client beside it.
fn busybox_alone(b: &TestBox) -> Result<()> {
    let links = "mkdir /opt/bb; ln -s /usr/bin/docker /opt/bb/
        for a in $(busybox --list); do ln -s /usr/bin/busybox /opt/bb/$a; done";
    b.root(links).ok().map(drop)
}

fn answers(b: &TestBox, address: &str) -> Result<()> {
    let page = wait::until("the published port answers", PATIENCE, || {
        Ok(b.user(&format!("curl -sS -m5 http://{address}/")).ok().ok())
    })?;
    assert_eq!(page, PAGE);
    Ok(())
}

/// What there is in the home folder, and where programs are kept.
fn home(b: &TestBox) -> Result<String> {
    b.root("find /home/tester /srv/release -path '*/.local/share/docker' -prune -o -print | sort")
        .ok()
}

/// Takes Docker itself away from the packages and makes Docker's archive of it.
const ENGINE: &str = r#"set -e; mkdir -p /tmp/engine/docker; cd /tmp/engine
    for p in docker dockerd docker-proxy docker-init containerd containerd-shim-runc-v2 ctr runc; do
        f=$(command -v $p || ls /usr/libexec/docker/$p); cp -L $f docker/; rm -f $f; done
    tar -c docker | gzip -1 >/srv/release/docker-28.5.2.tgz; rm -r /tmp/engine
    cd /srv/release; sha256sum docker-28.5.2.tgz >>SHA256SUMS"#;

#[test]
fn from_a_web_server_to_a_service_and_away_again() -> Result<()> {
    let b = host(TestBox::builder(Suite::Sid).systemd())?;
    copy_release(&b)?;
    b.root(ENGINE).limit(120).ok()?;
    let _server = serve(&b, "whole")?;
    let before = home(&b)?;
    let pipe = |args: &str| {
        b.user(&format!("curl -fsSL {PORT}/install.sh | sh -s -- {args}"))
            .env("DOCKER_ROOTLESS_URL", PORT)
            .limit(150)
    };
    let said = pipe("").ok()?;
    for part in [
        "# Installing docker-rootless-extras 0.",
        "# Installed docker 28.5.2 in /home/tester/bin\n",
        "Installed docker.service successfully.",
        "export PATH=/home/tester/bin:$PATH\n",
        "export DOCKER_HOST=unix:///run/user/1001/docker.sock\n",
    ] {
        ensure!(said.contains(part), "{part} in {said}");
    }
    let docker = |script: &str| {
        b.user(script).env("PATH", "/home/tester/bin:/usr/bin:/bin:/usr/sbin:/sbin").limit(120).ok()
    };
    docker(MAKE_IMAGE)?;
    docker("docker run -d --name web -p 8080:80 bb httpd -f -p 80 -h /www")?;
    answers(&b, "127.0.0.1:8080")?;
    assert_eq!(b.peer("curl -sS -m30 http://10.77.0.1:8080/").ok()?, PAGE);
    let daemon = b.process("dockerd")?;
    let link = b.root(&format!("readlink /proc/{}/exe", daemon.pid)).ok()?;
    assert_eq!(link, "/home/tester/bin/dockerd\n");

    // Once more: nothing to get, and the daemon goes on.
    let said = pipe("").ok()?;
    ensure!(said.contains("is already installed in /home/tester/bin"), "{said}");
    ensure!(!said.contains("# Fetching"), "{said}");
    assert_eq!(b.process("dockerd")?.pid, daemon.pid);
    answers(&b, "127.0.0.1:8080")?;

    docker("docker rm -f web")?;
    pipe("uninstall --purge").ok()?;
    ensure!(b.user_processes().iter().all(|p| p.program() != "dockerd"), "the daemon still runs");
    // The settings of the client are the user's.
    b.user("rm .docker/config.json; rmdir .docker").ok()?;
    assert_eq!(home(&b)?, before);
    Ok(())
}

#[test]
fn from_a_folder_without_network() -> Result<()> {
    let b = host(TestBox::builder(Suite::Sid))?;
    copy_release(&b)?;
    b.root("ip link set eth0 down; chmod -R a-w /srv/release").ok()?;
    // As a tarball of its own in a folder of its own, with nothing but busybox to work with.
    busybox_alone(&b)?;
    let path = "/opt/bb:/usr/bin:/usr/sbin";
    let bin = "/home/tester/opt/docker/bin";
    let install = |args: &str| {
        b.user(&format!("busybox sh /srv/release/install.sh {args}"))
            .env("PATH", path)
            .env("DOCKER_BIN", bin)
            .limit(90)
    };
    let before = home(&b)?;
    let said = install("").ok()?;
    ensure!(
        said.contains("# Using the installed Docker: /usr/sbin/dockerd, /opt/bb/docker\n"),
        "{said}"
    );

    let d = Docker::start_with(&b, "dockerd-rootless.sh", &[("PATH", &format!("{bin}:{path}"))])?;
    d.import()?;
    d.run("run -d --name web -p 8080:80 bb httpd -f -p 80 -h /www")?;
    answers(&b, "127.0.0.1:8080")?;
    let kit = b.root(&format!("readlink /proc/{}/exe", b.process("dockerd")?.pid)).ok()?;
    assert_eq!(kit, "/usr/sbin/dockerd\n");
    d.run("rm -f web")?;
    d.stop()?;
    install("uninstall --purge").ok()?;
    b.user("rmdir opt/docker opt; rm .docker/config.json; rmdir .docker").ok()?;
    assert_eq!(home(&b)?, before);
    b.assert_clean(LEFT_BY_DOCKERD)
}

#[test]
fn a_script_that_was_cut_short_does_nothing() -> Result<()> {
    let b = host(TestBox::builder(Suite::Sid))?;
    Stubs::new(&b)?.release("1.0", "rootlesskit")?;
    let before = home(&b)?;
    let cut = "f=/srv/release/install.sh; size=$(wc -c <$f); n=0
        for part in $(seq 0 97 $((size - 12))) $(seq $((size - 60)) $((size - 10))); do
            head -c $part $f | DOCKER_ROOTLESS_URL=/srv/release sh >>/tmp/out 2>&1; n=$((n + 1)); done
        echo $n; grep -v -e Syntax -e 'not found' -e 'here-document' /tmp/out; rm /tmp/out";
    let said = b.user(cut).limit(120).run()?.stdout;
    let count: u32 = said.trim().parse().map_err(|e| tests::Error::msg(format!("{e}: {said}")))?;
    ensure!(count > 150, "{count}");
    assert_eq!(home(&b)?, before);
    b.user("cat /srv/release/install.sh | DOCKER_ROOTLESS_URL=/srv/release sh").ok().map(drop)
}

#[test]
fn what_cannot_be_done_is_said_and_leaves_nothing() -> Result<()> {
    let b = host(TestBox::builder(Suite::Sid))?;
    let stubs = Stubs::new(&b)?;
    stubs.release("1.0", "rootlesskit")?;
    b.root("cd /srv; cp -a release two; cp two/docker-rootless-extras-1.0.tgz two/docker-rootless-extras-1.1.tgz
        cd two; sha256sum *.tgz >SHA256SUMS
        cp -a ../release ../wrong; echo more >>../wrong/docker-rootless-extras-1.0.tgz
        mkdir ../html; echo '<html>login</html>' >../html/SHA256SUMS")
        .ok()?;
    b.root("mkdir /opt/s390x").ok()?;
    b.script("/opt/s390x/uname", "#!/bin/sh\n[ $# = 0 ] && echo Linux || echo s390x\n")?;
    stubs.archive("/srv/strange", "1.0", "mkdir -p t/docker-rootless-extras/deep")?;
    stubs.archive(
        "/srv/leads",
        "1.0",
        "ln -sf /etc/passwd t/docker-rootless-extras/rootlessctl",
    )?;
    stubs.archive(
        "/srv/foreign",
        "1.0",
        "printf '\\177ELF' >t/docker-rootless-extras/rootlesskit",
    )?;
    let _server = serve(&b, "cut")?;
    let before = home(&b)?;
    let url = "DOCKER_ROOTLESS_URL";
    let engine = ("DOCKER_VERSION", "29.0.0");
    for (variables, expected) in [
        (vec![(url, "")], "DOCKER_ROOTLESS_URL is not set"),
        (vec![("CHANNEL", "nightly")], "CHANNEL is nightly"),
        (vec![("HOME", "/nowhere")], "HOME is /nowhere"),
        (vec![("DOCKER_BIN", "/usr/bin")], "/usr/bin is not writable"),
        (vec![("DOCKER_BIN", "/usr/mine")], "cannot create /usr/mine"),
        (vec![(url, "/srv/nothing")], "cannot read /srv/nothing/SHA256SUMS"),
        (vec![(url, "file:///srv/html")], "is not a checksum list"),
        (vec![(url, "/srv/two")], "more than one version of docker-rootless-extras: 1.0 1.1"),
        (
            vec![("VERSION", "3")],
            "no docker-rootless-extras-3.tgz\nhint: set VERSION to one of these: 1.0",
        ),
        (vec![(url, "/srv/wrong")], "discarding it"),
        (vec![(url, "/srv/strange")], "more than programs"),
        (vec![(url, "/srv/leads")], "a link that points outside its directory: rootlessctl"),
        (vec![(url, "/srv/foreign")], "does not run on this machine"),
        (
            vec![(url, PORT)],
            "cannot download http://peer.test:8000/docker-rootless-extras-1.0.tgz: curl",
        ),
        (vec![(url, "http://peer.test:9")], "cannot download http://peer.test:9/SHA256SUMS"),
        (vec![engine], "the checksum of docker-29.0.0.tgz is unknown"),
        (
            vec![engine, ("DOCKER_SHA256", "none"), ("DOCKER_DOWNLOAD_URL", "http://peer.test:9")],
            "requires HTTPS",
        ),
        (
            vec![engine, ("DOCKER_SHA256", "00"), ("DOCKER_DOWNLOAD_URL", "http://peer.test:9")],
            "cannot download http://peer.test:9/linux/static/stable/x86_64/docker-29.0.0.tgz",
        ),
        (vec![engine, ("PATH", "/opt/s390x:/usr/bin")], "no static programs for s390x"),
        (vec![("STUB_CODE", "7")], ""),
    ] {
        let mut install = b.user("sh </srv/release/install.sh").env(url, "/srv/release");
        for (name, value) in &variables {
            install = install.env(name, value);
        }
        let done = install.run()?;
        let code = if expected.is_empty() { 7 } else { 1 };
        ensure!(done.code == code && done.stderr.contains(expected), "{variables:?}: {done}");
        if code == 1 {
            assert_eq!(home(&b)?, before, "{variables:?}");
        }
    }
    let said = b.root("sh /srv/release/install.sh").fails_with(1)?;
    ensure!(said.contains("as root"), "{said}");
    // The setup failed, the programs are there: the next run does the rest, and that is its own to remove.
    let done = b.user("sh /srv/release/install.sh --flag 'a b'").ok()?;
    ensure!(done.contains("is already installed in /home/tester/bin"), "{done}");
    b.user("sh /srv/release/install.sh uninstall").ok()?;
    b.user("rm .stub").ok()?;
    assert_eq!(home(&b)?, before);
    let said = b.user("sh /srv/release/install.sh uninstall").fails_with(1)?;
    ensure!(said.contains("contains nothing that this script installed"), "{said}");
    Ok(())
}

#[test]
fn a_killed_run_is_taken_up_and_arguments_reach_the_setup_tool() -> Result<()> {
    let b = host(TestBox::builder(Suite::Sid))?;
    Stubs::new(&b)?.release("1.0", "rootlesskit")?;
    let before = home(&b)?;
    let server = serve(&b, "stall")?;
    let mut run =
        b.user("exec sh /srv/release/install.sh").env("DOCKER_ROOTLESS_URL", PORT).spawn()?;
    let part = "/home/tester/bin/.docker-rootless-extras.new/docker-rootless-extras-1.0.tgz.part";
    wait::until_true("part of the archive came", PATIENCE, || Ok(b.exists(part)))?;
    let second = b.user("sh /srv/release/install.sh").fails_with(1)?;
    ensure!(second.contains("another run of this script (pid "), "{second}");
    ensure!(run.alive()?, "{}", run.printed()?);
    // Everything of it at once, as at a loss of power.
    b.root("pkill -KILL -u tester").ok()?;
    run.wait(PATIENCE)?;
    drop(server);

    // A proxy is asked for an address that nobody else knows.
    let server = serve(&b, "whole")?;
    let done = b
        .user("sh </srv/release/install.sh")
        .env("DOCKER_ROOTLESS_URL", "http://release.invalid/{arch}")
        .env("http_proxy", PORT)
        .env("SKIP_IPTABLES", "1")
        .env("FORCE_ROOTLESS_INSTALL", "1")
        .ok()?;
    ensure!(done.contains("# Cleaning up after an interrupted run\n"), "{done}");
    assert_eq!(b.read("/home/tester/.stub")?, "install --force --skip-iptables\n");
    b.user("sh /srv/release/install.sh --flag 'a b'").ok()?;
    assert_eq!(b.read("/home/tester/.stub")?, "install --flag a b\n");
    b.user("sh /srv/release/install.sh uninstall --purge; rm .stub").ok()?;

    // Where there is busybox and nothing else, as on Alpine.
    busybox_alone(&b)?;
    let tiny = |url: &str, args: &str| {
        b.user(&format!("busybox sh /srv/release/install.sh {args}"))
            .env("PATH", "/opt/bb")
            .env("DOCKER_ROOTLESS_URL", url)
    };
    tiny(PORT, "").ok()?;
    tiny(PORT, "uninstall").ok()?;
    let said = tiny("http://peer.test:9", "").fails_with(1)?;
    ensure!(said.contains("/SHA256SUMS: wget exited with status"), "{said}");
    drop(server);
    let _server = serve(&b, "cut")?;
    let said = tiny(PORT, "").fails_with(1)?;
    ensure!(said.contains("wget") || said.contains("discarding it"), "{said}");
    b.user("rm .stub").ok()?;
    assert_eq!(home(&b)?, before);
    Ok(())
}

#[test]
fn only_what_was_installed_is_replaced_and_removed() -> Result<()> {
    let b = host(TestBox::builder(Suite::Sid))?;
    let stubs = Stubs::new(&b)?;
    stubs.release("1.0", "rootlesskit vpnkit")?;
    stubs.archive("/srv/next", "2.0", "true")?;
    b.user("mkdir bin; echo mine >bin/mine; echo other >bin/rootlesskit; echo key >bin/vpnkit")
        .ok()?;
    let install = |script: &str| b.user(script);
    let said = install("sh /srv/release/install.sh").fails_with(1)?;
    ensure!(
        said.contains("/home/tester/bin/rootlesskit exists and was not installed by this script"),
        "{said}"
    );
    assert_eq!(b.read("/home/tester/bin/rootlesskit")?, "other\n");
    install("rm bin/vpnkit; REPLACE=1 sh /srv/release/install.sh").ok()?;
    ensure!(b.exists("/home/tester/bin/vpnkit"));
    // The next version has no vpnkit any more.
    install("DOCKER_ROOTLESS_URL=/srv/next sh /srv/release/install.sh").ok()?;
    ensure!(!b.exists("/home/tester/bin/vpnkit"), "a file of the version before stays");
    // A file that somebody changed is not repaired in silence, nor removed; one that is gone already is no matter.
    install("rm bin/rootlessctl; echo changed >bin/rootlesskit-docker-proxy").ok()?;
    let done = install("sh /srv/release/install.sh uninstall").run()?;
    ensure!(done.code == 0, "{done}");
    ensure!(
        done.stderr.contains("bin/rootlesskit-docker-proxy was modified, so it was kept"),
        "{done}"
    );
    assert_eq!(b.user("ls -A bin").ok()?, "mine\nrootlesskit-docker-proxy\n");
    Ok(())
}

/// Pairs of runs that start at the same time. Every other time there is what an interrupted run left (`$1`, if it is not
/// empty).
const PAIRS: &str = r#"cd; bin=bin/.docker-rootless-extras
    for round in $(seq 60); do
        rm -rf bin; mkdir bin
        [ $((round % 2)) = 0 ] || eval "$1"
        sh /srv/release/install.sh >/tmp/a 2>&1 & a=$!
        sh /srv/release/install.sh >/tmp/b 2>&1 & b=$!
        wait $a; a=$?; wait $b; b=$?
        busy() { grep -q '^error: another run of this script' "$1"; }
        case $a$b in
        00) true ;;
        01) busy /tmp/b ;;
        10) busy /tmp/a ;;
        *) false ;;
        esac && [ -x bin/rootlesskit ] && [ ! -e $bin.new ] && [ ! -e $bin.lock ] && [ ! -h $bin.lock ] || {
            echo "round $round: $a $b"; cat /tmp/a /tmp/b; ls -lA bin; exit 1; }
    done"#;

#[test]
fn of_two_simultaneous_runs_one_installs_and_the_other_says_so() -> Result<()> {
    let b = host(TestBox::builder(Suite::Sid))?;
    Stubs::new(&b)?.release("1.0", "rootlesskit")?;
    let pairs = |path: &str, left: &str| {
        let run = b.argv(tests::As::User, &["sh", "-c", PAIRS, "sh", left]);
        run.env("PATH", path).env("DOCKER_ROOTLESS_URL", "/srv/release").limit(600).ok()
    };
    pairs("/usr/bin:/usr/sbin", "mkdir $bin.new; echo 4194305 >$bin.lock; echo old >$bin.new/old")?;
    // Without flock(1).
    b.root("mkdir /opt/few; cp -s /usr/bin/* /opt/few/; rm /opt/few/flock").ok()?;
    pairs("/opt/few", "")?;
    let interrupted = b
        .user("rm -rf bin; mkdir bin; ln -s 4194305 bin/.docker-rootless-extras.lock; sh /srv/release/install.sh")
        .env("PATH", "/opt/few")
        .env("DOCKER_ROOTLESS_URL", "/srv/release");
    let said = interrupted.fails_with(1)?;
    ensure!(said.contains("a run of this script (pid 4194305) was interrupted"), "{said}");
    ensure!(
        said.contains("hint: run: rm -rf '/home/tester/bin/.docker-rootless-extras.lock'"),
        "{said}"
    );
    b.user("rm -rf bin .stub").ok().map(drop)
}
