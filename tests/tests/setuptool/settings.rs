//! What users wrote into units, scripts and contexts survives `install`, reinstalls and `uninstall`, and takes effect.

use tests::{Output, PATIENCE, Result, Suite, TestBox, ensure, wait};

use crate::{TOOL, host, in_order, login, packages};

const UNITS: &str = "/home/tester/.config/systemd/user";

fn tool(b: &TestBox, words: &str) -> Result<Output> {
    let done = login(b, &format!("{TOOL} {words}")).run()?;
    ensure!(done.code == 0, "{done}");
    Ok(done)
}

/// The environment of the running dockerd.
fn environ(b: &TestBox) -> Result<String> {
    let pid = b.process("dockerd")?.pid;
    b.root(&format!("tr '\\0' '\\n' < /proc/{pid}/environ")).ok()
}

/// Runs the command that `said` shows for comparing; what it prints.
fn compared(b: &TestBox, said: &str) -> Result<String> {
    let (_, command) = said.split_once("to compare it, run: ").unwrap_or_default();
    let command = command.split_once("; to replace it").unwrap_or_default().0;
    let done = login(b, command).run()?;
    ensure!(done.code == 1, "`{command}`: {done}");
    Ok(done.stdout)
}

#[test]
fn a_unit_edited_in_place_survives() -> Result<()> {
    let b = host(Suite::Trixie)?;
    tool(&b, "install")?;
    let unit = format!("{UNITS}/docker.service");
    let proxy = "Environment=HTTPS_PROXY=http://proxy.test:3128";
    b.user(&format!("sed -i 's|^\\[Service\\]|&\\n{proxy}|' {unit}")).ok()?;
    login(&b, "systemctl --user daemon-reload && systemctl --user restart docker").ok()?;
    let text = b.read(&unit)?;
    ensure!(text.contains(proxy), "{text}");

    in_order(&tool(&b, "check")?.stdout, &["[INFO] file-edited: ", "fix: compare the versions: "])?;
    for _ in 0..2 {
        let done = tool(&b, "install")?;
        in_order(
            &done.stderr,
            &[&format!("[WARNING] {unit} was edited after this tool wrote it and was kept; ")],
        )?;
        let differences = compared(&b, &done.stderr)?;
        ensure!(differences.contains(&format!("\n-{proxy}\n")), "{differences}");
        assert_eq!(b.read(&unit)?, text);
        // Three starts a minute are the limit.
        login(&b, "systemctl --user reset-failed docker; systemctl --user restart docker").ok()?;
        ensure!(environ(&b)?.contains("HTTPS_PROXY=http://proxy.test:3128\n"), "no proxy");
    }
    let gone = tool(&b, "uninstall")?;
    in_order(
        &gone.stdout,
        &[&format!("is kept as {unit}.bak\n"), "[INFO] Uninstalled docker.service\n"],
    )?;
    assert_eq!(b.read(&format!("{unit}.bak"))?, text);
    // A new installation does not disturb the copy, and --purge does not remove it.
    tool(&b, "install")?;
    in_order(&tool(&b, "uninstall --purge")?.stdout, &[&format!("settings stay in {unit}.bak\n")])?;
    assert_eq!(b.read(&format!("{unit}.bak"))?, text);
    ensure!(!b.exists(&unit));
    Ok(())
}

/// As an Ansible role for many distributions writes it: it knows nothing of readiness.
const FOREIGN: &str = "[Unit]\nDescription=Rootless Docker of the role\n[Service]\n\
    Environment=PATH=/usr/bin:/usr/sbin:/bin:/sbin\nEnvironment=DOCKER_RAMDISK=role\n\
    ExecStart=/usr/bin/dockerd-rootless.sh --debug\nType=simple\nDelegate=yes\nKillMode=mixed\n\
    [Install]\nWantedBy=default.target\n";

#[test]
fn a_unit_without_our_header_is_started_and_enabled_as_it_is() -> Result<()> {
    let b = host(Suite::Bookworm)?;
    let unit = format!("{UNITS}/docker.service");
    b.user(&format!("mkdir -p {UNITS} && cat > {unit} <<'EOF'\n{FOREIGN}EOF")).ok()?;
    for _ in 0..2 {
        let done = tool(&b, "install")?;
        in_order(
            &done.stderr,
            &[
                &format!("[WARNING] {unit} was not written by this tool and was kept; "),
                "+ systemctl --user enable docker.service\n",
            ],
        )?;
        in_order(&compared(&b, &done.stderr)?, &["-Description=Rootless Docker of the role\n"])?;
        assert_eq!(b.read(&unit)?, FOREIGN);
        ensure!(environ(&b)?.contains("DOCKER_RAMDISK=role\n"), "another unit was started");
        assert_eq!(login(&b, "docker info -f '{{.Debug}}'").ok()?, "true\n");
        assert_eq!(login(&b, "systemctl --user is-enabled docker").ok()?, "enabled\n");
    }
    tool(&b, "install --force")?;
    assert_eq!(b.read(&format!("{unit}.bak"))?, FOREIGN);
    login(&b, "systemctl --user restart docker").ok()?;
    assert_eq!(login(&b, "docker info -f '{{.Debug}}'").ok()?, "false\n");
    // Back to the role's, and away.
    b.user(&format!("mv {unit}.bak {unit}")).ok()?;
    tool(&b, "uninstall --purge")?;
    assert_eq!(b.read(&format!("{unit}.bak"))?, FOREIGN);
    Ok(())
}

