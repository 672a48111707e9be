//! `install --swarm` and what `check` says about a host that is to be the node of a swarm.

use tests::{Output, PATIENCE, Result, Suite, TestBox, ensure, wait};

use crate::doctor::Check;
use crate::{TOOL, host, in_order, login};

/// The address of a box.
const VALUE: &str = "10.77.0.1,peers=10.77.0.0/24";
const DROP_INS: &str = "/home/tester/.config/systemd/user/docker.service.d";
const PORTS: [&str; 4] = ["2377/tcp", "7946/tcp", "7946/udp", "4789/udp"];

fn tool(b: &TestBox, words: &str) -> Result<Output> {
    let done = login(b, &format!("{TOOL} {words}")).run()?;
    ensure!(done.code == 0, "{done}");
    Ok(done)
}

/// The value that the running dockerd has got.
fn of_daemon(b: &TestBox) -> Result<String> {
    let pid = b.process("dockerd")?.pid;
    let line =
        format!("tr '\\0' '\\n' < /proc/{pid}/environ | sed -n s/^DOCKERD_ROOTLESS_SWARM=//p");
    Ok(b.root(&line).ok()?.trim().to_owned())
}

/// The codes of `check` about swarms.
fn codes(b: &TestBox, prefix: &str) -> Result<Vec<String>> {
    let check = Check::of(login(b, &format!("{prefix} {TOOL} check --json")))?;
    let swarm = check.codes().into_iter().filter(|code| code.starts_with("swarm-"));
    Ok(swarm.map(str::to_owned).collect())
}

#[test]
fn a_node_of_a_swarm_is_installed_kept_and_uninstalled() -> Result<()> {
    let b = host(Suite::Trixie)?;
    let refused = login(&b, &format!("{TOOL} install --swarm=10.77.0.1")).run()?;
    ensure!(refused.code == 1, "{refused}");
    in_order(&refused.stderr, &["[ERROR] --swarm is \"10.77.0.1\": it has no peers=", "hint: "])?;
    let refused =
        login(&b, &format!("{TOOL} install --swarm=10.77.0.77,peers=10.77.0.0/24")).run()?;
    ensure!(refused.code == 1, "{refused}");
    in_order(&refused.stderr, &["[ERROR] swarm-address: ", "this host's addresses: 10.77.0.1"])?;
    ensure!(!b.exists("/home/tester/.config") && !b.exists("/home/tester/.docker"));

    let file = format!("{DROP_INS}/swarm.conf");
    in_order(&tool(&b, &format!("install --swarm={VALUE}"))?.stdout, &[&file])?;
    assert_eq!(of_daemon(&b)?, VALUE);
    // The ports are its own while it runs.
    assert_eq!(b.root("ss -Hltun src 10.77.0.1 | wc -l").ok()?.trim(), "4");
    assert_eq!(codes(&b, "")?, ["swarm-limits"]);
    let said = tool(&b, "check")?.stdout;
    in_order(&said, &["[INFO] swarm-limits: ", &file, "endpoint_mode: dnsrr", "mode: host"])?;

    // Installed again, as after an upgrade, and with another value.
    let text = b.read(&file)?;
    tool(&b, "install --force")?;
    assert_eq!(b.read(&file)?, text);
    let other = format!("{VALUE}+192.0.2.1/32");
    let done = tool(&b, &format!("install --swarm={other}"))?;
    in_order(&done.stderr, &["[WARNING] The running daemon does not use the new settings yet"])?;
    assert_eq!(of_daemon(&b)?, VALUE);
    login(&b, "systemctl --user restart docker").ok()?;
    assert_eq!(of_daemon(&b)?, other);

    // What was edited stays, and is used.
    b.user(&format!("echo Environment=DOCKER_RAMDISK=own >> {file}")).ok()?;
    let edited = b.read(&file)?;
    let done = tool(&b, &format!("install --swarm={VALUE}"))?;
    in_order(&done.stderr, &[&format!("[WARNING] {file} was edited after this tool wrote it")])?;
    assert_eq!(b.read(&file)?, edited);
    tool(&b, &format!("install --force --swarm={VALUE}"))?;
    assert_eq!((b.read(&file)?, b.read(&format!("{file}.bak"))?), (text, edited));
    b.user(&format!("rm {file}.bak")).ok()?;

    tool(&b, "install --swarm=")?;
    ensure!(!b.exists(DROP_INS));
    login(&b, "systemctl --user restart docker").ok()?;
    assert_eq!((of_daemon(&b)?.as_str(), codes(&b, "")?.len()), ("", 0));
    tool(&b, &format!("install --swarm={VALUE}"))?;
    tool(&b, "uninstall --purge")?;
    ensure!(!b.exists("/home/tester/.config"), "{:?}", b.user("find .config").ok());
    Ok(())
}

