//! Which network driver to use if the user names none. The launcher and the setup tool must come to the same answer.
//!
//! # Theory of operation
//! First comes the driver `gateway`, which needs no program: whether the kernel lets the user have one is found out by
//! trying ([`GATEWAY_PROBE`]), which costs a start of rootlesskit. A rootlesskit whose help does not mention it is not
//! asked. What follows is the chain of Docker's own launcher ([`by_programs`]): slirp4netns (0.4.0 or later, told by its
//! help), pasta, VPNKit, and last the gvisor-tap-vsock stack inside rootlesskit. Two links are stronger here: pasta must
//! be recent enough to work under RootlessKit (bookworm's 2023_03 is not), and the last link is used only with a
//! rootlesskit that has such a stack.

use std::path::{Path, PathBuf};

use crate::{NetworkDriver, PortDriver};

/// Arguments with which rootlesskit tells by its exit status whether the driver works here, and on standard error why
/// not (see [`crate::Reason`]).
pub const GATEWAY_PROBE: [&str; 5] =
    ["--net=gateway", "--disable-host-loopback", "--copy-up=/etc", "--copy-up=/run", "true"];

/// Year, month, day.
type Date = (u32, u32, u32);

/// The oldest pasta that RootlessKit's documentation allows.
const PASTA_SINCE: Date = (2023, 6, 25);
/// Every pasta since then knows one of these options, and none before. The first is deprecated by now.
const PASTA_OPTIONS: [&str; 2] = ["--no-copy-routes", "--map-host-loopback"];

/// Finds programs and asks them about themselves.
pub trait Machine {
    /// The executable that this name starts.
    fn find(&self, program: &str) -> Option<PathBuf>;

    /// What a program prints, on either stream, when it is run with this argument. Its exit status does not count: old
    /// tools fail after printing their help.
    ///
    /// # Errors
    /// Why there is no answer.
    fn ask(&self, program: &Path, arg: &str) -> Result<String, String>;
}

/// Whether to try the gateway: the help of rootlesskit names it, and a port driver that the user named (if any) goes with
/// it.
pub fn may_use_gateway(help: &str, port_driver: Option<&str>) -> bool {
    let suits = |name| {
        PortDriver::from_name(name).is_some_and(|ports| NetworkDriver::Gateway.goes_with(ports))
    };
    port_driver.is_none_or(suits) && has_gateway(help)
}

/// Whether this is the help of a rootlesskit with the gateway network.
pub fn has_gateway(help: &str) -> bool {
    help.contains(NetworkDriver::Gateway.name())
}

/// A driver, and what was found out about the helpers of those before it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Choice {
    /// `None` if this machine can serve none.
    pub driver: Option<NetworkDriver>,
    /// In the order in which the programs were asked.
    pub helpers: Vec<(NetworkDriver, Helper)>,
}

impl Choice {
    /// What is odd about the helpers, a line each.
    pub fn remarks(&self) -> impl Iterator<Item = String> {
        self.helpers.iter().filter_map(|(_, helper)| helper.remark())
    }
}

/// The helper of a driver, and whether it is of any use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Helper {
    /// There is no such program.
    Absent,
    /// It can be used.
    Fit,
    /// It is used without knowing its age.
    NoVersion(PathBuf),
    /// It runs, but is too old: in which way.
    TooOld(PathBuf, String),
    /// It does not even tell its version: what it does instead.
    Broken(PathBuf, String),
}

impl Helper {
    /// Whether the launcher uses it.
    pub fn is_used(&self) -> bool {
        matches!(self, Self::Fit | Self::NoVersion(_))
    }

    /// What is odd about it, if anything.
    pub fn remark(&self) -> Option<String> {
        Some(match self {
            Self::Absent | Self::Fit => return None,
            Self::NoVersion(program) => format!(
                "cannot determine the version of {}; assuming that it is recent",
                program.display()
            ),
            Self::TooOld(program, why) | Self::Broken(program, why) => {
                format!("not using {}: {why}", program.display())
            }
        })
    }

    /// What makes this driver usable; `None` if its helper can be used.
    pub fn remedy(&self, driver: NetworkDriver) -> Option<String> {
        let (package, since) = match driver {
            NetworkDriver::Pasta => ("passt", "2023_06_25"),
            NetworkDriver::Slirp4netns => ("slirp4netns", "0.4.0"),
            _ => return None,
        };
        match self {
            Self::Fit | Self::NoVersion(_) => None,
            Self::Absent => Some(format!("install {driver} {since} or later (package {package})")),
            Self::TooOld(program, _) => {
                Some(format!("upgrade {} to {since} or later", program.display()))
            }
            Self::Broken(program, _) => Some(format!(
                "install {driver} again (package {package}), because {} does not run",
                program.display()
            )),
        }
    }
}

