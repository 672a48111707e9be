//! Settings of the launcher where the user may have made them: variables, and flags in one of them.

use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};

use hostenv::{Env, flags, shellwords, vars};

use crate::place::World;
use crate::supervisor::Files;
use crate::unit_file;

/// A setting of the launcher that the user made. As text: what it is and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UserSetting {
    /// The variable.
    pub name: &'static str,
    /// The flag of rootlesskit, if the variable is `DOCKERD_ROOTLESS_ROOTLESSKIT_FLAGS`.
    pub flag: Option<&'static str>,
    pub value: String,
    /// The file that sets the variable; without one, the environment does.
    pub file: Option<PathBuf>,
}

impl UserSetting {
    /// How to undo it.
    pub fn removal(&self) -> String {
        let name = self.name;
        match (self.flag, &self.file) {
            (None, None) => format!("remove {name} from the daemon's settings"),
            (None, Some(file)) => format!("remove {name} from {}", file.display()),
            (Some(flag), None) => format!("remove --{flag} from {name}"),
            (Some(flag), Some(file)) => {
                format!("remove --{flag} from {name} in {}", file.display())
            }
        }
    }
}

impl fmt::Display for UserSetting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.flag {
            None => write!(f, "{}={}", self.name, self.value)?,
            Some(flag) => write!(f, "--{flag}={} in {}", self.value, self.name)?,
        }
        match &self.file {
            Some(file) => write!(f, " in {}", file.display()),
            None => Ok(()),
        }
    }
}

/// `NAME=VALUE`, or another word of a line.
#[derive(Debug)]
struct Assigned {
    file: PathBuf,
    syntax: Syntax,
    word: String,
}

/// The user's settings, which are read once.
#[derive(Debug)]
pub(super) struct UserSettings<'w> {
    env: &'w Env,
    /// What the [`files`] set, in their order.
    assigned: Vec<Assigned>,
    pub(super) flags: Flags,
}

impl<'w> UserSettings<'w> {
    pub(super) fn gather(world: &'w World) -> Self {
        let mut assigned = Vec::new();
        for (file, syntax) in files(world) {
            let text = hostenv::file::text(&file).unwrap_or_default();
            assign(&mut assigned, world, &file, &text, syntax);
        }
        let mut settings = Self { env: &world.env, assigned, flags: Flags::default() };
        if let Some(flags) = settings.variable(vars::DOCKERD_ROOTLESS_FLAGS) {
            let words = shellwords::split(flags.value.as_ref()).unwrap_or_default();
            settings.flags = Flags { words, file: flags.file };
        }
        settings
    }

    /// A variable in this environment, or else in a file that gives it to the daemon, of which the last one counts. One
    /// that is set and empty hides the files, so that `install --swarm=` is judged by what it is about to do.
    pub(super) fn variable(&self, name: &'static str) -> Option<UserSetting> {
        self.variable_or_empty(name).filter(|setting| !setting.value.is_empty())
    }

    /// The same for a variable that means something if it is set and empty.
    pub(super) fn variable_or_empty(&self, name: &'static str) -> Option<UserSetting> {
        let (value, file) = match self.env.get(name) {
            Some(value) => (value.to_string_lossy().into_owned(), None),
            None => {
                let (file, _, value) =
                    self.assigned().filter(|(_, assigned, _)| *assigned == name).last()?;
                (value.to_owned(), Some(file.to_owned()))
            }
        };
        Some(UserSetting { name, flag: None, value, file })
    }

    /// The variables that files set: the file, the name, the value.
    pub(super) fn assigned(&self) -> impl Iterator<Item = (&Path, &str, &str)> {
        self.assigned.iter().filter_map(|Assigned { file, word, .. }| {
            let (name, value) = word.split_once('=')?;
            Some((file.as_path(), name, value))
        })
    }
}

/// The flags of rootlesskit in `DOCKERD_ROOTLESS_ROOTLESSKIT_FLAGS`, which win over the launcher's own.
#[derive(Debug, Default)]
pub(super) struct Flags {
    words: Vec<OsString>,
    file: Option<PathBuf>,
}

