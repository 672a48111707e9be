//! Which dockerd is started.
//!
//! The answer matters for one decision: since Docker 29.5 dockerd stays in the host's network namespace
//! and enters the detached one (`$ROOTLESSKIT_STATE_DIR/netns`) by itself; an older dockerd ignores that
//! file, would publish ports and make bridges in the host's namespace, and fails. Conversely every dockerd
//! works in an attached namespace. Development builds say `dev` instead of a version: such a program is searched for the
//! function that looks for that file. The attached namespace is right whenever neither tells (wrappers).

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::path::PathBuf;

use hostenv::shellwords::{self, CommandError};

use crate::host::Host;
use crate::report::Failure;

/// The first release that supports a detached network namespace.
const DETACHES_SINCE: (u32, u32) = (29, 5);
/// The function of dockerd that finds a detached namespace, under each name that it has had (29.7 keeps its result in a
/// variable, and the function itself has a small letter). The name is part of the executable, also of a stripped one, since
/// Go needs it for stack traces. BuildKit, which older ones contain, has a constant of a similar name.
const DETACHES_BY: [&[u8]; 2] =
    [b"daemon/internal/rootless.detachedNetNS", b"daemon/internal/rootless.DetachedNetNS"];
/// The first release that asks rootlesskit for ports by itself, and takes several addresses as `host-gateway`.
const PUBLISHES_SINCE: (u32, u32) = (28, 0);

/// The command that becomes the daemon, without the user's options.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Dockerd {
    pub(crate) program: PathBuf,
    /// Arguments from `$DOCKERD`, which go before the user's options.
    pub(crate) args: Vec<OsString>,
}

impl Dockerd {
    /// The program that `$DOCKERD` (default `dockerd`) names, see [`shellwords::command`].
    ///
    /// # Errors
    /// Status 127, as a shell has it, when there is no such program; 1 for unbalanced quotes.
    pub(crate) fn find(value: Option<&OsStr>, host: &dyn Host) -> Result<Self, Failure> {
        match shellwords::command(value, "dockerd", |name| host.find(name)) {
            Ok(command) => Ok(Self { program: command.program, args: command.args }),
            Err(error @ CommandError::Missing(_)) => Err(Failure::new(error.to_string())
                .hint(
                    "install the Docker daemon (package docker-ce, docker.io or moby-engine), add its \
                     directory to PATH, or set DOCKERD to its path",
                )
                .code(127)),
            Err(error) => Err(Failure::new(format!("DOCKERD is {error}"))),
        }
    }

    /// Asks the daemon for its version. `None` when it gives no answer that can be understood.
    pub(crate) fn version(&self, host: &dyn Host) -> Option<Version> {
        let mut args: Vec<&OsStr> = self.args.iter().map(OsString::as_os_str).collect();
        args.push(OsStr::new("--version"));
        Version::parse(&host.ask(&self.program, &args).ok()?)
    }

    /// Whether the program itself shows that it finds its way into a detached network namespace.
    pub(crate) fn can_detach(&self, host: &dyn Host) -> bool {
        DETACHES_BY.iter().any(|name| host.contains(&self.program, name))
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Version {
    major: u32,
    minor: u32,
    text: String,
}

impl Version {
    /// Reads the output of `dockerd --version`: `Docker version 28.5.2+dfsg4, build 89c5e8f`. Other lines
    /// around it, such as warnings, do not matter.
    pub(crate) fn parse(output: &str) -> Option<Self> {
        let text = output.lines().find_map(|line| line.trim().strip_prefix("Docker version "))?;
        let text = text.split([',', ' ']).next()?;
        let mut numbers = text.split('.');
        let major = numbers.next()?.parse().ok()?;
        let minor = numbers.next()?.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()?;
        Some(Self { major, minor, text: text.to_owned() })
    }

    pub(crate) fn detaches(&self) -> bool {
        (self.major, self.minor) >= DETACHES_SINCE
    }

    pub(crate) fn publishes(&self) -> bool {
        (self.major, self.minor) >= PUBLISHES_SINCE
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::fake_host::Fake;

    fn version(output: &str) -> Option<(u32, u32, bool)> {
        Version::parse(output).map(|v| (v.major, v.minor, v.detaches()))
    }

    #[test]
    fn versions_and_what_they_support() {
        assert_eq!(
            version("Docker version 20.10.24+dfsg1, build 5d6db84\n"),
            Some((20, 10, false))
        );
        assert_eq!(version("Docker version 28.5.2+dfsg4, build 89c5e8f"), Some((28, 5, false)));
        assert_eq!(version("Docker version 29.4.3, build 1"), Some((29, 4, false)));
        assert_eq!(version("Docker version 29.5.0, build 1"), Some((29, 5, true)));
        assert_eq!(version("Docker version 29.5-rc1, build 1"), Some((29, 5, true)));
        assert_eq!(version("Docker version 30.0.0-beta.1, build 1"), Some((30, 0, true)));
        assert_eq!(version("warning: x\nDocker version 29.10.1, build 1\n"), Some((29, 10, true)));
    }

    #[test]
    fn a_build_without_a_version_is_known_by_its_function() {
        let dir = tempfile::tempdir().unwrap();
        let host = crate::host::System::new(&hostenv::Env::default());
        let dockerd = Dockerd { program: dir.path().join("dockerd"), args: Vec::new() };
        for (name, detaches) in [
            ("github.com/moby/moby/v2/daemon/internal/rootless.detachedNetNS", true),
            ("github.com/moby/moby/v2/daemon/internal/rootless.DetachedNetNS", true),
            ("github.com/docker/docker/pkg/rootless.RunningWithRootlessKit", false),
        ] {
            std::fs::write(&dockerd.program, format!("\x7fELF\0{name}\0")).unwrap();
            assert_eq!(dockerd.can_detach(&host), detaches, "{name}");
        }
    }

    #[test]
    fn answers_that_say_nothing() {
        for output in
            ["", "Docker version dev, build abc", "podman version 5.0", "Docker version 29"]
        {
            assert_eq!(version(output), None, "{output:?}");
        }
        assert_eq!(version("Docker version 99999999999.1, build x"), None);
    }

    #[test]
    fn the_override_may_have_arguments() {
        let host = Fake::default().with("dlv", "Docker version 29.5.1, build x");
        let d = Dockerd::find(Some(OsStr::new("/opt/dlv exec 'the daemon' --")), &host).unwrap();
        assert_eq!(d.program, PathBuf::from("/bin/dlv"));
        assert_eq!(d.args, ["exec", "the daemon", "--"]);
        assert_eq!(d.version(&host).unwrap().to_string(), "29.5.1");
    }

    #[test]
    fn missing_programs_are_status_127() {
        let e = Dockerd::find(None, &Fake::default()).unwrap_err();
        assert!(e.to_string().contains("\"dockerd\" not found"), "{e}");
        assert_eq!(e.report(), 127);
        assert_eq!(
            Dockerd::find(Some(OsStr::new("'a")), &Fake::default()).unwrap_err().report(),
            1
        );
    }

    #[test]
    fn a_daemon_that_does_not_answer_has_no_version() {
        let host = Fake::default().broken("dockerd");
        assert_eq!(Dockerd::find(None, &host).unwrap().version(&host), None);
    }
}
