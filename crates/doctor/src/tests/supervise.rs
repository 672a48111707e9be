use super::Host;
use crate::supervisor::{Kind, best};

/// A process of this user, or of root.
fn process(host: &Host, pid: u32, own: bool, comm: &str, words: &str, cwd: &str) {
    let uid = if own { host.world.uid } else { 0 };
    host.write(&format!("proc/{pid}/comm"), &format!("{comm}\n"));
    host.write(&format!("proc/{pid}/status"), &format!("Name:\tx\nUid:\t{uid}\t{uid}\t0\t0\n"));
    host.write(&format!("proc/{pid}/cmdline"), &words.replace(' ', "\0"));
    host.link(&format!("proc/{pid}/cwd"), cwd);
}

#[test]
fn what_runs_here_is_found() {
    let plain = || {
        let mut host = Host::healthy();
        host.without_systemd();
        host
    };
    assert_eq!(best(&plain().world), Kind::Plain);

    let host = plain();
    process(&host, 7, false, "runsvdir", "runsvdir -P /etc/service\0", "/");
    assert_eq!(best(&host.world), Kind::Plain, "root's does not start anything for this user");
    process(&host, 8, true, "runsvdir", "runsvdir -P service log:.....\0", "/home/jo");
    assert_eq!(best(&host.world), Kind::Runit);

    let host = plain();
    process(&host, 9, true, "s6-svscan", "s6-svscan /home/jo/scan\0", "/home/jo/scan");
    assert_eq!(best(&host.world), Kind::S6);

    let host = plain();
    host.program("sbin/rc-service");
    assert_eq!(best(&host.world), Kind::Plain, "installed, but not what the host was booted with");
    host.write("run/openrc/softlevel", "default");
    assert_eq!(best(&host.world), Kind::Openrc);
}
