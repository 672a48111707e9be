//! `/etc/hosts` and `/etc/resolv.conf` of a target with a network of its own. Both files are written to the
//! state directory, where clients look for them, and then bound over the real ones.

use std::fmt::Write as _;
use std::fs;
use std::io;
use std::net::IpAddr;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;

use anyhow::Context as _;
use nix::mount::{MsFlags, mount};

/// Writes `hosts` and `resolv.conf` to the state directory, from those below `root`.
pub(crate) fn write(root: &Path, state_dir: &Path, dns: &[IpAddr]) -> anyhow::Result<()> {
    let name = nix::unistd::gethostname()?;
    let old_hosts = read(&root.join("etc/hosts"))?;
    let old_resolv = read(&root.join("etc/resolv.conf"))?;
    store(&state_dir.join("hosts"), &hosts(&old_hosts, &name.to_string_lossy()))?;
    store(&state_dir.join("resolv.conf"), &resolv_conf(&old_resolv, dns))
}

/// A missing file is an empty one.
fn read(path: &Path) -> anyhow::Result<String> {
    match hostenv::file::text(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(String::new()),
        read => read.with_context(|| {
            let path = path.display();
            format!("failed to read {path}\nhint: replace {path} with a text file")
        }),
    }
}

/// A new file: an old one of that name in the state directory is ours, and a symlink is not followed.
fn store(path: &Path, text: &str) -> anyhow::Result<()> {
    let write = || {
        hostenv::file::remove_if_present(path)?;
        let mut file =
            fs::OpenOptions::new().write(true).create_new(true).mode(0o644).open(path)?;
        // Whatever the umask: every user of the namespace resolves names.
        file.set_permissions(fs::Permissions::from_mode(0o644))?;
        io::Write::write_all(&mut file, text.as_bytes())
    };
    write().with_context(|| format!("failed to write {}", path.display()))
}

/// The host's file, and our own name for both loopback addresses unless it is there.
fn hosts(old: &str, name: &str) -> String {
    let mut out = old.to_owned();
    if !out.is_empty() && !out.ends_with('\n') {
        out.push('\n');
    }
    for ip in ["127.0.0.1", "::1"] {
        let known = old.lines().any(|line| {
            let mut words = line.split('#').next().unwrap_or_default().split_whitespace();
            words.next() == Some(ip) && words.any(|word| word == name)
        });
        if !known {
            writeln!(out, "{ip} {name}").unwrap_or_default();
        }
    }
    out
}

/// The name servers of the network driver; what the host's file says beside its own servers stays in
/// force: `search`, `domain` and `options` (resolv.conf(5)).
fn resolv_conf(old: &str, dns: &[IpAddr]) -> String {
    let mut out = String::new();
    for line in old.lines() {
        let keyword = line.split_whitespace().next().unwrap_or_default();
        if matches!(keyword, "search" | "domain" | "options") {
            out.push_str(line.trim_end());
            out.push('\n');
        }
    }
    for ip in dns {
        writeln!(out, "nameserver {ip}").unwrap_or_default();
    }
    out
}

/// Puts the files in place. With `/etc` copied up the entries there are symlinks to the host's files and
/// give way to empty files; otherwise the host may at any time replace its file and take our mount away.
pub(crate) fn bind(state_dir: &Path, etc_copied: bool) -> anyhow::Result<()> {
    if !etc_copied {
        tracing::warn!(
            "mounting /etc/resolv.conf without copying-up /etc. Note that /etc/resolv.conf in the namespace will be unmounted when it is recreated on the host. Unless /etc/resolv.conf is statically configured, copying-up /etc is highly recommended. Please refer to RootlessKit documentation for further information."
        );
    }
    for name in ["resolv.conf", "hosts"] {
        let (source, target) = (&state_dir.join(name), &Path::new("/etc").join(name));
        if etc_copied {
            store(target, "")?;
        } else if !target.exists() {
            tracing::warn!(
                "{} does not exist, so nothing can be mounted over it",
                target.display()
            );
            continue;
        }
        mount(Some(source), target, None::<&str>, MsFlags::MS_BIND, None::<&str>).with_context(
            || format!("failed to bind {} to {}", source.display(), target.display()),
        )?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_name_is_added_once() {
        assert_eq!(
            hosts("127.0.0.1 localhost", "box"),
            "127.0.0.1 localhost\n127.0.0.1 box\n::1 box\n"
        );
        let known = "127.0.0.1 localhost box # x\n::1\tbox\n";
        assert_eq!(hosts(known, "box"), known);
        assert_eq!(hosts("# 127.0.0.1 box\n", "box"), "# 127.0.0.1 box\n127.0.0.1 box\n::1 box\n");
    }

    #[test]
    fn the_name_servers_change_and_the_rest_stays() {
        let old = "# c\nnameserver 192.0.2.1\nsearch example.org\noptions ndots:2\n";
        let dns = ["10.0.2.3".parse().unwrap(), "fd00::3".parse().unwrap()];
        assert_eq!(
            resolv_conf(old, &dns),
            "search example.org\noptions ndots:2\nnameserver 10.0.2.3\nnameserver fd00::3\n"
        );
        assert_eq!(resolv_conf("", &dns[..1]), "nameserver 10.0.2.3\n");
    }

    #[test]
    fn files_replace_symlinks_instead_of_following_them() {
        let dir = tempfile::tempdir().unwrap();
        let victim = dir.path().join("victim");
        fs::write(&victim, "precious").unwrap();
        std::os::unix::fs::symlink(&victim, dir.path().join("hosts")).unwrap();
        write(dir.path(), dir.path(), &["10.0.2.3".parse().unwrap()]).unwrap();
        assert_eq!(fs::read_to_string(&victim).unwrap(), "precious");
        assert_eq!(
            fs::read_to_string(dir.path().join("resolv.conf")).unwrap(),
            "nameserver 10.0.2.3\n"
        );
    }
}
