//! `uninstall --purge` with real daemons and real mounts: what is the user's own is still there afterwards, what is the
//! daemon's is not.

use tests::docker::Docker;
use tests::{PATIENCE, Result, Suite, TestBox, ensure, wait};

use crate::{TOOL, in_order};

const DATA: &str = "/home/tester/.local/share/docker";
const PURGE: &str = "dockerd-rootless-setuptool.sh uninstall --purge";
/// A container that writes as somebody who has a subordinate id, makes a directory that nobody may write to, and runs on.
const USE: &str = "run -d --name web -v vol:/v bb sh -c \
                   'mkdir -p /v/ro/deep; echo 1 > /v/ro/deep/x; chown -R 1000:1000 /v; chmod -R 555 /v; exec sleep 1000'";

/// Starts a daemon, with a container that writes, and stops it again. A daemon gives containers 15 seconds to end, and then
/// leaves them behind; this one would take 10 of them.
fn used(b: &TestBox) -> Result<()> {
    let docker = Docker::start(b, &[])?;
    busy(b, &docker)?;
    docker.run("kill web")?;
    docker.stop()
}

fn busy(b: &TestBox, docker: &Docker<'_>) -> Result<()> {
    docker.import()?;
    docker.run(USE)?;
    wait::until_true("the container has written", PATIENCE, || {
        Ok(b.root(&format!("stat -c %a {DATA}/volumes/vol/_data")).run()?.stdout == "555\n")
    })
}

/// An ordinary purge leaves nothing: the data is a mount point in such a box, which stays.
fn purges(b: &TestBox) -> Result<()> {
    b.user(PURGE).ok()?;
    emptied(b, DATA)?;
    for path in ["docker", "docker.sock", "docker.pid", "dockerd-rootless"] {
        ensure!(!b.exists(&format!("/run/user/1001/{path}")), "{path} is left");
    }
    Ok(())
}

fn emptied(b: &TestBox, dir: &str) -> Result<()> {
    let left = b.root(&format!("find {dir} -mindepth 1")).ok()?;
    ensure!(left.is_empty(), "left: {left}");
    Ok(())
}

#[test]
fn files_of_subordinate_ids_and_read_only_directories_go() -> Result<()> {
    for suite in [Suite::Sid, Suite::Bookworm] {
        let b = TestBox::boot(suite)?;
        used(&b)?;
        let owners = b.root(&format!("find {DATA}/volumes -uid +99999")).ok()?;
        ensure!(owners.contains("/ro/deep/x"), "no subordinate ids: {owners}");
        purges(&b)?;
    }
    Ok(())
}

#[test]
fn mounts_below_the_data_are_refused_and_what_is_mounted_stays() -> Result<()> {
    let b = TestBox::boot(Suite::Sid)?;
    used(&b)?;
    let volumes = format!("{DATA}/volumes");
    // A directory of the same file system as the data, one of another, a tmpfs, an overlay, a read-only one, a file.
    b.root(&format!(
        "set -e; cd {volumes}; for n in same other tmp over ro; do mkdir -p $n/_data; done; touch file; chown -R tester: same other tmp over ro file; \
         mkdir -p {DATA}/tmp/mine /srv/nas /srv/low /srv/up /srv/work /srv/file.d; echo 1 > /srv/file.d/precious; \
         for d in {DATA}/tmp/mine /srv/nas /srv/low; do echo 1 > $d/precious; done; \
         mount --bind {DATA}/tmp/mine same/_data; mount --bind /srv/nas other/_data; mount -t tmpfs none tmp/_data; \
         echo 1 > tmp/_data/precious; mount --bind /srv/nas ro/_data; mount -o remount,bind,ro ro/_data; \
         mount -t tmpfs none /srv/up; mkdir /srv/up/u /srv/up/w; \
         mount -t overlay none -o lowerdir=/srv/low,upperdir=/srv/up/u,workdir=/srv/up/w over/_data; \
         mount --bind /srv/file.d/precious file; chown -R tester: /srv/nas /srv/low {DATA}/tmp/mine"
    ))
    .ok()?;
    let refused = b.user(PURGE).fails_with(1)?;
    ensure!(refused.contains("nothing was changed"), "{refused}");
    let precious = || {
        for name in ["same/_data", "other/_data", "tmp/_data", "over/_data", "ro/_data"] {
            ensure!(b.exists(&format!("{volumes}/{name}/precious")), "{name} is gone");
        }
        ensure!(b.root(&format!("cat {volumes}/file")).ok()? == "1\n", "the file is gone");
        Ok(())
    };
    precious()?;
    // Whoever goes past the first look is refused by the second.
    let forced = format!("rootlesskit {TOOL} delete data {DATA}");
    let refused = b.user(&forced).fails_with(1)?;
    ensure!(refused.contains("file systems are mounted below"), "{refused}");
    precious()?;
    ensure!(b.exists(&format!("{DATA}/volumes/vol/_data")), "the data is gone");

    let refused = b.user(PURGE).fails_with(1)?;
    let lines = refused.lines().filter_map(|line| line.strip_prefix("[ERROR]   sudo "));
    let commands: Vec<&str> = lines.collect();
    assert_eq!(commands.len(), 6, "{refused}");
    b.root(&commands.join(" && ")).ok()?;
    purges(&b)?;
    for name in ["/srv/nas", "/srv/low", "/srv/file.d"] {
        ensure!(b.exists(&format!("{name}/precious")), "{name} is gone");
    }
    Ok(())
}

