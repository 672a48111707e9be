//! What systemd reads in the files of a unit, as far as variables of the daemon are concerned.

use std::fs;
use std::path::{Path, PathBuf};

use crate::place::World;

/// The lines of a unit, each whole: one that ends in a backslash goes on in the next one, and comments between are no part
/// of it (systemd.syntax(7)).
pub fn lines(text: &str) -> Vec<String> {
    joined(text, " ")
}

/// The same for a file of variables (environment.d(5); systemd.exec(5), `EnvironmentFile=`) or of a shell, in which nothing
/// takes the place of the backslash.
pub fn variable_lines(text: &str) -> Vec<String> {
    joined(text, "")
}

fn joined(text: &str, glue: &str) -> Vec<String> {
    let mut lines = Vec::new();
    let mut begun: Option<String> = None;
    for line in text.lines() {
        if is_comment(line) {
            continue;
        }
        let mut whole = begun.take().unwrap_or_default();
        whole.push_str(line);
        let backslashes = whole.bytes().rev().take_while(|byte| *byte == b'\\').count();
        if backslashes % 2 == 1 {
            whole.truncate(whole.len() - 1);
            begun = Some(whole + glue);
        } else {
            lines.push(whole);
        }
    }
    lines.extend(begun);
    lines
}

fn is_comment(line: &str) -> bool {
    line.trim_start().starts_with(['#', ';'])
}

/// The directory of a unit's drop-ins.
pub fn drop_ins(unit: &Path) -> PathBuf {
    let mut name = unit.as_os_str().to_owned();
    name.push(".d");
    name.into()
}

/// The files of such a directory that count, in their order (systemd.unit(5), environment.d(5)).
pub fn configurations(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
    files.retain(|file| file.extension() == Some("conf".as_ref()) && file.is_file());
    files.sort();
    files
}

/// The files with variables that a unit and its drop-ins name, in their order. These win over `Environment=`, whichever
/// comes first (systemd.exec(5)). Patterns for several files are not followed.
pub fn environment_files<'a>(
    world: &World,
    texts: impl IntoIterator<Item = &'a str>,
) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for line in texts.into_iter().flat_map(lines) {
        let Some(("EnvironmentFile", value)) =
            line.split_once('=').map(|(key, value)| (key.trim(), value.trim()))
        else {
            continue;
        };
        if value.is_empty() {
            files.clear();
        }
        // One that begins with a dash may be missing.
        files.extend(path(world, value.strip_prefix('-').unwrap_or(value)));
    }
    files
}

/// What a unit of the user means by a word with specifiers for directories; `None` if there are others (systemd.unit(5)).
pub fn expand(world: &World, value: &str) -> Option<String> {
    let mut expanded = String::new();
    let mut chars = value.chars();
    while let Some(next) = chars.next() {
        if next != '%' {
            expanded.push(next);
            continue;
        }
        let dir = match chars.next()? {
            '%' => {
                expanded.push('%');
                continue;
            }
            'h' => hostenv::dirs::home(&world.env).ok(),
            't' => world.runtime_dir(),
            'E' => world.config_home(),
            'S' => world.state_home(),
            _ => None,
        };
        expanded.push_str(dir?.to_str()?);
    }
    Some(expanded)
}

/// The absolute path that a unit of the user means.
fn path(world: &World, value: &str) -> Option<PathBuf> {
    let path = PathBuf::from(expand(world, value)?);
    let below = path.strip_prefix("/").ok()?;
    if path.starts_with(&world.root) { Some(path) } else { Some(world.root.join(below)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_that_ends_in_a_backslash_goes_on() {
        for (text, unit, variables) in [
            (
                "A=b \\\n  \"C=d\"\nE=f",
                &["A=b    \"C=d\"", "E=f"][..],
                &["A=b   \"C=d\"", "E=f"][..],
            ),
            ("A=b\\\n# no\n;no\\\nc", &["A=b c"], &["A=bc"]),
            ("A=b\\\\\nC=d", &["A=b\\\\", "C=d"], &["A=b\\\\", "C=d"]),
            ("# A=b \\\nC=d", &["C=d"], &["C=d"]),
            ("A=b\\", &["A=b "], &["A=b"]),
        ] {
            assert_eq!((&*lines(text), &*variable_lines(text)), (&*own(unit), &*own(variables)));
        }
    }

    fn own(lines: &[&str]) -> Vec<String> {
        lines.iter().map(|line| (*line).to_owned()).collect()
    }

    #[test]
    fn files_with_variables_are_where_specifiers_say() {
        let mut env = hostenv::Env::default();
        env.set(hostenv::vars::HOME, "/home/u");
        env.set(hostenv::vars::XDG_RUNTIME_DIR, "/run/user/7");
        let world = World { root: "/".into(), env, uid: 7, own_dir: None };
        let texts = [
            "[Service]\nEnvironmentFile=/lost\nEnvironmentFile=\nEnvironmentFile=-/etc/a b.env\n",
            "EnvironmentFile = %h/50%%/e \nEnvironmentFile=%t/e\nEnvironmentFile=%E/e\n\
             EnvironmentFile=%i/e\nEnvironmentFile=relative\n#EnvironmentFile=/no\nEnvironment=A=b",
        ];
        let expected =
            ["/etc/a b.env", "/home/u/50%/e", "/run/user/7/e", "/home/u/.config/e"].map(Path::new);
        assert_eq!(environment_files(&world, texts), expected);
    }
}
