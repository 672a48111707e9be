//! The script that every supervisor runs: it sets what a login would have set, and becomes the launcher.

use std::fmt::Write as _;

use env::vars;

use super::Files;
use super::service::HEADER;
use crate::doctor::quoted;
use crate::install::Plan;
use crate::place::{World, dir_of};
use crate::unit;

/// Variables without which the launcher would look elsewhere than this program did.
const PASSED_ON: [&str; 5] = [
    vars::HOME,
    vars::XDG_CONFIG_HOME,
    vars::XDG_DATA_HOME,
    vars::USER,
    vars::DOCKERD_ROOTLESS_STATE_DIR,
];

/// The text.
pub(super) fn render(world: &World, files: &Files, plan: &Plan) -> String {
    let word = |path: &std::path::Path| quoted(&path.to_string_lossy());
    let settings = word(&files.settings());
    let runtime_dir = word(&plan.runtime_dir);
    let path = world.env.get(vars::PATH).unwrap_or_default();
    let mut text = format!("{HEADER}# Your own settings belong into {settings}, as NAME=VALUE.\n");
    for name in PASSED_ON {
        if let Some(value) = world.env.nonempty(name) {
            let value = quoted(&value.to_string_lossy());
            writeln!(text, "export {name}={value}").unwrap_or_default();
        }
    }
    let search = unit::search_path(dir_of(&plan.launcher), path);
    let flags = if plan.without_iptables { " --iptables=false" } else { "" };
    let launcher = word(&plan.launcher);
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
