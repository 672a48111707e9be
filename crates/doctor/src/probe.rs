//! Trying instead of guessing: does this host really let a user make namespaces, mount an overlay, use NAT?
//!
//! Each probe does the real thing through the rootlesskit that the daemon would run under, in namespaces that end
//! with it. Nothing is left on the host. Every probe is bounded, and one that cannot be made says so ([`Outcome::Unknown`])
//! instead of passing for a failure.
//!
//! [`Prober`] is a trait, so that tests inject results.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use api::client::Client;
use drivers::choose::GATEWAY_PROBE;
use hostenv::helper::Helper;
use hostenv::{Env, vars};
use serde_json::Value;

/// How long a program may take to tell its version, or the daemon to answer.
const ASK_LIMIT: Duration = Duration::from_secs(5);
/// How long a probe may take; starting a network stack is the slowest part.
const PROBE_LIMIT: Duration = Duration::from_secs(20);

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Probe {
    /// `systemctl --user` reaches the user's service manager.
    UserManager,
    /// `rootlesskit true`: user and mount namespaces with the user's subordinate ids.
    Namespaces,
    /// The same with the gateway network, which the launcher prefers.
    Gateway,
    /// The same with the network that the launcher would choose.
    Network,
    /// A NAT chain can be made with iptables in a network namespace.
    Nat,
    /// overlayfs can be mounted on the file system of the data directory.
    Overlay,
    /// A fresh `/proc` can be mounted.
    Proc,
    /// A link of VXLAN, which overlay networks consist of, can be made in a network namespace. Only for a node of a swarm.
    Vxlan,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    Works,
    /// It does, and this is what was said nevertheless.
    Warns(String),
    /// It does not, and this is what was said.
    Fails(String),
    /// It could not be tried.
    Unknown,
}

/// What the probes need to know.
#[derive(Debug, Clone, Default)]
pub struct Setting {
    pub rootlesskit: Option<PathBuf>,
    /// `--net=` of the launcher, if one was found.
    pub net: Option<String>,
    pub iptables: Option<PathBuf>,
    /// An existing directory on the file system of the data directory, writable by the user.
    pub data_parent: Option<PathBuf>,
    /// Add `XDG_RUNTIME_DIR` with this value.
    pub runtime_dir: Option<PathBuf>,
    /// The `ip` of iproute2; that of busybox does not know the options of VXLAN.
    pub ip: Option<PathBuf>,
}

impl Outcome {
    pub fn works(&self) -> bool {
        matches!(self, Self::Works | Self::Warns(_))
    }
}

pub trait Prober {
    fn probe(&self, probe: Probe, setting: &Setting) -> Outcome;
    /// What a program prints with this argument.
    ///
    /// # Errors
    /// Why it says nothing.
    fn ask(&self, program: &Path, arg: &str) -> Result<String, String>;
    /// What the Docker daemon at a socket answers to `GET path`; `None` if it does not.
    fn docker(&self, socket: &Path, path: &str) -> Option<Value>;
}

#[derive(Debug)]
pub struct System {
    env: Env,
}

impl System {
    /// Programs get the variables of `env`, without those that belong to a service.
    pub fn new(env: &Env) -> Self {
        Self { env: env.without_service() }
    }

    fn run(&self, program: &Path, args: &[&OsStr], setting: &Setting) -> Outcome {
        let mut env = self.env.clone();
        if let Some(dir) = &setting.runtime_dir {
            env.set(vars::XDG_RUNTIME_DIR, dir.as_os_str());
        }
        let output = Helper::start(program, args, &env, PROBE_LIMIT).and_then(Helper::finish);
        match output {
            Ok(output) if output.status.success() => match output.text() {
                text if text.is_empty() => Outcome::Works,
                text => Outcome::Warns(text),
            },
            Ok(output) => match output.text() {
                text if text.is_empty() => {
                    Outcome::Fails(format!("{} ended with {}", program.display(), output.status))
                }
                text => Outcome::Fails(text),
            },
            Err(error) => Outcome::Fails(error.to_string()),
        }
    }

    /// Runs a program under rootlesskit.
    fn inside(&self, flags: &[&str], command: &[&OsStr], setting: &Setting) -> Outcome {
        let Some(rootlesskit) = &setting.rootlesskit else { return Outcome::Unknown };
        let flags = flags.iter().map(OsStr::new);
        let args: Vec<&OsStr> = flags.chain(command.iter().copied()).collect();
        self.run(rootlesskit, &args, setting)
    }

    /// Runs a shell script under rootlesskit; `word` is its `$1`.
    fn script(&self, flags: &[&str], script: &str, word: &Path, setting: &Setting) -> Outcome {
        let command = ["sh", "-euc", script, "sh"].map(OsStr::new);
        let command = [&command[..], &[word.as_os_str()]].concat();
        self.inside(flags, &command, setting)
    }

