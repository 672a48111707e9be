//! The gateway process itself: what it may do, and what it may not.

use std::fs;

use tests::{PATIENCE, Result, ensure};

use crate::kit::{self, Net};

#[test]
fn process_the_gateway_has_no_privilege_left() -> Result<()> {
    let b = kit::boot()?;
    for (flags, restarted) in [("", false), ("", true), ("--detach-netns", false)] {
        let net = Net::with(&b, &format!("{} {flags}", kit::FLAGS))?;
        if restarted {
            b.signal(net.gateway()?.0.pid, "KILL")?;
            tests::wait::until_true("another one", PATIENCE, || {
                Ok(net.stats().is_ok_and(|stats| stats["restarts"] == 1))
            })?;
        }
        let gateway = net.gateway()?;
        for (name, expected) in [
            ("Seccomp", "2"),
            ("NoNewPrivs", "1"),
            ("CapEff", "0000000000000000"),
            ("CapPrm", "0000000000000000"),
            ("CapInh", "0000000000000000"),
            ("CapAmb", "0000000000000000"),
        ] {
            assert_eq!(gateway.status(name)?, expected, "{name} with {flags:?}");
        }
        // Not dumpable: its files in /proc are root's, and no debugger of the user gets in.
        use std::os::unix::fs::MetadataExt as _;
        assert_eq!(fs::metadata(gateway.0.dir().join("environ"))?.uid(), 0);
        assert_eq!(fs::read(gateway.0.dir().join("environ"))?, b"");
        let text = b.user(&format!("ls /proc/{0}/fd /proc/{0}/root/", gateway.0.pid)).run()?;
        ensure!(text.code != 0 && text.stderr.contains("ermission denied"), "{text}");
        // It works in the host's network and holds nothing but what it needs: sockets, tun devices, epoll.
        assert_eq!(
            gateway.0.namespace("net"),
            fs::read_link(format!("/proc/{}/ns/net", b.processes()[0].host_pid))
                .ok()
                .map(|p| p.display().to_string())
        );
        for entry in fs::read_dir(gateway.0.dir().join("fd"))? {
            let target = fs::read_link(entry?.path())?.display().to_string();
            let known = ["socket:", "anon_inode:", "pipe:", "/dev/net/tun", "/dev/null"];
            let output = target.contains("/tmp/") && target.contains("(deleted)");
            ensure!(output || known.iter().any(|k| target.starts_with(k)), "{target}");
        }
        // Every thread is in the sandbox.
        for task in fs::read_dir(gateway.0.dir().join("task"))? {
            let status = fs::read_to_string(task?.path().join("status"))?;
            ensure!(
                status.contains("Seccomp:\t2") && status.contains("NoNewPrivs:\t1"),
                "{status}"
            );
        }
        net.stop()?;
    }
    Ok(())
}
