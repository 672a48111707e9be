//! What `cargo xtask dist` made: each artifact is installed the way its users do, runs Docker, and goes without a trace.
//! (`cargo xtask test` makes them first.)

#[path = "packages/rpm.rs"]
mod rpm;

use rpm::{Dnf, OLD_FILE, PACKAGE};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use tests::docker::{Docker, LEFT_BY_DOCKERD, MAKE_IMAGE};
use tests::{
    As, Builder, Context as _, PATIENCE, Result, Suite, TestBox, Under, ensure, need, paths, wait,
};

const PAGE: &str = "hello-from-container\n";

/// Where the artifacts lie.
fn dist() -> Result<PathBuf> {
    Ok(paths::target()?.join("dist"))
}

/// The artifact whose name ends so.
fn artifact(end: &str) -> Result<PathBuf> {
    let dist = dist()?;
    let names = fs::read_dir(&dist).into_iter().flatten().flatten().map(|entry| entry.path());
    names
        .into_iter()
        .find(|path| path.to_string_lossy().ends_with(end))
        .with_context(|| format!("no {end} in {}\nhint: run `cargo xtask dist`", dist.display()))
}

/// A box without any rootlesskit of the harness, in which `file` lies in `/tmp`; its path in the box.
fn bare_box(builder: Builder, file: &Path) -> Result<(TestBox, String)> {
    let b = builder.under(Under::Theirs).boot()?;
    // A link that the harness made; no package owns it.
    b.root("rm /usr/bin/dockerd-rootless.sh").ok()?;
    let name = file.file_name().context("a file name")?.to_string_lossy();
    let inside = format!("/tmp/{name}");
    fs::copy(file, b.path(&inside))?;
    Ok((b, inside))
}

/// Runs a command of the machine and gives its standard output.
fn run(command: &mut Command) -> Result<String> {
    let output = command.output().with_context(|| format!("{command:?}"))?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{command:?}: {}\n{text}{errors}", output.status);
    Ok(text)
}

/// A container with a published port answers the user and the other machine.
fn serves(b: &TestBox, d: &Docker<'_>, name: &str, port: u16) -> Result<()> {
    d.run(&format!("run -d --name {name} -p {port}:80 bb httpd -f -p 80 -h /www"))?;
    answers(b, port)
}

fn answers(b: &TestBox, port: u16) -> Result<()> {
    let get = |host: &str| format!("curl -sS -m5 http://{host}:{port}/");
    let page = wait::until("the published port answers", PATIENCE, || {
        Ok(b.user(&get("127.0.0.1")).ok().ok())
    })?;
    assert_eq!(page, PAGE);
    assert_eq!(b.peer(&get("10.77.0.1")).ok()?, PAGE);
    Ok(())
}

/// Debian's docker.io conflicts with the package, as it does with Docker's own. So its daemon (and on bookworm its
/// client) is taken out of the package manager's hands, the way a stand-in for docker-ce would bring it.
const KEEP_DOCKER: &str = "set -e; mkdir /opt/docker
    for f in $(dpkg -L docker.io | grep -E '^/usr/s?bin/(docker|dockerd|docker-proxy)$'); do cp $f /opt/docker; done";
const BRING_DOCKER: &str = "install -m 755 /opt/docker/* /usr/local/bin; rm -r /opt/docker";

/// Options that undo what the root file systems of the boxes leave out.
const ALL_FILES: &str = "-o Dpkg::Options::=--path-include=/usr/share/*";

fn install_deb(b: &TestBox, deb: &str, more: &str) -> Result<()> {
    let apt = format!("apt-get install -y --no-install-recommends {ALL_FILES} {more} {deb}");
    b.root(&apt).env("DEBIAN_FRONTEND", "noninteractive").limit(120).ok().map(drop)
}