impl Flags {
    fn setting(&self, flag: &'static str, value: String) -> UserSetting {
        let name = vars::DOCKERD_ROOTLESS_FLAGS;
        UserSetting { name, flag: Some(flag), value, file: self.file.clone() }
    }

    /// All values of a flag.
    pub(super) fn all(&self, flag: &'static str) -> impl Iterator<Item = UserSetting> {
        flags::all(&self.words, flag).into_iter().map(move |value| self.setting(flag, value))
    }

    /// The value of a flag that wins.
    pub(super) fn last(&self, flag: &'static str) -> Option<UserSetting> {
        self.all(flag).last()
    }

    /// The same for a flag that is true or false.
    pub(super) fn last_bool(&self, flag: &'static str) -> Option<(bool, UserSetting)> {
        let value = flags::last_bool(&self.words, flag)?;
        Some((value, self.setting(flag, value.to_string())))
    }
}

/// How a file sets variables.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Syntax {
    /// `Environment=A=b "C=d e"` (systemd.exec(5)).
    Unit,
    /// `A=b c`, one variable a line (environment.d(5)).
    OneALine,
    /// `A=b; C='d e'` or `export A=b` for sh(1).
    Shell,
}

/// Adds what a file sets. An empty `Environment=` takes back what units have set before (systemd.exec(5)).
fn assign(assigned: &mut Vec<Assigned>, world: &World, file: &Path, text: &str, syntax: Syntax) {
    let lines = match syntax {
        Syntax::Unit => unit_file::lines(text),
        Syntax::OneALine | Syntax::Shell => unit_file::variable_lines(text),
    };
    for line in lines {
        if syntax == Syntax::Unit && environment(&line) == Some("") {
            assigned.retain(|of| of.syntax != Syntax::Unit);
        }
        let words = assignments(&line, syntax).into_iter().map(|word| match syntax {
            Syntax::Unit => unit_file::expand(world, &word).unwrap_or(word),
            Syntax::OneALine | Syntax::Shell => word,
        });
        assigned.extend(words.map(|word| Assigned { file: file.to_owned(), syntax, word }));
    }
}

/// What is behind `Environment=`.
fn environment(line: &str) -> Option<&str> {
    let (key, value) = line.split_once('=')?;
    (key.trim() == "Environment").then_some(value.trim())
}

/// The files that give variables to the daemon: what systemd gives to all units of the user (environment.d(5)), the unit,
/// its drop-ins, the files that these name, and the variables of other supervisors. A later one wins.
fn files(world: &World) -> Vec<(PathBuf, Syntax)> {
    let unit = world.unit();
    let drop_ins = unit.as_deref().map(unit_file::drop_ins);
    let for_all = world.config_home().map(|dir| dir.join("environment.d"));
    let configurations =
        |dir: Option<PathBuf>| dir.map(|dir| unit_file::configurations(&dir)).unwrap_or_default();
    let others = Files::of(world).map(|files| [files.swarm(), files.settings()]);
    let of_units: Vec<PathBuf> = unit.into_iter().chain(configurations(drop_ins)).collect();
    let texts = of_units.iter().filter_map(|file| hostenv::file::text(file).ok());
    let texts: Vec<String> = texts.collect();
    let named = unit_file::environment_files(world, texts.iter().map(String::as_str));
    let for_all = configurations(for_all).into_iter().map(|file| (file, Syntax::OneALine));
    for_all
        .chain(of_units.into_iter().map(|file| (file, Syntax::Unit)))
        .chain(named.into_iter().map(|file| (file, Syntax::OneALine)))
        .chain(others.into_iter().flatten().map(|file| (file, Syntax::Shell)))
        .collect()
}

