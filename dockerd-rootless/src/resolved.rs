//! The name servers of systemd-resolved as dockerd sees them, in a detached namespace of the gateway network.
//!
//! On a host whose only name server is 127.0.0.53, dockerd gives containers of the default bridge the servers in
//! `/run/systemd/resolve/resolv.conf`, those of the LAN at that moment. A running container keeps them when the host moves
//! to another network. So dockerd gets a file of its own there, with the gateway's name server, which follows the host.
//! Containers on the host's network and dockerd itself go on with `/etc/resolv.conf`; those on other networks ask through
//! dockerd, which asks 127.0.0.53.
//!
//! It is the directory that is mounted over: systemd-resolved replaces its files, and a mount on a file goes with it. All
//! other names in it still lead to the host's files.

use std::fs;
use std::io;
use std::net::IpAddr;
use std::os::unix::fs::symlink;
use std::path::Path;

use nix::mount::{MsFlags, mount};

use crate::config::Config;
use crate::dns::{RESOLVED, servers_in};

const FILE: &str = "resolv.conf";

/// Puts `ours`, a `resolv.conf` with the gateway's name server, in the place of systemd-resolved's. `root` is `/`. False if
/// the host has no systemd-resolved as its only name server, or the user chose servers.
///
/// # Errors
/// The directory cannot be mounted; everything is as it was for dockerd then.
pub(crate) fn replace(root: &Path, ours: &Path, config: &Config<'_>) -> io::Result<bool> {
    let servers =
        servers_in(&hostenv::file::text(&root.join("etc/resolv.conf")).unwrap_or_default());
    let gateway = servers_in(&hostenv::file::text(ours).unwrap_or_default());
    let place = root.join(RESOLVED.1);
    let Some(place) = place.parent().filter(|dir| dir.is_dir()) else { return Ok(false) };
    if servers != [IpAddr::from(RESOLVED.0)] || gateway.is_empty() || config.sets("dns", &["dns"]) {
        return Ok(false);
    }
    let host = root.join("run/.rootless-resolve-host");
    let own = root.join("run/.rootless-resolve");
    fs::create_dir(&host)?;
    fs::create_dir(&own)?;
    let bind = |from: &Path, to: &Path| {
        mount(Some(from), to, None::<&str>, MsFlags::MS_BIND | MsFlags::MS_REC, None::<&str>)
    };
    bind(place, &host)?;
    for entry in fs::read_dir(&host)?.flatten() {
        if entry.file_name() != FILE {
            symlink(entry.path(), own.join(entry.file_name()))?;
        }
    }
    symlink(ours, own.join(FILE))?;
    bind(&own, place)?;
    Ok(true)
}
