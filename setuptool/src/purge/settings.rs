//! Which directories the daemon uses, as far as anything says: the environment, the unit with its drop-ins and the files with
//! variables that these name, the script and the settings of `--supervise`, and daemon.json.
//!
//! Units and shell scripts are not interpreted: a flag or variable of the right name counts wherever it is. One that is
//! meant otherwise only leads to a place where no daemon is. Data roots, which are deleted, count only where the daemon's own
//! command is: another program of the unit (`ExecStopPost=`, say) may have a flag of that name, for a backup.

use std::path::{Path, PathBuf};

use hostenv::vars;

use doctor::place::World;
use doctor::supervisor::Files;
use doctor::unit_file;

/// The places, each once, the usual ones first.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Settings {
    /// State directories of rootlesskit.
    pub(super) state_dirs: Vec<PathBuf>,
    /// Directories for images, containers and volumes.
    pub(super) data_roots: Vec<PathBuf>,
    /// Directories for what runs.
    pub(super) exec_roots: Vec<PathBuf>,
    /// Files with the pid of dockerd or its containerd.
    pub(super) pid_files: Vec<PathBuf>,
}

impl Settings {
    pub(super) fn gather(world: &World) -> Self {
        let mut found = Self::default();
        if let Some(dir) = world.runtime_dir() {
            add(&mut found.state_dirs, world.state_dir(&dir));
            // An earlier daemon may not have had the variable.
            add(&mut found.state_dirs, dir.join("dockerd-rootless"));
            add(&mut found.exec_roots, dir.join("docker"));
            add(&mut found.pid_files, dir.join("docker.pid"));
        }
        if let Some(dir) = world.default_data_root() {
            add(&mut found.data_roots, dir);
        }
        if let Some(dir) = world.data_root() {
            add(&mut found.data_roots, dir);
        }
        let config = world.daemon_json().unwrap_or_default();
        for (key, list) in [
            ("graph", &mut found.data_roots),
            ("exec-root", &mut found.exec_roots),
            ("pidfile", &mut found.pid_files),
        ] {
            add_all(list, config[key].as_str().map(PathBuf::from));
        }
        for text in texts(world) {
            let paths = |names: &[&str]| {
                let values = names.iter().flat_map(|name| values(&text, name));
                values.filter_map(|value| expanded(world, &value)).collect::<Vec<_>>()
            };
            add_all(
                &mut found.state_dirs,
                paths(&[vars::DOCKERD_ROOTLESS_STATE_DIR, "-state-dir"]),
            );
            let commands = commands(&text);
            let roots =
                ["-data-root", "-graph"].into_iter().flat_map(|name| values(&commands, name));
            add_all(&mut found.data_roots, roots.filter_map(|root| expanded(world, &root)));
            add_all(&mut found.exec_roots, paths(&["-exec-root"]));
            add_all(&mut found.pid_files, paths(&["-pidfile"]));
        }
        for root in found.exec_roots.clone() {
            for name in ["containerd.pid", "docker-containerd.pid"] {
                add(&mut found.pid_files, root.join("containerd").join(name));
            }
        }
        found
    }
}

fn add(list: &mut Vec<PathBuf>, path: PathBuf) {
    if path.is_absolute() && !list.contains(&path) {
        list.push(path);
    }
}

fn add_all(list: &mut Vec<PathBuf>, paths: impl IntoIterator<Item = PathBuf>) {
    paths.into_iter().for_each(|path| add(list, path));
}

/// Everything that may have a flag or variable of the daemon.
fn texts(world: &World) -> Vec<String> {
    let flags = world.env.text(vars::DOCKERD_ROOTLESS_FLAGS).ok().flatten();
    let assigned = |flags| format!("{}={flags}", vars::DOCKERD_ROOTLESS_FLAGS);
    let mut texts: Vec<String> = flags.map(assigned).into_iter().collect();
    let mut units = Vec::new();
    if let Some(unit) = world.unit() {
        units.extend(unit_file::configurations(&unit_file::drop_ins(&unit)));
        units.push(unit);
    }
    let read = |files: Vec<PathBuf>| {
        files.into_iter().filter_map(|file| hostenv::file::text(&file).ok()).collect::<Vec<_>>()
    };
    let units = read(units);
    let mut others = unit_file::environment_files(world, units.iter().map(String::as_str));
    if let Some(own) = Files::of(world) {
        others.extend([own.script(), own.settings()]);
    }
    texts.extend(units);
    texts.extend(read(others));
    texts
}

/// The lines in which the daemon gets its flags: the unit's command, the variable with flags, and commands of a script that
/// start the launcher. A line that ends in a backslash goes on in the next one.
fn commands(text: &str) -> String {
    let text = text.replace("\\\n", " ");
    let lines = text.lines().filter(|line| {
        let line = line.trim_start();
        line.starts_with("ExecStart=")
            || line.contains(vars::DOCKERD_ROOTLESS_FLAGS)
            || line.starts_with("exec ") && line.contains("dockerd")
    });
    lines.collect::<Vec<_>>().join("\n")
}

