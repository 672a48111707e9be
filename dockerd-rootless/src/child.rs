//! The child pass: make the private file systems and the network fit for dockerd, become dockerd.

use std::convert::Infallible;
use std::ffi::OsString;
use std::fs;
use std::path::Path;
use std::process::Command;

use drivers::NetworkDriver;
use hostenv::Env;
use hostenv::vars;

use crate::config::Config;
use crate::dockerd::Dockerd;
use crate::exec::become_program;
use crate::host::System;
use crate::report::{Failure, Note};
use crate::{dns, etc_ssl, forwarding, hostgateway, resolved, selinux, swarm};

/// What the rootful Docker has in `/run`: copied up as symlinks to files that we may not touch.
const OF_ROOTFUL_DOCKER: [&str; 3] = ["docker", "containerd", "xtables.lock"];

pub(crate) fn run(env: &Env, args: &[OsString]) -> Result<Infallible, Failure> {
    let run = Path::new("/run");
    for note in unlink_leftovers(run)? {
        note.print();
    }
    if env.get(vars::DOCKERD_ROOTLESS_SELINUX).is_some_and(|v| v == "1") {
        selinux::label_for_iptables(run)?;
    }
    if let Some(note) = etc_ssl::mount_over_link(Path::new("/etc"))? {
        note.print();
    }
    let node = crate::settings::swarm(env)?;
    if node.is_some() {
        swarm::give_directory(Path::new("/"))?;
    }
    // dockerd tells a detached namespace by the same file.
    let state_dir = Path::new(env.get(vars::ROOTLESSKIT_STATE_DIR).unwrap_or_default());
    let netns = state_dir.join("netns");
    let netns = netns.exists().then_some(netns.as_path());
    if let Some(note) = forwarding::enable(netns, Path::new("/proc/sys"))? {
        note.print();
    }
    let dockerd = Dockerd::find(env.get(vars::DOCKERD), &System::new(env))?;
    let mut command = Command::new(dockerd.program);
    command.args(&dockerd.args);
    let config = Config::read(env, &[&dockerd.args, args]);
    let families = env.get(vars::DOCKERD_ROOTLESS_HOST_GATEWAY);
    let families = families.and_then(|text| text.to_str()?.parse().ok());
    let mut added = vec![hostgateway::options(families, netns, &config)];
    if netns.is_some() && !own_name_server(env, state_dir, &config) {
        added.push(dns::options(env, Path::new("/"), state_dir, &config));
    }
    // Before the user's options, whatever they end with.
    for options in added {
        match options {
            Ok(options) => {
                command.args(options);
            }
            Err(note) => note.print(),
        }
    }
    command.args(node.iter().flat_map(|node| swarm::options(node, &config)));
    command.args(args);
    become_program(command)
}

/// Whether dockerd finds the gateway's name server where it looks for those of systemd-resolved.
fn own_name_server(env: &Env, state_dir: &Path, config: &Config<'_>) -> bool {
    let gateway = env
        .get(vars::DOCKERD_ROOTLESS_NET_IN_FORCE)
        .is_some_and(|net| net == NetworkDriver::Gateway.name());
    let replaced = || resolved::replace(Path::new("/"), &state_dir.join("resolv.conf"), config);
    gateway
        && replaced().unwrap_or_else(|e| {
            Note::info(format!(
                "running containers will keep their name servers even if the host's change: cannot mount over \
                 /run/systemd/resolve: {e}"
            ))
            .print();
            false
        })
}

/// Removes links to a rootful Docker's files. What is no link is not a copy but the thing itself.
fn unlink_leftovers(run: &Path) -> Result<Vec<Note>, Failure> {
    let mut notes = Vec::new();
    for path in OF_ROOTFUL_DOCKER.map(|name| run.join(name)) {
        match fs::symlink_metadata(&path) {
            Ok(meta) if meta.is_symlink() => fs::remove_file(&path).map_err(|e| {
                Failure::new(format!("cannot remove the symlink {}: {e}", path.display()))
                    .hint("check that /run is copied up (rootlesskit --copy-up=/run)")
            })?,
            Ok(_) => notes.push(Note::warn(format!(
                "{} is not a symlink, so it is kept; dockerd may be unable to use it",
                path.display()
            ))),
            Err(_) => {}
        }
    }
    Ok(notes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn links_go_and_real_things_stay() {
        let run = tempfile::tempdir().unwrap();
        let at = |name: &str| run.path().join(name);
        fs::create_dir(at("real")).unwrap();
        fs::write(at("real/socket"), "").unwrap();
        symlink(at("real"), at("docker")).unwrap();
        symlink("/nowhere", at("xtables.lock")).unwrap();
        fs::create_dir(at("containerd")).unwrap();
        fs::write(at("containerd/keep"), "").unwrap();
        let notes = unlink_leftovers(run.path()).unwrap();
        assert_eq!(notes.len(), 1);
        assert!(notes[0].text.contains("containerd is not a symlink"), "{}", notes[0].text);
        assert!(
            fs::symlink_metadata(at("docker")).is_err()
                && fs::symlink_metadata(at("xtables.lock")).is_err()
        );
        assert!(at("real/socket").exists() && at("containerd/keep").exists());
        assert_eq!(unlink_leftovers(Path::new("/nonexistent")), Ok(Vec::new()));
    }
}
