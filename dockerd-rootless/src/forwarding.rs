//! Packet forwarding in the network namespace of the containers; dockerd does not turn it on itself when
//! it is rootless.
//!
//! `/proc/sys/net` shows the namespace of the *thread* that opens a file there (proc_sys(5), network
//! namespaces(7)). With a detached namespace the process is in the host's, so a thread of its own goes to
//! the detached one and ends there: it could not come back, because setns(2) into the host's namespace
//! needs a capability in the host's user namespace.

use std::fs::File;
use std::path::Path;

use netlink::sysctl;
use nix::sched::{CloneFlags, setns};

use crate::report::{Failure, Note};

const V4: &str = "net.ipv4.ip_forward";
const V6: &str = "net.ipv6.conf.all.forwarding";

/// Turns on forwarding in the namespace of the file `netns`, or in our own without one. IPv6 may be
/// missing, which gives a note.
pub(crate) fn enable(netns: Option<&Path>, proc_sys: &Path) -> Result<Option<Note>, Failure> {
    let Some(netns) = netns else { return enable_here(proc_sys) };
    let ended = std::thread::scope(|scope| {
        scope.spawn(|| enter(netns).and_then(|()| enable_here(proc_sys))).join()
    });
    ended
        .unwrap_or_else(|_| Err(Failure::new("the thread that enables packet forwarding panicked")))
}

fn enter(netns: &Path) -> Result<(), Failure> {
    let entered = File::open(netns).and_then(|file| Ok(setns(file, CloneFlags::CLONE_NEWNET)?));
    entered.map_err(|e| {
        Failure::new(format!("cannot enter the detached network namespace {}: {e}", netns.display()))
            .hint("this file exists only with rootlesskit --detach-netns, and is a namespace only inside its mount namespace")
    })
}

fn enable_here(proc_sys: &Path) -> Result<Option<Note>, Failure> {
    turn_on(proc_sys, V4).map_err(|e| {
        Failure::new(format!("IPv4 forwarding is off and cannot be enabled, so containers would have no network: {e}"))
            .hint(
                "in a container, make /proc/sys writable with --privileged or --security-opt systempaths=unconfined; \
                 otherwise check that this is not the host's network namespace (--net=host)",
            )
    })?;
    let v6 = turn_on(proc_sys, V6).err();
    Ok(v6.map(|e| Note::info(format!("IPv6 forwarding remains off: {e}"))))
}

/// Writes 1. A file that cannot be written is all right if it has the value already.
fn turn_on(proc_sys: &Path, key: &str) -> netlink::Result<()> {
    sysctl::write(proc_sys, key, "1").or_else(|e| match sysctl::read(proc_sys, key) {
        Ok(value) if value.trim() == "1" => Ok(()),
        _ => Err(e),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn fixture(v4: bool, v6: bool) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for (there, path) in [(v4, "net/ipv4/ip_forward"), (v6, "net/ipv6/conf/all/forwarding")] {
            if there {
                fs::create_dir_all(root.path().join(path).parent().unwrap()).unwrap();
                fs::write(root.path().join(path), "0\n").unwrap();
            }
        }
        root
    }

    #[test]
    fn both_are_written() {
        let root = fixture(true, true);
        assert_eq!(enable(None, root.path()), Ok(None));
        for path in ["net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding"] {
            assert_eq!(fs::read_to_string(root.path().join(path)).unwrap().trim_end(), "1");
        }
    }

    #[test]
    fn ipv4_is_a_must_and_ipv6_is_not() {
        let note = enable(None, fixture(true, false).path()).unwrap().unwrap();
        assert!(note.text.starts_with("IPv6 forwarding remains off"), "{}", note.text);
        let e = enable(None, fixture(false, true).path()).unwrap_err();
        assert!(e.to_string().contains("net.ipv4.ip_forward"), "{e}");
        assert_eq!(e.report(), 1);
    }

    #[test]
    fn a_file_that_is_no_namespace_is_named() {
        let root = fixture(true, true);
        let file = root.path().join("netns");
        let e = enable(Some(&file), root.path()).unwrap_err().to_string();
        assert!(e.contains(file.to_str().unwrap()) && e.contains("No such file"), "{e}");
        fs::write(&file, "").unwrap();
        assert!(
            enable(Some(&file), root.path()).unwrap_err().to_string().contains("Invalid argument")
        );
        assert_eq!(fs::read_to_string(root.path().join("net/ipv4/ip_forward")).unwrap(), "0\n");
    }
}