/// Its containers live on, with overlays that are mounted in a namespace which nothing else shows.
#[test]
fn what_a_killed_daemon_leaves_is_named_and_keeps_its_data() -> Result<()> {
    for suite in [Suite::Sid, Suite::Bookworm] {
        let b = TestBox::boot(suite)?;
        let docker = Docker::start(&b, &[])?;
        busy(&b, &docker)?;
        for program in ["dockerd", "rootlesskit"] {
            b.signal(b.process(program)?.pid, "KILL")?;
        }
        let gone = |name: &str| !b.user_processes().iter().any(|p| p.program() == name);
        wait::until_true("the daemon is gone", PATIENCE, || {
            Ok(gone("dockerd") && gone("containerd") && gone("rootlesskit"))
        })?;
        let refused = b.user(PURGE).fails_with(1)?;
        in_order(
            &refused,
            &[
                "[ERROR] the daemon's data is in use, so it was kept:\n",
                "containerd-shim",
                "  kill -KILL ",
            ],
        )?;
        ensure!(b.exists(&format!("{DATA}/volumes/vol/_data/ro/deep/x")), "the data is gone");
        let command = refused.lines().find_map(|line| line.strip_prefix("[ERROR]   kill -KILL "));
        b.user(&format!("kill -KILL {}", command.unwrap_or_default())).ok()?;
        wait::until_true("what it left is gone", PATIENCE, || {
            Ok(!b
                .user_processes()
                .iter()
                .any(|p| p.command.contains("shim") || p.program() == "sleep"))
        })?;
        purges(&b)?;
    }
    Ok(())
}

#[test]
fn a_daemon_with_another_state_directory_keeps_its_data() -> Result<()> {
    for suite in [Suite::Sid, Suite::Bookworm] {
        let b = TestBox::boot(suite)?;
        let state = [("DOCKERD_ROOTLESS_ROOTLESSKIT_STATE_DIR", "/home/tester/state")];
        let docker = Docker::start(&b, &state)?;
        busy(&b, &docker)?;
        let (daemon, kit) = (b.process("dockerd")?.pid, b.process("rootlesskit")?.pid);
        // Whatever signs there are: one at a time is taken away.
        for hide in ["true", "rm $XDG_RUNTIME_DIR/docker.pid", "rm $XDG_RUNTIME_DIR/docker.sock"] {
            b.user(hide).ok()?;
            let refused = b.user(PURGE).fails_with(1)?;
            in_order(
                &refused,
                &[
                    "data is in use, so it was kept:\n",
                    &format!("dockerd (pid {daemon}) "),
                    &format!("[ERROR]   kill {kit}\n"),
                ],
            )?;
            ensure!(
                b.exists(&format!("{DATA}/volumes/vol/_data/ro/deep/x")),
                "{hide}: the data is gone"
            );
        }
        assert_eq!(docker.daemon().pid(), kit, "the pid that was named is rootlesskit's");
        b.user(&format!("kill {kit}")).ok()?;
        wait::until_true("the daemon ends", PATIENCE, || {
            Ok(!b
                .user_processes()
                .iter()
                .any(|p| p.program() == "dockerd" || p.program() == "rootlesskit"))
        })?;
        purges(&b)?;
    }
    Ok(())
}