/// Makes a package of an older version, whose programs have other bytes, out of the package in `$0`.
const OLDER: &str = r#"set -e; dpkg-deb -R $0 /tmp/old; cd /tmp/old
    sed -i 's/^Version: .*/Version: 0.0.1-1/' DEBIAN/control
    for f in usr/bin/rootlesskit usr/bin/dockerd-rootless; do echo old >>$f; done
    find usr -type f | xargs md5sum >DEBIAN/md5sums
    dpkg-deb --root-owner-group -Zgzip -z1 -b . /tmp/old.deb; rm -r /tmp/old"#;

/// F105, F109: Debian's rootlesskit gives way, everything is in /usr/bin, a daemon survives an upgrade, and removal
/// removes.
fn debian_package(suite: Suite) -> Result<()> {
    let (b, deb) = bare_box(TestBox::builder(suite), &artifact(".deb")?)?;
    b.root(KEEP_DOCKER).ok()?;
    b.argv(As::Root, &["sh", "-c", OLDER, &deb]).limit(120).ok()?;
    install_deb(&b, "/tmp/old.deb", "")?;
    b.root(BRING_DOCKER).ok()?;
    let package = PACKAGE;
    let version = || b.root(&format!("dpkg-query -W -f '${{Version}}' {package}")).ok();
    assert_eq!(version()?, "0.0.1-1");
    let state = b.root(&format!("dpkg-query -W -f '${{db:Status-Abbrev}}' {package}")).ok()?;
    assert_eq!(state, "ii ");
    ensure!(b.root("dpkg-query -W -f '${db:Status-Abbrev}' rootlesskit").run()?.stdout != "ii ");
    assert_eq!(b.root(&format!("dpkg --verify {package}")).ok()?, "");
    for program in ["rootlesskit", "dockerd-rootless.sh", "dockerd-rootless-setuptool.sh"] {
        let found = b.user(&format!("command -v {program}")).ok()?;
        assert_eq!(found, format!("/usr/bin/{program}\n"));
    }

    let d = Docker::start(&b, &[])?;
    d.import()?;
    serves(&b, &d, "web", 8080)?;
    // An upgrade replaces every file below a running daemon, which goes on.
    install_deb(&b, &deb, "")?;
    ensure!(version()? != "0.0.1-1", "it was not upgraded");
    assert_eq!(b.root(&format!("dpkg --verify {package}")).ok()?, "");
    let program = |d: &Docker<'_>| b.root(&format!("readlink /proc/{}/exe", d.daemon().pid())).ok();
    assert_eq!(program(&d)?, "/usr/bin/rootlesskit (deleted)\n");
    answers(&b, 8080)?;
    serves(&b, &d, "web2", 8081)?;
    d.run("rm -f web2")?;
    d.stop()?;
    // What was made with the old version works with the new one.
    let d = Docker::start(&b, &[])?;
    assert_eq!(program(&d)?, "/usr/bin/rootlesskit\n");
    d.run("start web")?;
    answers(&b, 8080)?;
    d.run("rm -f web")?;
    d.stop()?;

    let files = b.root(&format!("dpkg -L {package}")).ok()?;
    let own: Vec<&str> = files
        .lines()
        .filter(|path| b.exists(path) && !b.path(path).symlink_metadata().is_ok_and(|m| m.is_dir()))
        .collect();
    let expected = files.lines().filter(|path| path.contains("/bin/")).count();
    assert_eq!(expected, 7, "{files}");
    ensure!(own.len() > 30, "files are missing: {own:#?}");
    for name in [
        "rootlesskit",
        "rootlessctl",
        "dockerd-rootless-setuptool",
        "dockerd-rootless-setuptool.sh",
    ] {
        for file in [
            format!("bash-completion/completions/{name}"),
            format!("zsh/vendor-completions/_{name}"),
            format!("fish/vendor_completions.d/{name}.fish"),
        ] {
            ensure!(own.contains(&&*format!("/usr/share/{file}")), "no {file} in {own:#?}");
        }
    }
    b.root(&format!("dpkg -r {package}")).ok()?;
    let left: Vec<_> = own.into_iter().filter(|path| b.exists(path)).collect();
    ensure!(left.is_empty(), "left behind: {left:#?}");
    ensure!(!b.exists(&format!("/usr/share/doc/{package}")));
    ensure!(b.root(&format!("dpkg -s {package}")).run()?.code == 1, "traces are left");
    b.root(&format!("rm {deb} /tmp/old.deb")).ok()?;
    b.assert_clean(LEFT_BY_DOCKERD)
}