    /// `None` if something that the probe needs is not there.
    fn attempt(&self, probe: Probe, setting: &Setting) -> Option<Outcome> {
        Some(match probe {
            Probe::UserManager => {
                let args = ["--user", "show-environment"].map(OsStr::new);
                self.run(&self.env.find_program("systemctl")?, &args, setting)
            }
            // Without flags: what `rootlesskit rm -rf` and the documentation use.
            Probe::Namespaces => self.inside(&[], &[OsStr::new("true")], setting),
            Probe::Gateway => {
                let (command, flags) = GATEWAY_PROBE.split_last()?;
                self.inside(flags, &[OsStr::new(command)], setting)
            }
            Probe::Network => {
                let net = format!("--net={}", setting.net.as_ref()?);
                let flags = [&net, "--disable-host-loopback", "--copy-up=/etc", "--copy-up=/run"];
                self.inside(&flags, &[OsStr::new("true")], setting)
            }
            Probe::Nat => {
                // /run is a copy, or xtables.lock of the host would be in the way.
                let flags = ["--net=none", "--copy-up=/run"];
                let script = "rm -f /run/xtables.lock; exec \"$1\" -t nat -N DOCKER-PROBE";
                self.script(&flags, script, setting.iptables.as_ref()?, setting)
            }
            Probe::Overlay => {
                let dir = tempfile::Builder::new()
                    .prefix(".docker-probe-")
                    .tempdir_in(setting.data_parent.as_deref()?)
                    .ok()?;
                // Only root of the namespace can remove what overlayfs puts into its work directory.
                let script = "cd \"$1\"; mkdir l u w m; \
                              trap 'umount m 2>/dev/null || :; rm -rf l u w m' EXIT; \
                              mount -t overlay -o userxattr,lowerdir=l,upperdir=u,workdir=w overlay m || \
                              mount -t overlay -o lowerdir=l,upperdir=u,workdir=w overlay m; \
                              : > m/f";
                self.script(&[], script, dir.path(), setting)
            }
            Probe::Proc => {
                let script = "mount -t proc proc \"$1\"";
                self.script(&["--pidns"], script, Path::new("/proc"), setting)
            }
            Probe::Vxlan => {
                let script = "exec \"$1\" link add vxlan-probe type vxlan id 1 dstport 4789";
                self.script(&["--net=none"], script, setting.ip.as_ref()?, setting)
            }
        })
    }
}

impl Prober for System {
    fn probe(&self, probe: Probe, setting: &Setting) -> Outcome {
        self.attempt(probe, setting).unwrap_or(Outcome::Unknown)
    }

    fn ask(&self, program: &Path, arg: &str) -> Result<String, String> {
        let output = Helper::start(program, &[arg], &self.env, ASK_LIMIT).and_then(Helper::finish);
        output.map(|output| output.all()).map_err(|error| error.to_string())
    }

    fn docker(&self, socket: &Path, path: &str) -> Option<Value> {
        Client::new(socket).with_timeout(ASK_LIMIT).get(path).ok()
    }
}

#[cfg(test)]
pub(crate) mod fake {
    use super::*;
    use std::collections::HashMap;

    /// Answers from tables; what is not in them works, or says nothing.
    #[derive(Debug, Default)]
    pub(crate) struct Fake {
        pub(crate) outcomes: HashMap<Probe, Outcome>,
        pub(crate) answers: HashMap<&'static str, String>,
        /// By the path of the request.
        pub(crate) docker: HashMap<&'static str, Value>,
    }

    impl Prober for Fake {
        fn probe(&self, probe: Probe, _: &Setting) -> Outcome {
            self.outcomes.get(&probe).cloned().unwrap_or(Outcome::Works)
        }

        fn ask(&self, program: &Path, _: &str) -> Result<String, String> {
            let name = program.file_name().and_then(OsStr::to_str).unwrap_or_default();
            Ok(self.answers.get(name).cloned().unwrap_or_default())
        }

        fn docker(&self, _: &Path, path: &str) -> Option<Value> {
            self.docker.get(path).cloned()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_tried_is_unknown_and_what_fails_says_why() {
        let env: Env = [(vars::PATH, "/nonexistent")].into_iter().collect();
        let system = System::new(&env);
        let nothing = Setting::default();
        for probe in [
            Probe::UserManager,
            Probe::Namespaces,
            Probe::Gateway,
            Probe::Network,
            Probe::Nat,
            Probe::Proc,
            Probe::Vxlan,
        ] {
            assert_eq!(system.probe(probe, &nothing), Outcome::Unknown, "{probe:?}");
        }
        let silent = Setting { rootlesskit: Some("/bin/false".into()), ..Setting::default() };
        let Outcome::Fails(text) = system.probe(Probe::Namespaces, &silent) else { panic!() };
        assert!(text.contains("/bin/false ended with exit status: 1"), "{text}");
        let echo = Setting { rootlesskit: Some("/bin/true".into()), ..Setting::default() };
        assert_eq!(system.probe(Probe::Namespaces, &echo), Outcome::Works);
        let missing = Setting { rootlesskit: Some("/nonexistent".into()), ..Setting::default() };
        assert!(matches!(system.probe(Probe::Namespaces, &missing), Outcome::Fails(_)));
        let answer = system.ask(Path::new("/bin/echo"), "hello");
        assert_eq!(answer.as_deref().map(str::trim), Ok("hello"));
        let none = system.ask(Path::new("/nonexistent"), "hello").unwrap_err();
        assert!(none.contains("cannot run `/nonexistent hello`"), "{none}");
    }
}