#[test]
fn a_data_root_elsewhere_is_purged_by_its_name_and_by_a_link() -> Result<()> {
    let b = TestBox::boot(Suite::Sid)?;
    b.root(
        "umount /home/tester/.local/share/docker; mkdir -p /srv/disk /home/tester/.config/docker; \
         mount -t tmpfs none /srv/disk; mkdir /srv/disk/docker /srv/disk/lost+found; echo 1 > /srv/disk/precious; \
         chown -R tester: /srv/disk /home/tester/.config",
    )
    .ok()?;
    b.write("/home/tester/.config/docker/daemon.json", "{\"data-root\":\"/srv/disk/docker\"}")?;
    let used = || -> Result<()> {
        let docker = Docker::start(&b, &[])?;
        docker.import()?;
        docker.run("run --rm -v vol:/v bb sh -c 'echo 1 > /v/x; chown 1000 /v/x'")?;
        docker.stop()?;
        ensure!(b.exists("/srv/disk/docker/volumes/vol/_data/x"), "the data is elsewhere");
        Ok(())
    };
    used()?;
    b.user("echo 1 > /srv/disk/docker/precious").ok()?;
    let kept = b.user(PURGE).run()?;
    ensure!(
        kept.code == 1
            && kept.stderr.contains("it also contains files that are not Docker's: precious"),
        "{kept}"
    );
    ensure!(b.exists("/srv/disk/docker/volumes/vol/_data/x"), "the data is gone");
    b.user("mv /srv/disk/docker/precious /srv/disk").ok()?;
    b.user(PURGE).ok()?;
    ensure!(
        !b.exists("/srv/disk/docker") && b.exists("/srv/disk/precious"),
        "the wrong things are gone"
    );

    b.user(
        "rm -r .config/docker .local/share/docker; mkdir -p .local/share; mkdir /srv/disk/docker; \
         ln -s /srv/disk/docker .local/share/docker",
    )
    .ok()?;
    used()?;
    let gone = b.user(PURGE).ok()?;
    in_order(
        &gone,
        &[
            "is a link; the data is in /srv/disk/docker\n",
            "Removed /srv/disk/docker\n",
            "Removed /home/tester/.local/share/docker\n",
        ],
    )?;
    ensure!(
        !b.exists("/srv/disk/docker") && b.exists("/srv/disk/precious"),
        "the wrong things are gone"
    );
    ensure!(b.user("test -L .local/share/docker").run()?.code == 1, "the link is left");
    Ok(())
}

#[test]
fn what_others_have_in_the_runtime_directory_stays() -> Result<()> {
    let b = TestBox::boot(Suite::Sid)?;
    used(&b)?;
    b.user("cd $XDG_RUNTIME_DIR && mkdir docker/mine && echo 1 > docker/mine/precious && echo 1 > docker/notes").ok()?;
    let done = b.user(PURGE).run()?;
    ensure!(
        done.code == 0 && done.stderr.contains("dockerd did not create: mine, notes\n"),
        "{done}"
    );
    assert_eq!(
        b.user("cd $XDG_RUNTIME_DIR/docker && find . -type f | sort").ok()?,
        "./mine/precious\n./notes\n"
    );
    emptied(&b, DATA)
}

#[test]
fn what_cannot_be_deleted_is_named_and_the_rest_goes() -> Result<()> {
    let b = TestBox::boot(Suite::Sid)?;
    used(&b)?;
    // FS_IOC_SETFLAGS with FS_IMMUTABLE_FL, as chattr(1) does it.
    b.root(&format!(
        "set -e; cd {DATA}/volumes; mkdir -p fixed/_data roots/_data; echo 1 > fixed/_data/x; chown -R tester: fixed; \
         perl -e 'my $f = pack \"q\", 0x10; open F, \"fixed/_data/x\" or die; ioctl F, 0x40086602, $f or die'; \
         echo 1 > roots/_data/x; chown tester: roots"
    ))
    .ok()?;
    let said = b.user(PURGE).fails_with(1)?;
    for words in [
        "cannot delete /home/tester/.local/share/docker/volumes/fixed/_data/x: operation not permitted",
        "run: sudo chattr -i",
        "cannot delete /home/tester/.local/share/docker/volumes/roots/_data/x: permission denied",
        "cannot delete all of /home/tester/.local/share/docker (rootlesskit failed with ",
    ] {
        ensure!(said.contains(words), "{words:?} is not in {said}");
    }
    assert_eq!(
        b.root(&format!("cd {DATA} && find . -type f | sort")).ok()?,
        "./volumes/fixed/_data/x\n./volumes/roots/_data/x\n"
    );
    Ok(())
}