fn dotfiles(suite: Suite) -> Result<()> {
    let b = host(suite)?;
    let (unit, target) =
        (format!("{UNITS}/docker.service"), "/home/tester/dotfiles/docker.service");
    b.user(&format!("mkdir -p dotfiles {UNITS} && ln -s ../../../dotfiles/docker.service {unit}"))
        .ok()?;
    let link = || b.user(&format!("readlink {unit}")).ok();
    // Nothing is there yet: the unit goes where the link leads.
    tool(&b, "install")?;
    assert_eq!(link()?, "../../../dotfiles/docker.service\n");
    ensure!(b.read(target)?.contains("ExecStart=/usr/bin/dockerd-rootless.sh\n"));
    // An update goes there, too.
    let updated = login(&b, &format!("PATH=/opt/mine:$PATH {TOOL} install")).run()?;
    in_order(&updated.stdout, &[&format!("[INFO] Updated {unit}\n")])?;
    ensure!(b.read(target)?.contains(":/opt/mine:"));

    b.user(&format!("sed -i 's|^\\[Service\\]|&\\nEnvironment=DOCKER_RAMDISK=dotfiles|' {target}"))
        .ok()?;
    let text = b.read(target)?;
    tool(&b, "install")?;
    login(&b, "systemctl --user daemon-reload && systemctl --user restart docker").ok()?;
    ensure!(environ(&b)?.contains("DOCKER_RAMDISK=dotfiles\n"), "the unit is not used");
    // systemctl takes a unit that is a link away when it disables it.
    tool(&b, "install --socket --force")?;
    tool(&b, "install")?;
    assert_eq!(link()?, "../../../dotfiles/docker.service\n");
    assert_eq!(b.read(&format!("{unit}.bak"))?, text);
    b.user(&format!("cp {unit}.bak {target}")).ok()?;
    let gone = tool(&b, "uninstall --purge")?;
    in_order(&gone.stdout, &[&format!("is kept as {unit}.bak.1\n")])?;
    assert_eq!(
        b.user(&format!("readlink {unit}.bak.1")).ok()?,
        "../../../dotfiles/docker.service\n"
    );
    assert_eq!(b.read(target)?, text);
    let left = b.user(&format!("find {UNITS} -name '*.wants'")).ok()?;
    assert_eq!(left, "");
    Ok(())
}

#[test]
fn a_unit_that_is_a_link_into_a_folder_of_dotfiles_with_systemd_252() -> Result<()> {
    dotfiles(Suite::Bookworm)
}

#[test]
fn a_unit_that_is_a_link_into_a_folder_of_dotfiles_with_systemd_262() -> Result<()> {
    dotfiles(Suite::Sid)
}

#[test]
fn an_edited_socket_survives() -> Result<()> {
    let b = host(Suite::Sid)?;
    tool(&b, "install --socket")?;
    let unit = format!("{UNITS}/docker.socket");
    b.user(&format!("sed -i 's/^SocketMode=.*/SocketMode=0600/' {unit}")).ok()?;
    let text = b.read(&unit)?;
    let mode = || b.root("stat -c %a /run/user/1001/docker.sock").ok();
    let again = "systemctl --user daemon-reload && systemctl --user stop docker.service && systemctl --user restart docker.socket";
    login(&b, again).ok()?;
    assert_eq!(mode()?, "600\n");
    let done = tool(&b, "install --socket")?;
    in_order(&compared(&b, &done.stderr)?, &["-SocketMode=0600\n+SocketMode=0660\n"])?;
    // Without the option it is not removed, since it is the user's.
    in_order(
        &tool(&b, "install")?.stderr,
        &[&format!("[WARNING] {unit} was edited after"), "install --socket uses it\n"],
    )?;
    tool(&b, "install --socket")?;
    login(&b, again).ok()?;
    assert_eq!((b.read(&unit)?, mode()?), (text.clone(), "600\n".to_owned()));
    in_order(&login(&b, "docker version").ok()?, &["Server:"])?;
    in_order(&tool(&b, "uninstall --purge")?.stdout, &[&format!("is kept as {unit}.bak\n")])?;
    assert_eq!(b.read(&format!("{unit}.bak"))?, text);
    Ok(())
}