/// The variables that a line sets, as `NAME=VALUE`, among other words. Both systemd's files and a shell's have comments
/// that begin a line; a shell also has them behind other words. (A semicolon that begins a line is an error of a shell.)
fn assignments(line: &str, syntax: Syntax) -> Vec<String> {
    let line = line.trim();
    if line.starts_with(['#', ';']) {
        return Vec::new();
    }
    let words = match syntax {
        Syntax::Unit => environment(line).unwrap_or(line),
        Syntax::OneALine | Syntax::Shell => line,
    };
    let words = shellwords::split(words.as_ref()).unwrap_or_default();
    let words = words.into_iter().filter_map(|word: OsString| word.into_string().ok());
    match syntax {
        Syntax::Unit => words.collect(),
        Syntax::OneALine => vec![words.collect::<Vec<_>>().join(" ")],
        Syntax::Shell => words
            .take_while(|word| !word.starts_with('#'))
            .map(|word| word.trim_end_matches(';').to_owned())
            .collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::fs;

    #[test]
    fn a_line_sets_variables_as_its_file_has_them() {
        for (line, syntax, words) in [
            ("Environment=A=b \"C=d e\"", Syntax::Unit, &["A=b", "C=d e"][..]),
            (" Environment = A=b", Syntax::Unit, &["A=b"]),
            ("  A=b c  ", Syntax::OneALine, &["A=b c"]),
            ("A=\"b c\"", Syntax::OneALine, &["A=b c"]),
            ("export A='b c'; C=d # E=f", Syntax::Shell, &["export", "A=b c", "C=d"]),
            // What follows is a word like others in a unit.
            ("Environment=A=b # C=d", Syntax::Unit, &["A=b", "#", "C=d"]),
        ] {
            assert_eq!(assignments(line, syntax), words, "{line}");
        }
    }

    #[test]
    fn a_comment_sets_nothing() {
        for syntax in [Syntax::Unit, Syntax::OneALine, Syntax::Shell] {
            for line in ["#A=b", "# A=b", "  #\tA=b", "; A=b", ";A=b", "# Environment=A=b"] {
                assert_eq!(assignments(line, syntax), [""; 0], "{line:?}");
            }
        }
    }

    #[test]
    fn specifiers_count_in_units() {
        let home = tempfile::tempdir().unwrap();
        let write = |file: &str, text: &str| {
            let file = home.path().join(file);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, text).unwrap();
        };
        let name = vars::DOCKERD_ROOTLESS_EGRESS_POLICY;
        let unit = format!("[Service]\nEnvironment={name}=%h/50%%/e.toml A=%E/b B=%q\n");
        write(".config/systemd/user/docker.service.d/a.conf", &unit);
        write(".config/environment.d/a.conf", &format!("{}=%h %%\n", vars::DOCKERD_ROOTLESS_NET));
        let mut env = Env::default();
        env.set(vars::HOME, home.path());
        let world = World { root: home.path().into(), env, uid: 7, own_dir: None };
        let settings = UserSettings::gather(&world);
        let value = |name| settings.variable(name).map(|setting| setting.value);
        let home = home.path().display();
        assert_eq!(value(name), Some(format!("{home}/50%/e.toml")));
        assert_eq!(value("A"), Some(format!("{home}/.config/b")));
        assert_eq!(value("B").as_deref(), Some("%q"));
        assert_eq!(value(vars::DOCKERD_ROOTLESS_NET).as_deref(), Some("%h %%"));
    }

    #[test]
    fn a_setting_tells_where_it_is_and_how_to_undo_it() {
        let name = vars::DOCKERD_ROOTLESS_FLAGS;
        let setting = |flag, file: Option<&str>| UserSetting {
            name,
            flag,
            value: "v".to_owned(),
            file: file.map(PathBuf::from),
        };
        for (setting, shown, removal) in [
            (
                setting(None, None),
                format!("{name}=v"),
                format!("{name} from the daemon's settings"),
            ),
            (setting(None, Some("/f")), format!("{name}=v in /f"), format!("{name} from /f")),
            (setting(Some("a"), None), format!("--a=v in {name}"), format!("--a from {name}")),
            (
                setting(Some("a"), Some("/f")),
                format!("--a=v in {name} in /f"),
                format!("--a from {name} in /f"),
            ),
        ] {
            assert_eq!(
                (setting.to_string(), setting.removal()),
                (shown, format!("remove {removal}"))
            );
        }
    }

    proptest! {
        #[test]
        fn any_line_can_be_read(text in "\\PC{0,40}") {
            for syntax in [Syntax::Unit, Syntax::OneALine, Syntax::Shell] {
                let _ = assignments(&text, syntax);
            }
        }
    }
}
