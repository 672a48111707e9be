//! newuidmap(1) and newgidmap(1).
//!
//! The maps are independent of each other, so both programs are started before either is waited for: their start is most
//! of what they cost. They are run for privileges we do not have; a map is never written directly.

use std::io;
use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::time::Duration;

use hostenv::Env;
use hostenv::helper::{Helper, HelperError};
use nix::errno::Errno;
use nix::unistd::Pid;

use crate::diagnose::{self, Facts};
use crate::map::Maps;
use crate::outer::Outer;
use crate::{Kind, Range, subid};

/// They take milliseconds, unless an NSS module asks a server.
const NEWIDMAP_TIMEOUT: Duration = Duration::from_secs(10);

/// A map that was not written.
#[derive(Debug, thiserror::Error)]
pub enum MapError {
    /// The program is not there; with how to install it here.
    #[error("{0} is not an executable program in PATH\nhint: {1}")]
    Missing(&'static str, &'static str),
    /// The kernel did not start this command line, because it lacks the capabilities that the program's file says it needs
    /// (execve(2)); with the most likely remedy.
    #[error("cannot run `{0}`: {1}\nhint: {2}")]
    Barred(String, io::Error, String),
    /// The program could not be run, or took too long.
    #[error(transparent)]
    Run(#[from] HelperError),
    /// The program refused: the command line, how it ended, what it printed, and the most likely remedy.
    #[error("`{0}` failed ({1}): {2}\nhint: {3}")]
    Refused(String, ExitStatus, String, String),
}

/// Writes both maps of the user namespace that process `pid` is in. `root` is `/` outside of tests; only messages depend
/// on it. One of `interrupts` that is readable ends the wait.
///
/// # Errors
/// A program is missing, takes longer than 10 s, is interrupted, or refuses. The error is about the user ids if both fail.
pub fn apply(
    pid: Pid,
    maps: &Maps,
    env: &Env,
    root: &Path,
    interrupts: &[BorrowedFd<'_>],
) -> Result<(), MapError> {
    let uid = Run::start(Kind::Uid, pid, maps, env, root)?;
    let gid = Run::start(Kind::Gid, pid, maps, env, root)?;
    uid.finish(maps, root, interrupts)?;
    gid.finish(maps, root, interrupts)
}

/// One running tool.
struct Run {
    kind: Kind,
    tool: PathBuf,
    helper: Helper,
}

impl Run {
    fn start(kind: Kind, pid: Pid, maps: &Maps, env: &Env, root: &Path) -> Result<Run, MapError> {
        let Some(tool) = env.find_program(kind.tool()) else {
            return Err(MapError::Missing(kind.tool(), diagnose::install_hint(&os_release(root))));
        };
        let mut args = vec![pid.to_string()];
        for line in maps.of(kind) {
            args.extend(
                [line.container_id(), line.host_id(), line.size()].map(|number| number.to_string()),
            );
        }
        match Helper::start(&tool, &args, env, NEWIDMAP_TIMEOUT) {
            Ok(helper) => Ok(Run { kind, tool, helper }),
            Err(HelperError::Start(command_line, e))
                if e.raw_os_error() == Some(Errno::EPERM as i32) =>
            {
                let hint = diagnose::hint(kind, &tool, "", Facts::gather(root, &tool));
                Err(MapError::Barred(command_line, e, hint))
            }
            Err(error) => Err(error.into()),
        }
    }

    fn finish(
        self,
        maps: &Maps,
        root: &Path,
        interrupts: &[BorrowedFd<'_>],
    ) -> Result<(), MapError> {
        let command_line = self.helper.command_line().to_owned();
        let output = self.helper.finish_unless(interrupts)?;
        if output.status.success() {
            return Ok(());
        }
        let text = output.text();
        let hint = outside(self.kind, maps, root).unwrap_or_else(|| {
            diagnose::hint(self.kind, &self.tool, &text, Facts::gather(root, &self.tool))
        });
        Err(MapError::Refused(command_line, output.status, text, hint))
    }
}

/// The hint if the map has ids that this container does not have.
fn outside(kind: Kind, maps: &Maps, root: &Path) -> Option<String> {
    let outer = Outer::read(root, kind);
    let mut ranges =
        maps.of(kind).iter().filter_map(|line| Range::new(line.host_id(), line.size()));
    let range = ranges.find(|range| !outer.holds(*range))?;
    let inside = subid::free_range_below(root).map(|free| {
        format!(
            "in /etc/subuid and /etc/subgid, use IDs that this container has, such as {free}; or "
        )
    });
    Some(format!(
        "this container does not have the IDs {range}; it has only {} ({}): {}{}",
        outer.describe(),
        Path::new("/proc/self").join(kind.map_file()).display(),
        inside.unwrap_or_default(),
        outer.widening(range)
    ))
}

/// The text of os-release(5), or nothing.
fn os_release(root: &Path) -> String {
    let texts =
        ["etc/os-release", "usr/lib/os-release"].map(|file| hostenv::file::text(&root.join(file)));
    texts.into_iter().find_map(Result::ok).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{map, testing};
    use hostenv::vars;
    use std::fs;

    fn maps() -> Maps {
        let range = |start| [Range::new(start, 65536).unwrap()];
        map::build(1000, 100, &range(100_000), &range(200_000))
    }

    /// A root with an os-release and these tools in `bin`.
    fn root(tools: &[(&str, &str)]) -> (tempfile::TempDir, Env) {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("etc")).unwrap();
        fs::write(dir.path().join("etc/os-release"), "ID=alpine\n").unwrap();
        for (name, body) in tools {
            testing::script(dir.path(), name, body);
        }
        let path = format!("{}:/usr/bin:/bin", dir.path().display());
        let env = [(vars::PATH, path)].into_iter().collect();
        (dir, env)
    }

    fn run(dir: &tempfile::TempDir, env: &Env) -> Result<(), MapError> {
        apply(Pid::from_raw(4242), &maps(), env, dir.path(), &[])
    }

    #[test]
    fn both_tools_get_their_map() {
        let _lock = testing::lock();
        let log = r#"echo "$*" > "${0%/*}/${0##*/}.log""#;
        let (dir, env) = root(&[("newuidmap", log), ("newgidmap", log)]);
        run(&dir, &env).unwrap();
        let read = |name: &str| fs::read_to_string(dir.path().join(name)).unwrap();
        assert_eq!(read("newuidmap.log"), "4242 0 1000 1 1 100000 65536\n");
        assert_eq!(read("newgidmap.log"), "4242 0 100 1 1 200000 65536\n");
    }

    #[test]
    fn both_tools_run_at_the_same_time() {
        let _lock = testing::lock();
        // Each waits for a sign of the other.
        let meet = r#"d=${0%/*}; : > "$d/met-${0##*/}"; i=0
            while [ ! -e "$d/met-newuidmap" ] || [ ! -e "$d/met-newgidmap" ]; do
                i=$((i+1)); [ $i -lt 400 ] || exit 1; sleep 0.02
            done"#;
        let (dir, env) = root(&[("newuidmap", meet), ("newgidmap", meet)]);
        run(&dir, &env).unwrap();
    }

    #[test]
    fn a_missing_tool_names_the_package_of_the_distribution() {
        let (dir, mut env) = root(&[]);
        env.set(vars::PATH, dir.path());
        let error = run(&dir, &env).unwrap_err().to_string();
        assert!(
            error.starts_with("newuidmap is not") && error.contains("apk add shadow-subids"),
            "{error}"
        );
        fs::remove_file(dir.path().join("etc/os-release")).unwrap();
        assert!(run(&dir, &env).unwrap_err().to_string().contains("install the package"));
    }

    #[test]
    fn a_refusal_shows_command_output_and_remedy() {
        let _lock = testing::lock();
        let refuse =
            "echo 'newgidmap: gid range [1-65537) -> [200000-265536) not allowed' >&2; exit 1";
        let (dir, env) = root(&[("newuidmap", "exit 0"), ("newgidmap", refuse)]);
        let error = run(&dir, &env).unwrap_err().to_string();
        assert!(
            error.contains("newgidmap 4242 0 100 1 1 200000 65536` failed (exit status: 1)"),
            "{error}"
        );
        assert!(
            error.contains("not allowed")
                && error.contains("\nhint: ")
                && error.contains("/etc/subgid"),
            "{error}"
        );
    }
    #[test]
    fn ids_that_the_container_lacks_are_named_with_some_that_it_has() {
        let _lock = testing::lock();
        let refuse =
            "echo 'newuidmap: write to uid_map failed: Operation not permitted' >&2; exit 1";
        let (dir, env) = root(&[("newuidmap", refuse), ("newgidmap", refuse)]);
        fs::create_dir_all(dir.path().join("proc/self")).unwrap();
        for (file, name) in [("uid_map", "subuid"), ("gid_map", "subgid")] {
            let map = dir.path().join("proc/self").join(file);
            fs::write(map, "         0    1000000      65536\n").unwrap();
            fs::write(dir.path().join("etc").join(name), "jo:100000:65536\n").unwrap();
        }
        let error = run(&dir, &env).unwrap_err().to_string();
        for part in [
            "hint: this container does not have the IDs 100000-165535; it has only 0-65535 (/proc/self/uid_map)",
            "such as 10000-65533; or ",
            "`lxc.idmap = u 0 1000000 165536`",
        ] {
            assert!(error.contains(part), "{part}\n{error}");
        }
    }
}