#[test]
fn a_context_for_another_daemon_survives() -> Result<()> {
    let b = host(Suite::Bookworm)?;
    let create = "docker context create rootless --docker host=ssh://build.test --description 'the build farm'";
    login(&b, create).ok()?;
    let inspect = "docker context inspect rootless; docker context show || docker context ls";
    let before = login(&b, inspect).ok()?;
    for words in ["install", "install", "uninstall --purge"] {
        let done = tool(&b, words)?;
        in_order(
            &format!("{done}"),
            &["\"rootless\" points to another daemon (ssh://build.test) and was kept"],
        )?;
        assert_eq!(login(&b, inspect).ok()?, before, "{words}");
    }
    tool(&b, "install --force")?;
    in_order(&login(&b, inspect).ok()?, &["unix:///run/user/1001/docker.sock"])?;
    let restore = "docker context rm -f rootless; docker context import rootless .docker/rootless.dockercontext.bak";
    login(&b, &format!("docker context use default; {restore}")).ok()?;
    assert_eq!(login(&b, inspect).ok()?, before);
    Ok(())
}

fn user(b: &TestBox, line: &str) -> Result<Output> {
    b.user(&format!("unset DOCKER_HOST; {line}")).limit(150).run()
}

#[test]
fn a_service_directory_that_was_edited_survives() -> Result<()> {
    let b = TestBox::boot(packages::suite()?)?;
    packages::unpack(&b, &["runit"])?;
    b.user("mkdir service").ok()?;
    let scanner = b.user("exec runsvdir -P service").spawn()?;
    wait::until_true("runsvdir runs", PATIENCE, || {
        Ok(b.user_processes().iter().any(|p| p.program() == "runsvdir"))
    })?;
    let install = |words: &str| -> Result<Output> {
        let done = user(&b, &format!("{TOOL} install --supervise {words}"))?;
        ensure!(done.code == 0, "{done}");
        Ok(done)
    };
    install("")?;
    let (run, script) =
        ("/home/tester/service/docker/run", "/home/tester/.config/docker-rootless/run");
    b.user(&format!(
        "sed -i '/^exec 2/i export DOCKER_RAMDISK=runit' {run}
        sed -i '/^set -a/i export DOCKER_TMPDIR=/tmp/mine' {script}
        printf '#!/bin/sh\\n: mine\\n' > service/docker/finish; chmod 755 service/docker/finish"
    ))
    .ok()?;
    let files = [run, script, "/home/tester/service/docker/finish"];
    let texts = files.map(|file| b.read(file).unwrap_or_default());
    ensure!(texts[0].contains("RAMDISK") && texts[1].contains("TMPDIR"), "{texts:?}");
    for _ in 0..2 {
        let done = install("")?;
        for (file, word) in
            [(run, "-export DOCKER_RAMDISK=runit\n"), (script, "-export DOCKER_TMPDIR=/tmp/mine\n")]
        {
            let line =
                done.stderr.lines().find(|line| line.contains(&format!("{file} was edited")));
            ensure!(line.is_some(), "{done}");
            in_order(&compared(&b, line.unwrap_or_default())?, &[word])?;
        }
        assert_eq!(files.map(|file| b.read(file).unwrap_or_default()), texts);
    }
    let restarted = user(&b, "sv -w 120 restart /home/tester/service/docker")?;
    ensure!(restarted.code == 0, "{restarted}");
    wait::until_true("the daemon answers", PATIENCE, || Ok(user(&b, "docker version")?.code == 0))?;
    let env = environ(&b)?;
    in_order(
        &env.lines().filter(|l| l.starts_with("DOCKER_RAM")).collect::<String>(),
        &["DOCKER_RAMDISK=runit"],
    )?;
    ensure!(env.contains("DOCKER_TMPDIR=/tmp/mine\n"), "{env}");

    let gone = user(&b, &format!("{TOOL} uninstall --purge"))?;
    ensure!(gone.code == 0, "{gone}");
    let kept = "/home/tester/service/.docker.bak";
    in_order(
        &gone.stdout,
        &[&format!("is kept in {kept}\n"), &format!("is kept as {script}.bak\n")],
    )?;
    let now = [format!("{kept}/run"), format!("{script}.bak"), format!("{kept}/finish")];
    assert_eq!(now.map(|file| b.read(&file).unwrap_or_default()), texts);
    assert_eq!(b.user(&format!("ls {kept}")).ok()?, "finish\nrun\n");
    scanner.signal("TERM")?;
    scanner.wait(PATIENCE)?;
    Ok(())
}
