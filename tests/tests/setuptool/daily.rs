//! Install, use, restart, reload, look inside, uninstall, purge; nothing is left.

use tests::{Output, PATIENCE, Result, Snapshot, Suite, TestBox, UPSTREAM_SETUPTOOL, ensure, wait};

use crate::doctor::Check;
use crate::{TOOL, answers, host, in_order, login, serve};

const SOCKET: &str = "unix:///run/user/1001/docker.sock";

/// All that is left after `uninstall --purge`: the file of the docker command, which may hold the user's logins.
const LEFT_BY_DOCKER: [&str; 2] = [
    "+ file drwxr-xr-x 1001 /home/tester/.docker",
    "+ file -rw------- 1001 /home/tester/.docker/config.json",
];

fn tool(b: &TestBox, words: &str) -> Result<Output> {
    let output = login(b, &format!("{TOOL} {words}")).run()?;
    ensure!(!format!("{output}").contains('\x1b'), "colour without a terminal: {output}");
    Ok(output)
}

fn tool_ok(b: &TestBox, words: &str) -> Result<Output> {
    let output = tool(b, words)?;
    ensure!(output.code == 0, "{output}");
    Ok(output)
}

fn main_pid(b: &TestBox) -> Result<String> {
    login(b, "systemctl --user show -P MainPID docker.service").ok()
}

fn daily_life(suite: Suite) -> Result<()> {
    let b = host(suite)?;
    let before = Snapshot::of(&b)?;

    let checked = tool_ok(&b, "check")?;
    ensure!(checked.stdout.ends_with("[INFO] Requirements are satisfied\n"), "{checked}");
    unchanged(&b, &before, &[]).map_err(|error| error.context("check changes something"))?;

    let predicted = Check::of(login(&b, &format!("{TOOL} check --json")))?;

    installs(&b)?;
    let driver = login(&b, "docker info -f '{{.Driver}}'").ok()?;
    assert_eq!(predicted.effective("storage_driver"), driver.trim());
    assert_eq!(login(&b, "systemctl --user is-active docker").ok()?, "active\n");
    assert_eq!(login(&b, "systemctl --user is-enabled docker").ok()?, "enabled\n");
    let context = "docker context inspect -f '{{.Name}} {{.Endpoints.docker.Host}}'";
    assert_eq!(login(&b, context).ok()?, format!("rootless {SOCKET}\n"));
    assert_eq!(login(&b, "docker info -f '{{.CgroupDriver}}'").ok()?, "systemd\n");

    serve(&b)?;

    let pid = main_pid(&b)?;
    login(&b, "systemctl --user restart docker").ok()?;
    assert_ne!(main_pid(&b)?, pid);
    answers(&b)?;

    reloads(&b)?;
    enters(&b)?;
    let status = login(&b, "systemctl --user --no-pager --full status docker").ok()?;
    in_order(
        &status,
        &["docker.service - Docker Application Container Engine (Rootless)", "rootlesskit"],
    )?;
    let log = login(&b, "journalctl --user -u docker --no-pager").ok()?;
    in_order(&log, &["API listen on /run/user/1001/docker.sock"])?;

    again(&b)?;
    uninstalls(&b)?;
    assert_eq!(login(&b, context).ok()?.split(' ').next(), Some("default"));

    // The user's own settings stay, and are named.
    b.user("mkdir -p .config/systemd/user/docker.service.d && cd .config/systemd/user/docker.service.d && \
            printf '[Service]\\nEnvironment=A=1\\n' > override.conf")
        .ok()?;
    let purged = tool_ok(&b, "uninstall --purge")?;
    let drop_ins = "/home/tester/.config/systemd/user/docker.service.d";
    in_order(&purged.stdout, &[&format!("[INFO] Your own settings stay in {drop_ins}\n")])?;
    ensure!(b.exists(&format!("{drop_ins}/override.conf")), "the drop-in is gone");
    b.user(&format!("rm -r {drop_ins}; rmdir -p --ignore-fail-on-non-empty .config/systemd/user"))
        .ok()?;
    in_order(
        &purged.stderr,
        &[
            "+ /usr/bin/rootlesskit /usr/bin/dockerd-rootless-setuptool.sh delete data /home/tester/.local/share/docker ",
        ],
    )?;
    nothing_left(&b, &before)
}

pub(crate) fn nothing_left(b: &TestBox, before: &Snapshot) -> Result<()> {
    unchanged(b, before, &LEFT_BY_DOCKER)
}

/// The host is as it was, but for some lines. Sessions and units that have ended take a moment to go.
fn unchanged(b: &TestBox, before: &Snapshot, but: &[&str]) -> Result<()> {
    let mut left = Vec::new();
    let same = wait::until_true("the host is as it was", PATIENCE, || {
        left = Snapshot::of(b)?.since(before);
        left.retain(|line| !but.contains(&line.as_str()));
        Ok(left.is_empty())
    });
    same.map_err(|error| error.context(format!("it differs: {left:#?}")))
}

