//! Files of an earlier installation that the user edited or wrote: what `install` would do with them.

use super::{Finding, Wish};
use crate::facts::{Facts, Found};
use crate::managed::State;

pub(super) fn examine(facts: &Facts, wish: Wish, findings: &mut Vec<Finding>) {
    for file in &facts.files {
        let shown = file.path.display();
        // A unit that no `install` without options would write is no obstacle.
        let socket = file.path.extension().is_some_and(|end| end == "socket");
        let stops = |code, seen: String, why| {
            if wish.install && !socket {
                Finding::fatal(code, seen, why)
            } else {
                Finding::class(code, seen, why)
            }
        };
        match &file.state {
            Ok(state @ (State::Edited | State::Foreign)) => {
                let code = if *state == State::Edited { "file-edited" } else { "file-foreign" };
                findings.push(
                    Finding::advisory(
                        code,
                        format!("{shown} {}", state.words()),
                        "install keeps this file and starts the daemon with it; only install --force replaces it \
                         (and keeps a copy)",
                    )
                    .fix(format!("compare the versions: {}", file.compare))
                    .fix(own_settings(file)),
                );
            }
            Ok(State::Masked) => {
                let name = file.path.file_name().unwrap_or_default().to_string_lossy();
                findings.push(
                    stops(
                        "unit-masked",
                        format!("{shown} masks the unit"),
                        "systemd does not start a masked unit",
                    )
                    .fix(format!("systemctl --user unmask {name}"))
                    // Unmasking deletes what is in the unit's place.
                    .fix(format!(
                        "then: dockerd-rootless-setuptool.sh install{}",
                        if socket { " --socket" } else { "" }
                    )),
                );
            }
            Err(text) => {
                let mut lines = text.lines();
                let seen = lines.next().unwrap_or_default().to_owned();
                let hints = lines.map(|line| line.strip_prefix("hint: ").unwrap_or(line));
                let why = "install cannot write the file";
                findings.push(stops("file-blocked", seen, why).fixes(hints));
            }
            Ok(_) => {}
        }
    }
}

/// Where settings are safe from `install`.
fn own_settings(file: &Found) -> String {
    let name = file.path.file_name().unwrap_or_default().to_string_lossy();
    match &file.settings {
        Some(env) => {
            format!("put your settings into {}, which install does not change", env.display())
        }
        None => format!(
            "put your settings into a drop-in of your own, which install does not change: systemctl --user edit {name}"
        ),
    }
}
