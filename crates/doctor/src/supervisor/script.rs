//! The script that every supervisor runs: it sets what a login would have set, and becomes the launcher.

use std::fmt::Write as _;
use std::path::Path;

use hostenv::vars;

use super::Files;
use crate::header::HEADER;
use crate::managed::Managed;
use crate::place::{World, dir_of};
use crate::quote::quoted;
use crate::unit;

/// Variables without which the launcher would look elsewhere than this program did.
const PASSED_ON: [&str; 5] = [
    vars::HOME,
    vars::XDG_CONFIG_HOME,
    vars::XDG_DATA_HOME,
    vars::USER,
    vars::DOCKERD_ROOTLESS_STATE_DIR,
];

pub fn wanted(
    world: &World,
    files: &Files,
    launcher: &Path,
    runtime_dir: &Path,
    without_iptables: bool,
) -> Managed {
    let text = render(world, files, launcher, runtime_dir, without_iptables);
    // Releases without a checksum said so.
    let old = text.replace("# Put your own settings into ", "# Your own settings belong into ");
    Managed::new(files.script(), &text).also_old(&old).program()
}

fn render(
    world: &World,
    files: &Files,
    launcher: &Path,
    runtime_dir: &Path,
    without_iptables: bool,
) -> String {
    let word = |path: &Path| quoted(&path.to_string_lossy());
    let settings = word(&files.settings());
    let runtime_dir = word(runtime_dir);
    let path = world.env.get(vars::PATH).unwrap_or_default();
    let mut text =
        format!("#!/bin/sh\n{HEADER}# Put your own settings into {settings}, as NAME=VALUE.\n");
    for name in PASSED_ON {
        if let Some(value) = world.env.nonempty(name) {
            let value = quoted(&value.to_string_lossy());
            writeln!(text, "export {name}={value}").unwrap_or_default();
        }
    }
    let search = unit::search_path(dir_of(launcher), path);
    let flags = if without_iptables { " --iptables=false" } else { "" };
    let launcher = word(launcher);
    let xdg = vars::XDG_RUNTIME_DIR;
    text.push_str(&format!(
        "export {xdg}={runtime_dir}\n\
         export PATH={}\n\
         set -a\n\
         if [ -r {settings} ]; then . {settings}; fi\n\
         set +a\n\
         # It is gone after a boot.\n\
         [ -d \"${xdg}\" ] || mkdir -p -m 0700 \"${xdg}\" || exit 1\n\
         cd / && exec {launcher}{flags}\n",
        quoted(&search)
    ));
    text
}