/// The lines of the documentation, in its order.
fn installs(b: &TestBox) -> Result<()> {
    let done = tool_ok(b, "install")?;
    in_order(
        &done.stdout,
        &[
            "[INFO] Creating /home/tester/.config/systemd/user/docker.service\n",
            "[INFO] Starting systemd unit docker.service\n",
            "Active: active (running)",
            "Server:",
            "[INFO] Installed docker.service successfully.\n",
            "[INFO] To control docker.service, run: `systemctl --user (start|stop|restart) docker.service`\n",
            "[INFO] To run docker.service on system startup, run: `sudo loginctl enable-linger tester`\n",
            "[INFO] Creating CLI context \"rootless\"\n",
            "[INFO] Using CLI context \"rootless\"\n",
            "[INFO] Make sure the following environment variable(s) are set (or add them to ~/.bashrc):\n",
            "export PATH=/usr/bin:$PATH\n",
            "[INFO] Some applications may require the following environment variable too:\n",
            "export DOCKER_HOST=unix:///run/user/1001/docker.sock\n",
        ],
    )?;
    in_order(
        &done.stderr,
        &[
            "+ systemctl --user start docker.service\n",
            "+ systemctl --user --no-pager --full status docker.service\n",
            "+ DOCKER_HOST=unix:///run/user/1001/docker.sock /usr/bin/docker version\n",
            "+ systemctl --user enable docker.service\n",
            "default.target.wants/docker.service",
        ],
    )
}

/// SIGHUP reaches dockerd, and nothing restarts.
fn reloads(b: &TestBox) -> Result<()> {
    let pid = main_pid(b)?;
    login(b, "mkdir -p .config/docker && echo '{\"debug\":true}' > .config/docker/daemon.json")
        .ok()?;
    assert_eq!(login(b, "docker info -f '{{.Debug}}'").ok()?, "false\n");
    login(b, "systemctl --user reload docker").ok()?;
    wait::until_true("dockerd has read daemon.json", PATIENCE, || {
        Ok(login(b, "docker info -f '{{.Debug}}'").ok()? == "true\n")
    })?;
    assert_eq!(main_pid(b)?, pid);
    login(b, "rm .config/docker/daemon.json").ok().map(drop)
}

/// The tool's nsenter and that of the documentation.
fn enters(b: &TestBox) -> Result<()> {
    let seen =
        tool_ok(b, "nsenter -- sh -c 'id -u; pwd; echo $ROOTLESSKIT_STATE_DIR; ip -o -4 addr'")?;
    in_order(
        &seen.stdout,
        &["0\n/home/tester\n/run/user/1001/dockerd-rootless\n", "tap0", "docker0"],
    )?;
    assert_eq!(tool(b, "nsenter false")?.code, 1);
    assert_eq!(tool(b, "nsenter /nonexistent")?.code, 127);
    let documented = "nsenter -U --preserve-credentials -n -m -t $(cat $XDG_RUNTIME_DIR/docker.pid) ip -o -4 addr";
    in_order(&login(b, documented).ok()?, &["tap0", "docker0"])
}

/// A second install finds everything, and a stopped daemon is named.
fn again(b: &TestBox) -> Result<()> {
    let pid = main_pid(b)?;
    let done = tool_ok(b, "install")?;
    in_order(
        &done.stdout,
        &["docker.service is up to date\n", "context \"rootless\" already exists\n"],
    )?;
    assert_eq!(main_pid(b)?, pid);
    login(b, "systemctl --user stop docker").ok()?;
    let stopped = tool(b, "nsenter true")?;
    assert_eq!(stopped.code, 1);
    in_order(
        &stopped.stderr,
        &["the rootless daemon is not running", "systemctl --user start docker.service"],
    )?;
    in_order(&tool_ok(b, "check")?.stdout, &["[INFO] daemon-stopped: "])?;
    login(b, "systemctl --user start docker").ok().map(drop)
}

/// Images and containers stay.
fn uninstalls(b: &TestBox) -> Result<()> {
    let done = tool_ok(b, "uninstall")?;
    in_order(
        &done.stderr,
        &[
            "+ systemctl --user stop docker.service\n",
            "+ systemctl --user disable docker.service\n",
            "default.target.wants/docker.service",
        ],
    )?;
    in_order(
        &done.stdout,
        &[
            "[INFO] Uninstalled docker.service\n",
            "[INFO] Deleted CLI context \"rootless\"\n",
            "[INFO] Configured CLI to use the \"default\" context.\n",
            "[INFO] This uninstallation tool does NOT remove Docker binaries and data.\n",
            "[INFO] To remove data, run: `/usr/bin/rootlesskit rm -rf /home/tester/.local/share/docker`\n",
        ],
    )?;
    ensure!(!b.exists("/home/tester/.config/systemd"), "the unit's folders are left");
    ensure!(b.exists("/home/tester/.local/share/docker/overlay2"), "the data is gone");
    let running: Vec<_> =
        b.user_processes().into_iter().filter(|p| p.command.contains("docker")).collect();
    ensure!(running.is_empty(), "still running: {running:#?}");
    Ok(())
}

