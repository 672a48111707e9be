//! The service script of OpenRC: of the user, or of the system where users have no services.

use std::fmt::Write as _;
use std::path::Path;

use hostenv::shellwords::quoted;

use super::{Files, service};
use crate::managed::Managed;
use crate::place::World;

/// Whether OpenRC manages this host.
pub(super) fn is_here(world: &World) -> bool {
    world.at("run/openrc").is_dir() && world.find_with_sbin("rc-service").is_some()
}

pub fn system_name(world: &World) -> String {
    format!("docker-rootless.{}", world.uid)
}

pub fn is_of_system(world: &World, place: &Path) -> bool {
    place.starts_with(world.at("etc/init.d"))
}

/// The script. openrc-run(8) is in `/sbin` on Gentoo and Alpine, and in `/usr/bin` or `/usr/sbin` elsewhere.
fn render(world: &World, files: &Files, user: Option<&str>) -> String {
    let interpreter = world.find_with_sbin("openrc-run");
    let interpreter = interpreter.unwrap_or_else(|| "/sbin/openrc-run".into());
    let mut text = format!(
        "#!{}\n# Written by dockerd-rootless-setuptool.sh.\n\
         description=\"Docker Application Container Engine (Rootless)\"\n\
         command={}\n\
         command_args=supervise\n\
         command_background=true\n\
         retry=TERM/150/KILL/5\n",
        interpreter.display(),
        quoted(world.own_program()),
    );
    match user {
        // A service of the system starts with its own environment.
        Some(user) => {
            let pid = format!("/run/{}.pid", system_name(world));
            write!(text, "pidfile={pid}\ncommand_user={}\n", quoted(user)).unwrap_or_default();
            text.push_str(&service::exports(world));
            text.push_str("\ndepend() {\n\tafter net firewall cgroups\n}\n");
            let dir = quoted(world.runtime_dir().unwrap_or_default());
            let owner = quoted(user);
            write!(
                text,
                "\nstart_pre() {{\n\tcheckpath --directory --mode 0700 --owner {owner} {dir}\n}}\n"
            )
            .unwrap_or_default();
        }
        None => {
            // start-stop-daemon's own; that of the supervisor says more and is locked.
            let pid = quoted(files.state.join("openrc.pid"));
            writeln!(text, "pidfile={pid}").unwrap_or_default();
        }
    }
    text
}

pub fn wanted(world: &World, files: &Files, place: &Path, user: &str) -> Managed {
    let user = is_of_system(world, place).then_some(user);
    Managed::new(place.to_owned(), &render(world, files, user)).program()
}