#[test]
fn the_debian_package_on_bookworm() -> Result<()> {
    debian_package(Suite::Bookworm)
}

#[test]
fn the_debian_package_on_trixie() -> Result<()> {
    debian_package(Suite::Trixie)
}

#[test]
fn the_debian_package_on_sid() -> Result<()> {
    debian_package(Suite::Sid)
}

/// F002, F105: what the package brings sets up a user's service, which serves.
fn service_of_the_debian_package(suite: Suite) -> Result<()> {
    let (b, deb) = bare_box(TestBox::builder(suite).systemd(), &artifact(".deb")?)?;
    b.root(KEEP_DOCKER).ok()?;
    install_deb(&b, &deb, "")?;
    b.root(BRING_DOCKER).ok()?;
    set_up(&b)
}

/// The programs in `/usr/bin` set up a user's service, which serves, and take it away again.
fn set_up(b: &TestBox) -> Result<()> {
    let said = b.user("dockerd-rootless-setuptool.sh install").limit(120).ok()?;
    ensure!(said.contains("Installed docker.service successfully."), "{said}");
    let unit = b.read("/home/tester/.config/systemd/user/docker.service")?;
    ensure!(unit.contains("=/usr/bin/dockerd-rootless.sh"), "{unit}");
    b.user(MAKE_IMAGE).limit(120).ok()?;
    b.user("docker run -d --name web -p 8080:80 bb httpd -f -p 80 -h /www").limit(120).ok()?;
    answers(b, 8080)?;
    b.user("docker rm -f web").limit(60).ok()?;
    b.user("dockerd-rootless-setuptool.sh uninstall").limit(60).ok()?;
    ensure!(b.user_processes().iter().all(|p| p.program() != "dockerd"), "the daemon still runs");
    Ok(())
}

#[test]
fn the_setup_tool_of_the_debian_package_makes_a_service_of_it_on_bookworm() -> Result<()> {
    service_of_the_debian_package(Suite::Bookworm)
}

#[test]
fn the_setup_tool_of_the_debian_package_makes_a_service_of_it_on_trixie() -> Result<()> {
    service_of_the_debian_package(Suite::Trixie)
}

#[test]
fn the_setup_tool_of_the_debian_package_makes_a_service_of_it_on_sid() -> Result<()> {
    service_of_the_debian_package(Suite::Sid)
}

#[test]
fn the_tarball_in_the_home_of_a_user() -> Result<()> {
    let tarball = artifact(".tgz")?;
    let (b, tgz) = bare_box(TestBox::builder(Suite::Sid), &tarball)?;
    b.root("dpkg --remove --force-depends rootlesskit").ok()?;
    // The way of the installer.
    b.user(&format!("mkdir bin && tar xzf {tgz} -C bin --strip-components=1")).ok()?;
    let path = [("PATH", "/home/tester/bin:/usr/bin:/bin:/usr/sbin:/sbin")];
    for launcher in ["dockerd-rootless.sh", "dockerd-rootless"] {
        let d = Docker::start_with(&b, launcher, &path)?;
        d.import()?;
        serves(&b, &d, "web", 8080)?;
        d.run("rm -f web")?;
        d.stop()?;
    }
    // The programs that Docker's list for a removal by hand names, and ours beside them.
    b.user("cd bin && rm rootlesskit dockerd-rootless.sh dockerd-rootless-setuptool.sh").ok()?;
    b.user("cd bin && rm rootlesskit-docker-proxy rootlessctl").ok()?;
    b.user("cd bin && rm dockerd-rootless dockerd-rootless-setuptool && rmdir ~/bin").ok()?;
    b.root(&format!("rm {tgz}")).ok()?;
    b.assert_clean(LEFT_BY_DOCKERD)
}