#[test]
fn daily_life_with_systemd_252() -> Result<()> {
    daily_life(Suite::Bookworm)
}

#[test]
fn daily_life_with_systemd_257() -> Result<()> {
    daily_life(Suite::Trixie)
}

#[test]
fn daily_life_with_systemd_262() -> Result<()> {
    daily_life(Suite::Sid)
}

/// The shell tool's unit stays and is used, as that tool leaves a unit that is there; --force replaces it. Everything goes
/// in the end but the copy.
#[test]
fn taking_over_from_the_shell_tool() -> Result<()> {
    let b = host(Suite::Sid)?;
    let before = Snapshot::of(&b)?;
    login(&b, &format!("{UPSTREAM_SETUPTOOL} install")).ok()?;
    serve(&b)?;
    let pid = main_pid(&b)?;
    let unit = "/home/tester/.config/systemd/user/docker.service";
    let text = b.read(unit)?;
    let done = tool_ok(&b, "install")?;
    in_order(
        &done.stderr,
        &[&format!(
            "[WARNING] {unit} was not written by this tool and was kept; to compare it, run: "
        )],
    )?;
    in_order(&done.stdout, &["context \"rootless\" already exists\n"])?;
    assert_eq!((main_pid(&b)?, b.read(unit)?), (pid.clone(), text.clone()));
    let done = tool_ok(&b, "install --force")?;
    in_order(
        &done.stderr,
        &[
            &format!("[WARNING] Replaced {unit}; the old version is {unit}.bak\n"),
            "The running daemon does not use the new settings yet; to apply them, run: `systemctl --user restart \
             docker.service`\n",
        ],
    )?;
    assert_eq!((main_pid(&b)?, b.read(&format!("{unit}.bak"))?), (pid, text));
    answers(&b)?;
    login(&b, "systemctl --user restart docker.service").ok()?;
    answers(&b)?;
    tool_ok(&b, "uninstall --purge")?;
    b.user(&format!("rm {unit}.bak; rmdir -p --ignore-fail-on-non-empty .config/systemd/user"))
        .ok()?;
    nothing_left(&b, &before)
}

/// A daemon that ends at once: the reason is pointed at, nothing is enabled, and it can be undone.
#[test]
fn a_daemon_that_does_not_start_is_explained() -> Result<()> {
    let b = host(Suite::Sid)?;
    login(&b, "mkdir -p .config/docker && echo '{\"data-root\": 7}' > .config/docker/daemon.json")
        .ok()?;
    let before = Snapshot::of(&b)?;
    let failed = tool(&b, "install")?;
    ensure!(failed.code == 1, "{failed}");
    in_order(
        &failed.stderr,
        &[
            "+ systemctl --user start docker.service\n",
            "[ERROR] Failed to start the daemon. Its log:\n",
            "[ERROR]   journalctl -n 20 --no-pager --user --unit docker.service\n",
            "    ",
            "data-root",
        ],
    )?;
    assert_ne!(login(&b, "systemctl --user is-enabled docker").run()?.stdout, "enabled\n");
    tool_ok(&b, "uninstall --purge")?;
    nothing_left(&b, &before)?;

    // systemd gives up after a while; once the cause is gone, it has to try again.
    ensure!(tool(&b, "install")?.code == 1, "it starts with such a daemon.json");
    wait::until_true("systemd gives up", PATIENCE, || {
        let result = login(&b, "systemctl --user show -P Result docker.service").ok()?;
        Ok(result == "start-limit-hit\n")
    })?;
    login(&b, "rm .config/docker/daemon.json").ok()?;
    tool_ok(&b, "install").map(drop)
}

/// As the installer without root puts it: everything of ours below HOME, where only a login's PATH leads.
#[test]
fn from_the_home_directory() -> Result<()> {
    let b = host(Suite::Trixie)?;
    b.root(
        "cd /usr/bin && mkdir /home/tester/bin && mv rootless* dockerd-rootless* /home/tester/bin && \
         cp docker /home/tester/bin && chown -R tester: /home/tester/bin",
    )
    .ok()?;
    let before = Snapshot::of(&b)?;
    let done = tool_ok(&b, "install")?;
    in_order(&done.stdout, &["export PATH=/home/tester/bin:$PATH\n"])?;
    in_order(&done.stderr, &["docker.sock /home/tester/bin/docker version\n"])?;
    let unit = b.read("/home/tester/.config/systemd/user/docker.service")?;
    in_order(
        &unit,
        &[
            "\nEnvironment=PATH=/home/tester/bin:/sbin:/usr/sbin:",
            "\nExecStart=/home/tester/bin/dockerd-rootless.sh\n",
        ],
    )?;
    serve(&b)?;
    tool_ok(&b, "uninstall --purge")?;
    nothing_left(&b, &before)
}