/// The values of a flag or variable: what follows its name and `=`, or, after a flag, blanks.
fn values(text: &str, name: &str) -> Vec<String> {
    let lines = text.lines().filter(|line| !line.trim_start().starts_with(['#', ';']));
    lines
        .flat_map(|line| line.match_indices(name).filter_map(|(at, _)| value(line, at, name)))
        .collect()
}

fn value(line: &str, at: usize, name: &str) -> Option<String> {
    let before = line[..at].chars().next_back();
    // A flag may have two dashes, and be the first word of a variable's value.
    if before.is_some_and(|c| !(c.is_whitespace() || "-\"'=".contains(c))) {
        return None;
    }
    let rest = &line[at + name.len()..];
    let rest = match rest.strip_prefix('=') {
        Some(rest) => rest,
        None if name.starts_with('-') && rest.starts_with(char::is_whitespace) => rest.trim_start(),
        None => return None,
    };
    let word = match rest.chars().next()? {
        quote @ ('"' | '\'') => rest[1..].split(quote).next(),
        _ => rest.split(|c: char| c.is_whitespace() || c == '"' || c == '\'').next(),
    };
    word.map(str::to_owned)
}

/// The path that a unit or a shell script means, with the few things in it that stand for directories.
fn expanded(world: &World, value: &str) -> Option<PathBuf> {
    let text = |path: Option<PathBuf>| path.map(|path| path.to_string_lossy().into_owned());
    let home = text(hostenv::dirs::home(&world.env).ok());
    let runtime = text(world.runtime_dir());
    let mut value = value.to_owned();
    for (name, dir) in [
        ("${XDG_RUNTIME_DIR}", &runtime),
        ("$XDG_RUNTIME_DIR", &runtime),
        ("%t", &runtime),
        ("${HOME}", &home),
        ("$HOME", &home),
        ("%h", &home),
    ] {
        if let Some(dir) = dir {
            value = value.replace(name, dir);
        }
    }
    Some(Path::new(&value.replace("%%", "%")).to_owned()).filter(|path| path.is_absolute())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::fs;

    fn place() -> (tempfile::TempDir, World) {
        let dir = tempfile::tempdir().unwrap();
        let mut env = hostenv::Env::default();
        env.set(vars::HOME, dir.path().join("home"));
        env.set(vars::XDG_RUNTIME_DIR, "/run/user/7");
        let world = World { root: dir.path().to_owned(), env, uid: 7, own_dir: None };
        (dir, world)
    }

    #[test]
    fn units_drop_ins_and_daemon_json_name_directories() {
        let (dir, world) = place();
        let write = |name: &str, text: &str| {
            let path = dir.path().join("home/.config").join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        write(
            "systemd/user/docker.service",
            "[Service]\n# ExecStart=x --data-root=/no\nExecStart=/d.sh --exec-root=%t/e --data-root '/a b'\n",
        );
        write(
            "systemd/user/docker.service.d/x.conf",
            "[Service]\nEnvironment=\"DOCKERD_ROOTLESS_ROOTLESSKIT_FLAGS=--state-dir=%h/s --debug\"\n\
             Environment=DOCKERD_ROOTLESS_ROOTLESSKIT_STATE_DIR=/t\nEnvironmentFile=%E/d.env\n",
        );
        write("d.env", "DOCKERD_ROOTLESS_ROOTLESSKIT_STATE_DIR=/u\n");
        write("docker/daemon.json", "{\"data-root\":\"/big\",\"pidfile\":\"/p\"}");
        let found = Settings::gather(&world);
        let home = dir.path().join("home");
        let expected = |paths: &[&str]| paths.iter().map(PathBuf::from).collect::<Vec<_>>();
        let mut state_dirs = expected(&["/run/user/7/dockerd-rootless", "/t", "/u"]);
        state_dirs.insert(1, home.join("s"));
        let mut seen = found.state_dirs.clone();
        seen.sort();
        state_dirs.sort();
        assert_eq!(seen, state_dirs);
        let mut data_roots = expected(&["/big", "/a b"]);
        data_roots.insert(0, home.join(".local/share/docker"));
        assert_eq!(found.data_roots, data_roots);
        assert_eq!(found.exec_roots, expected(&["/run/user/7/docker", "/run/user/7/e"]));
        assert_eq!(
            found.pid_files[..3],
            expected(&[
                "/run/user/7/docker.pid",
                "/p",
                "/run/user/7/docker/containerd/containerd.pid"
            ])
        );
    }

    #[test]
    fn other_words_are_no_flags() {
        for text in ["--no-state-dir=/x", "--state-dirs=/x", "my-state-dir /x", "# --state-dir=/x"]
        {
            assert!(values(text, "-state-dir").is_empty(), "{text}");
        }
        for text in
            ["--state-dir=/x", "-state-dir /x", "F=\"--state-dir=/x\"", "--state-dir '/x' y"]
        {
            assert_eq!(values(text, "-state-dir"), ["/x"], "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_text_can_be_searched(text in "[-a=\"' é\n]{0,40}") {
            values(&text, "-a");
        }
    }
}