#[test]
fn single_members_of_the_tarball_are_whole_programs() -> Result<()> {
    let tarball = artifact(".tgz")?;
    let listing = run(Command::new("tar").arg("-tvzf").arg(&tarball))?;
    for line in listing.lines() {
        let mode = line.split(' ').next().unwrap_or_default();
        ensure!(["drwxr-xr-x", "-rwxr-xr-x", "lrwxrwxrwx"].contains(&mode), "{line}");
        ensure!(line.contains(" 0/0 ") && line.contains(" docker-rootless-extras/"), "{line}");
    }
    for name in ["rootlesskit", "dockerd-rootless.sh", "dockerd-rootless-setuptool.sh"] {
        let root = tempfile::tempdir()?;
        let member = format!("docker-rootless-extras/{name}");
        let mut tar = Command::new("tar");
        tar.arg("-xzf").arg(&tarball).arg("-C").arg(root.path()).arg("--strip-components=1");
        run(tar.arg(member))?;
        // Nothing else is there: no library, no shell.
        let mut chroot = Command::new("chroot");
        chroot.arg(root.path()).arg(format!("/{name}")).arg("--help");
        let output = chroot.output()?;
        let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        // The launcher has no options: it refuses root.
        ensure!(text.contains("ootless"), "{name}: {}\n{text}", output.status);
        ensure!(output.status.code().is_some_and(|code| code <= 1), "{name}: {}", output.status);
    }
    Ok(())
}

/// What a failing command says.
fn refused(command: &mut Command) -> Result<String> {
    let output = command.output().with_context(|| format!("{command:?}"))?;
    ensure!(!output.status.success(), "{command:?} did not fail");
    Ok(String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned())
}

#[test]
fn the_rpm_package_by_dnf() -> Result<()> {
    for (program, package) in
        [("dnf", "dnf"), ("createrepo_c", "createrepo-c"), ("rpmbuild", "rpm")]
    {
        need!(Path::new("/usr/bin").join(program).exists(), "{program} (package {package})");
    }
    let package = artifact(".rpm")?;
    let root = Dnf::with(&package)?;
    // What it needs, as the package manager below says it, and what it cannot live with.
    let path = package.to_string_lossy();
    let text = refused(&mut root.rpm(&["-i", &path]))?;
    for need in ["/usr/bin/newuidmap", "docker-ce or moby-engine"] {
        ensure!(text.contains(need), "{need} in {text}");
    }
    let text = refused(&mut root.dnf(&["install", PACKAGE, "rootlesskit"]))?;
    ensure!(text.contains("conflicts with rootlesskit"), "{text}");
    run(&mut root.dnf(&["install", "docker-ce", "filesystem", "shadow-utils"]))?;
    let before = root.tree()?;

    run(&mut root.dnf(&["install", &format!("{PACKAGE}-0.0.1")]))?;
    let version = || run(&mut root.rpm(&["-q", "--qf", "%{VERSION}", PACKAGE]));
    assert_eq!(version()?, "0.0.1");
    ensure!(root.file(OLD_FILE).exists());
    run(&mut root.dnf(&["upgrade", PACKAGE]))?;
    ensure!(version()? != "0.0.1", "it was not upgraded");
    ensure!(!root.file(OLD_FILE).exists(), "the old version's file is still there");
    assert_eq!(run(&mut root.rpm(&["-V", PACKAGE]))?, "");
    for (file, mode) in root.files()? {
        let program = file.starts_with("/usr/bin/");
        match mode.as_bytes()[0] {
            b'l' => ensure!(root.file(&file).exists(), "{file} leads nowhere"),
            b'd' => assert_eq!(root.mode(&file)?, 0o755, "{file}"),
            _ => assert_eq!(root.mode(&file)?, if program { 0o755 } else { 0o644 }, "{file}"),
        }
    }

    let b = TestBox::builder(Suite::Sid).under(Under::Theirs).systemd().boot()?;
    b.root("dpkg --remove --force-depends rootlesskit && rm -f /usr/bin/dockerd-rootless*.sh")
        .ok()?;
    root.copy_to(&b)?;
    set_up(&b)?;

    run(&mut root.dnf(&["remove", PACKAGE]))?;
    assert_eq!(root.tree()?, before);
    Ok(())
}