/// Listens on the ports of a node until the result is dropped.
fn listen<'b>(b: &'b TestBox) -> Result<Vec<tests::Running<'b>>> {
    let mut all = Vec::new();
    for port in PORTS {
        let (number, proto) = port.split_once('/').unwrap_or_default();
        let kind = if proto == "tcp" { "TCP-LISTEN" } else { "UDP-RECV" };
        all.push(b.root(&format!("exec socat -u {kind}:{number},bind=10.77.0.1 -")).spawn()?);
    }
    wait::until_true("all ports are taken", PATIENCE, || {
        Ok(b.root("ss -Hltun src 10.77.0.1 | wc -l").ok()?.trim() == PORTS.len().to_string())
    })?;
    Ok(all)
}

#[test]
fn what_keeps_a_host_from_being_a_node_is_told() -> Result<()> {
    let b = TestBox::boot(Suite::Sid)?;
    let set = |value: &str| format!("DOCKERD_ROOTLESS_SWARM={value}");
    let node = set(VALUE);
    let check = |prefix: &str| Check::of(b.user(&format!("{prefix} {TOOL} check --json")));
    let found = check(&node)?;
    ensure!(found.fatal().is_empty() && found.has("swarm-limits"), "{found:?}");
    ensure!(!found.has("swarm-vxlan"), "{found:?}");
    for (prefix, code) in [
        (set("10.77.0.1"), "swarm-value"),
        (set("10.77.0.77,peers=10.77.0.0/24"), "swarm-address"),
        (format!("{node} DOCKERD_ROOTLESS_ROOTLESSKIT_PORT_DRIVER=builtin"), "swarm-driver"),
        (format!("{node} DOCKERD_ROOTLESS_ROOTLESSKIT_NET=slirp4netns"), "swarm-driver"),
    ] {
        let found = check(&prefix)?;
        assert_eq!((found.status, found.fatal()), (1, vec![code.to_owned()]), "{prefix}");
    }
    let listeners = listen(&b)?;
    let said = b.user(&format!("{node} {TOOL} check")).fails_with(1)?;
    let ports = PORTS.map(|port| format!("{port} (root)")).join(", ");
    in_order(&said, &["[ERROR] swarm-port-taken: ", &format!("on 10.77.0.1: {ports}")])?;
    drop(listeners);

    // An ip like that of a kernel without the module.
    let ip = "#!/bin/sh\ncase $1 in -V) exec /usr/bin/ip -V ;; esac\n\
              echo \"Error: Unknown device type.\" >&2; exit 2\n";
    b.script("/usr/local/bin/ip", ip)?;
    let said = b.user(&format!("{node} {TOOL} check")).run()?;
    ensure!(said.code == 0, "{said}");
    in_order(&said.stderr, &["[WARNING] swarm-vxlan: ", "Unknown device type."])?;
    in_order(&said.stdout, &["modprobe vxlan\n"])?;

    // Without a service, the command that is printed has the variable.
    let done = b.user(&format!("{TOOL} install --swarm={VALUE}")).ok()?;
    in_order(&done, &["needs to be started manually", &format!("{node} PATH=")])?;
    Ok(())
}
