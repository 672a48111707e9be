//! The script that every supervisor runs: it sets what a login would have set, and becomes the launcher.

use std::fmt::Write as _;
use std::path::Path;

use hostenv::shellwords::quoted;
use hostenv::vars;

use super::Files;
use crate::header::HEADER;
use crate::managed::Managed;
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

pub fn wanted(
    world: &World,
    files: &Files,
    launcher: &Path,
    runtime_dir: &Path,
    without_iptables: bool,
) -> Managed {
    let text = render(world, files, launcher, runtime_dir, without_iptables);
    // Releases without a checksum had one line less, and first said this.
    let before = text.replace(&source(&files.swarm()), "");
    let old = before.replace("# Put your own settings into ", "# Your own settings belong into ");
    Managed::new(files.script(), &text).also_old(&before).also_old(&old).program()
}

/// Reads a file of variables, if there is one.
fn source(file: &Path) -> String {
    let file = quoted(file);
    format!("if [ -r {file} ]; then . {file}; fi\n")
}

fn render(
    world: &World,
    files: &Files,
    launcher: &Path,
    runtime_dir: &Path,
    without_iptables: bool,
) -> String {
    let settings = quoted(files.settings());
    let swarm = source(&files.swarm());
    let own = source(&files.settings());
    let runtime_dir = quoted(runtime_dir);
    let path = world.env.get(vars::PATH).unwrap_or_default();
    let mut text =
        format!("#!/bin/sh\n{HEADER}# Put your own settings into {settings}, as NAME=VALUE.\n");
    for name in PASSED_ON {
        if let Some(value) = world.env.nonempty(name) {
            writeln!(text, "export {name}={}", quoted(value)).unwrap_or_default();
        }
    }
    let search = unit::search_path(dir_of(launcher), path);
    let flags = if without_iptables { " --iptables=false" } else { "" };
    let launcher = quoted(launcher);
    let xdg = vars::XDG_RUNTIME_DIR;
    text.push_str(&format!(
        "export {xdg}={runtime_dir}\n\
         export PATH={}\n\
         set -a\n\
         {swarm}{own}\
         set +a\n\
         # It is gone after a boot.\n\
         [ -d \"${xdg}\" ] || mkdir -p -m 0700 \"${xdg}\" || exit 1\n\
         cd / && exec {launcher}{flags}\n",
        quoted(search)
    ));
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::header::OLD_HEADER;
    use crate::managed::State;

    /// They did not know of swarms, and wrote no checksum.
    #[test]
    fn scripts_of_older_releases_are_known() {
        let dir = tempfile::tempdir().unwrap();
        let home = dir.path().to_str().unwrap();
        let env = [("HOME", home), ("PATH", "/usr/bin")].into_iter().collect();
        let world = World { root: "/".into(), env, uid: 1000, own_dir: None };
        let files = Files::of(&world).unwrap();
        let [launcher, runtime] = ["/usr/bin/dockerd-rootless.sh", "/run/user/1000"].map(Path::new);
        let file = wanted(&world, &files, launcher, runtime, false);
        std::fs::create_dir_all(&files.config).unwrap();
        let now = render(&world, &files, launcher, runtime, false);
        let line = source(&files.swarm());
        assert!(now.contains(&line));
        let before = now.replace(&line, "").replace(HEADER, OLD_HEADER);
        for text in [
            before.replace("# Put your own settings into", "# Your own settings belong into"),
            before,
        ] {
            std::fs::write(&file.path, &text).unwrap();
            assert_eq!(file.state().unwrap(), State::Unsealed, "{text}");
            std::fs::write(&file.path, text.replace("exec ", "exec nice ")).unwrap();
            assert_eq!(file.state().unwrap(), State::Edited);
        }
    }
}