#[test]
fn packing_twice_gives_the_same_bytes() -> Result<()> {
    let dist = dist()?;
    let sums =
        fs::read_to_string(dist.join("SHA256SUMS")).context("hint: run `cargo xtask dist`")?;
    run(Command::new("sha256sum").args(["--check", "--strict", "SHA256SUMS"]).current_dir(&dist))?;
    let again = tempfile::tempdir()?;
    // Every archive is dated by one variable; a commit in between would change its default.
    let mut tar = Command::new("tar");
    tar.arg("-xzf").arg(artifact(".tgz")?).arg("-C").arg(again.path());
    run(&mut tar)?;
    let date = fs::metadata(again.path().join("docker-rootless-extras/rootlesskit"))?.modified()?;
    let date = date.duration_since(std::time::UNIX_EPOCH)?.as_secs().to_string();
    let packer = paths::target()?.join("debug/dist");
    // The umask, the time and the folder are others.
    let mut sh = Command::new("sh");
    sh.args(["-c", r#"umask 077; exec "$0" --no-build --out "$1""#]);
    run(sh.arg(packer).arg(again.path()).env("SOURCE_DATE_EPOCH", date))?;
    assert_eq!(
        fs::read_to_string(again.path().join("SHA256SUMS"))?,
        sums,
        "the artifacts differ; if files changed since, run `cargo xtask dist` first"
    );
    Ok(())
}

#[test]
fn the_units_for_packagers_start_a_daemon_at_the_first_connection() -> Result<()> {
    let b = TestBox::builder(Suite::Sid).under(Under::Ours).systemd().boot()?;
    let units = "/etc/systemd/user";
    b.root(&format!("mkdir -p {units}/docker.service.d")).ok()?;
    b.write(
        &format!("{units}/docker.service"),
        include_str!("../../packaging/examples/docker.service"),
    )?;
    b.write(
        &format!("{units}/docker.socket"),
        include_str!("../../packaging/examples/docker.socket"),
    )?;
    b.write(
        &format!("{units}/docker.service.d/socket.conf"),
        "[Service]\nExecStart=\nExecStart=/usr/bin/dockerd-rootless.sh -H fd://\n",
    )?;
    let verify = "systemd-analyze --user verify docker.service docker.socket";
    let said = b.user(verify).run()?;
    ensure!(said.code == 0 && said.stderr.is_empty(), "{said}");
    let systemctl = |words: &str| b.user(&format!("systemctl --user {words}"));
    systemctl("daemon-reload").ok()?;
    systemctl("start docker.socket").ok()?;
    let state = |words: &str| Ok::<_, tests::Error>(systemctl(words).run()?.stdout);
    assert_eq!(state("is-active docker.service")?, "inactive\n");
    let version = b.user("docker version --format '{{.Server.Version}}'").limit(120).ok()?;
    ensure!(version.starts_with("28."), "{version}");
    assert_eq!(state("is-active docker.service")?, "active\n");
    systemctl("reload docker.service").ok()?;
    systemctl("stop docker.socket docker.service").limit(60).ok()?;
    assert_eq!(state("is-failed docker.service")?, "inactive\n");
    Ok(())
}