/// Chooses among the drivers other than the gateway. `help` is what `rootlesskit --help` prints.
pub fn by_programs(machine: &dyn Machine, help: &str) -> Choice {
    let mut helpers = Vec::new();
    let used = [NetworkDriver::Slirp4netns, NetworkDriver::Pasta].into_iter().find(|driver| {
        let helper = self::helper(machine, *driver);
        let used = helper.is_used();
        helpers.push((*driver, helper));
        used
    });
    let driver = used.or_else(|| {
        if machine.find("vpnkit").is_some() {
            return Some(NetworkDriver::Vpnkit);
        }
        let gvisor = NetworkDriver::GvisorTapVsock;
        // A rootlesskit with the gateway serves that name by it, and would have used it if it worked.
        (help.contains(gvisor.name()) && !has_gateway(help)).then_some(gvisor)
    });
    Choice { driver, helpers }
}

/// What can be said of the helper of slirp4netns or pasta; others are not asked, and count as absent.
pub fn helper(machine: &dyn Machine, driver: NetworkDriver) -> Helper {
    match driver {
        NetworkDriver::Slirp4netns => slirp4netns(machine),
        NetworkDriver::Pasta => pasta(machine),
        _ => Helper::Absent,
    }
}

fn slirp4netns(machine: &dyn Machine) -> Helper {
    let Some(program) = machine.find("slirp4netns") else { return Helper::Absent };
    match machine.ask(&program, "--help") {
        Ok(help) if help.contains("--netns-type") => Helper::Fit,
        Ok(help) if is_usage(&help) => Helper::TooOld(program, "it is older than 0.4.0".to_owned()),
        answer => broken(program, "--help", answer),
    }
}

fn pasta(machine: &dyn Machine) -> Helper {
    let Some(program) = machine.find("pasta") else { return Helper::Absent };
    match machine.ask(&program, "--version") {
        Ok(text) => {
            let help = || machine.ask(&program, "--help").unwrap_or_default();
            match (version_line(&text).map(date_in), pasta_too_old(&text, help)) {
                (_, Some(why)) => Helper::TooOld(program, why),
                (Some(Some(_)), None) => Helper::Fit,
                // Built from a source archive without version: better than no network at all.
                (Some(None), None) => Helper::NoVersion(program),
                (None, None) => broken(program, "--version", Ok(text)),
            }
        }
        Err(e) => broken(program, "--version", Err(e)),
    }
}

/// Why RootlessKit needs a later pasta than the one that answers `version` to `--version`, if it does. `help` asks for
/// what it prints with `--help`.
pub fn pasta_too_old(version: &str, help: impl FnOnce() -> String) -> Option<String> {
    let needed = "but RootlessKit needs 2023_06_25 or later";
    match version_line(version).map(date_in) {
        Some(Some(date @ (year, month, day))) if date < PASTA_SINCE => {
            Some(format!("it is version {year:04}_{month:02}_{day:02}, {needed}"))
        }
        // That of Debian 12 says "unknown version".
        Some(None) => {
            let help = help();
            let old = is_usage(&help) && !PASTA_OPTIONS.iter().any(|option| help.contains(option));
            old.then(|| format!("it does not know {}, {needed}", PASTA_OPTIONS[0]))
        }
        // The first releases had no such option.
        None if is_usage(version) => Some(format!("it does not know --version, {needed}")),
        _ => None,
    }
}

/// Whether a program told how it is used, in vain or not: then it runs. One whose libraries are missing, for instance,
/// prints something else.
fn is_usage(text: &str) -> bool {
    text.to_ascii_lowercase().contains("usage:")
}

fn broken(program: PathBuf, arg: &str, answer: Result<String, String>) -> Helper {
    let what = answer.map_or_else(
        |error| error,
        |text| {
            let last = text.lines().map(str::trim).rfind(|line| !line.is_empty());
            last.unwrap_or("it printed nothing").to_owned()
        },
    );
    Helper::Broken(program, format!("running it with {arg} failed: {what}"))
}

/// The line in which passt's programs tell their version.
fn version_line(output: &str) -> Option<&str> {
    output.lines().find(|line| line.starts_with("pasta ") || line.starts_with("passt "))
}

/// The first date in a line: passt has no other version. Upstream writes `2023_06_25.32660ce`, Debian
/// `0.0~git20230309.7c7625d-1+deb12u1`, Fedora `0^20240426.gd03c4e2-1.fc40`.
fn date_in(line: &str) -> Option<Date> {
    let line = line.replace('_', "");
    let runs = line.split(|c: char| !c.is_ascii_digit()).filter(|run| run.len() == 8);
    let mut dates = runs.filter_map(|run| {
        Some((run[..4].parse().ok()?, run[4..6].parse().ok()?, run[6..].parse().ok()?))
    });
    dates.find(|(y, m, d)| (2020..2100).contains(y) && (1..=12).contains(m) && (1..=31).contains(d))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::cell::RefCell;

    const NEW_SLIRP: &str =
        "Usage: slirp4netns [OPTION]...\n--netns-type=TYPE specify network namespace type";
    const OLD_SLIRP: &str = "Usage: slirp4netns [OPTION]...\n-c, --configure";
    const NEW_PASTA: &str = "pasta 2024_12_11.09478d5\nCopyright Red Hat";
    const BOOKWORM_PASTA: &str = "pasta 0.0~git20230309.7c7625d-1+deb12u1\nCopyright Red Hat";
    const HELP: &str = "--net value  [host, none, pasta, slirp4netns]";

    /// Programs in `/bin` and their answers; `None` does not answer.
    struct Fake<'a> {
        programs: &'a [(&'a str, Option<&'a str>)],
        asked: RefCell<Vec<String>>,
    }

    impl Machine for Fake<'_> {
        fn find(&self, program: &str) -> Option<PathBuf> {
            let known = self.programs.iter().any(|(name, _)| *name == program);
            known.then(|| Path::new("/bin").join(program))
        }

        fn ask(&self, program: &Path, arg: &str) -> Result<String, String> {
            let name = program.file_name().unwrap().to_str().unwrap();
            self.asked.borrow_mut().push(format!("{name} {arg}"));
            let (_, answer) = self.programs.iter().find(|(n, _)| *n == name).unwrap();
            answer.map(str::to_owned).ok_or_else(|| "timed out".to_owned())
        }
    }

    /// The choice, the remarks and the questions.
    fn chosen(
        help: &str,
        programs: &[(&str, Option<&str>)],
    ) -> (Option<NetworkDriver>, String, Vec<String>) {
        let fake = Fake { programs, asked: RefCell::default() };
        let choice = by_programs(&fake, help);
        let remarks = choice.remarks().map(|remark| format!("{remark}\n")).collect();
        (choice.driver, remarks, fake.asked.into_inner())
    }

    #[test]
    fn slirp4netns_comes_first() {
        let all =
            [("vpnkit", Some("")), ("pasta", Some(NEW_PASTA)), ("slirp4netns", Some(NEW_SLIRP))];
        let (driver, remarks, asked) = chosen(HELP, &all);
        assert_eq!((driver, remarks.as_str()), (Some(NetworkDriver::Slirp4netns), ""));
        assert_eq!(asked, ["slirp4netns --help"]);
    }

    #[test]
    fn an_old_or_broken_slirp4netns_is_passed_over() {
        let pasta = ("pasta", Some(NEW_PASTA));
        let (driver, remarks, _) = chosen(HELP, &[("slirp4netns", Some(OLD_SLIRP)), pasta]);
        assert_eq!(driver, Some(NetworkDriver::Pasta));
        assert_eq!(remarks, "not using /bin/slirp4netns: it is older than 0.4.0\n");
        let (driver, remarks, _) = chosen(HELP, &[("slirp4netns", None), pasta]);
        assert_eq!(driver, Some(NetworkDriver::Pasta));
        assert!(remarks.contains("running it with --help failed: timed out"), "{remarks}");
    }

    #[test]
    fn a_helper_that_does_not_run_is_not_called_old_or_used() {
        let library =
            "error while loading shared libraries: libslirp.so.0: cannot open shared object file";
        fn state(driver: NetworkDriver, answer: Option<&str>) -> Helper {
            let programs = [(driver.name(), answer)];
            helper(&Fake { programs: &programs, asked: RefCell::default() }, driver)
        }
        for (driver, arg) in
            [(NetworkDriver::Slirp4netns, "--help"), (NetworkDriver::Pasta, "--version")]
        {
            let program = Path::new("/bin").join(driver.name());
            let said = format!("\n{}: {library}\n", program.display());
            for (answer, what) in [
                (Some(said.as_str()), said.trim()),
                (Some("\n"), "it printed nothing"),
                (None, "timed out"),
            ] {
                let why = format!("running it with {arg} failed: {what}");
                let state = state(driver, answer);
                assert_eq!(state, Helper::Broken(program.clone(), why));
                assert!(!state.is_used());
                let remedy = state.remedy(driver).unwrap();
                assert!(remedy.starts_with(&format!("install {driver} again (")), "{remedy}");
            }
            let state = state(driver, Some("unrecognized option\nUsage: x [OPTION]...\n"));
            assert!(matches!(state, Helper::TooOld(..)), "{state:?}");
            let remedy = state.remedy(driver).unwrap();
            assert!(remedy.starts_with(&format!("upgrade /bin/{driver} to ")), "{remedy}");
        }
        let warned = format!("cannot set something\n{NEW_PASTA}");
        assert_eq!(state(NetworkDriver::Pasta, Some(&warned)), Helper::Fit);
    }

    #[test]
    fn pasta_must_be_recent() {
        let programs = [("pasta", Some(BOOKWORM_PASTA)), ("vpnkit", Some(""))];
        let (driver, remarks, _) = chosen(HELP, &programs);
        assert_eq!(driver, Some(NetworkDriver::Vpnkit));
        assert!(remarks.contains("it is version 2023_03_09"), "{remarks}");
        let (driver, remarks, _) = chosen(HELP, &[("pasta", Some("pasta unknown version"))]);
        assert_eq!(driver, Some(NetworkDriver::Pasta));
        assert!(remarks.contains("cannot determine the version of /bin/pasta"), "{remarks}");
        let usage = "pasta unknown version\nUsage: pasta [OPTION]...\n  --config-net";
        let (driver, remarks, asked) = chosen(HELP, &[("pasta", Some(usage))]);
        assert_eq!(driver, None);
        assert!(remarks.contains("it does not know --no-copy-routes"), "{remarks}");
        assert_eq!(asked, ["pasta --version", "pasta --help"]);
        let recent = format!("{usage}\n  --no-copy-routes");
        assert_eq!(chosen(HELP, &[("pasta", Some(&recent))]).0, Some(NetworkDriver::Pasta));
        assert_eq!(chosen(HELP, &[("pasta", None)]).0, None);
    }

    #[test]
    fn vpnkit_then_the_stack_inside_rootlesskit() {
        assert_eq!(chosen(HELP, &[("vpnkit", Some(""))]).0, Some(NetworkDriver::Vpnkit));
        assert_eq!(chosen(HELP, &[("docker-vpnkit", Some(""))]).0, None);
        let help = "--net value  [host, none, vpnkit, gvisor-tap-vsock]";
        assert_eq!(chosen(help, &[]).0, Some(NetworkDriver::GvisorTapVsock));
        assert_eq!(chosen(help, &[("vpnkit", Some(""))]).0, Some(NetworkDriver::Vpnkit));
        let ours = "--net value  [host, none, gateway, gvisor-tap-vsock]";
        assert_eq!(chosen(ours, &[]).0, None, "the gateway by another name");
    }

    #[test]
    fn the_gateway_needs_a_rootlesskit_that_has_it_and_a_port_driver_that_suits() {
        let help = "--net value  [host, none, gateway, slirp4netns]";
        for (help, port_driver, expected) in [
            (help, None, true),
            (HELP, None, false),
            ("", None, false),
            (help, Some("gateway"), true),
            (help, Some("builtin"), true),
            (help, Some("none"), true),
            (help, Some("slirp4netns"), false),
            (help, Some("implicit"), false),
            (HELP, Some("builtin"), false),
        ] {
            assert_eq!(may_use_gateway(help, port_driver), expected, "{help} {port_driver:?}");
        }
    }

    #[test]
    fn dates_of_known_builds() {
        assert_eq!(date_in(NEW_PASTA), Some((2024, 12, 11)));
        assert_eq!(date_in(BOOKWORM_PASTA), Some((2023, 3, 9)));
        assert_eq!(date_in("pasta 0^20240426.gd03c4e2-1.fc40.x86_64"), Some((2024, 4, 26)));
        assert_eq!(date_in("pasta 2023_06_25.20209999"), Some((2023, 6, 25)));
        assert_eq!(date_in("pasta unknown version"), None);
        assert_eq!(date_in("pasta 20991399"), None);
        assert_eq!(date_in(""), None);
    }

    proptest! {
        #[test]
        fn no_version_text_is_a_panic(text in any::<String>()) {
            let _ = date_in(&text);
        }
    }
}
