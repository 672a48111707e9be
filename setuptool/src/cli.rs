//! What was typed. Options may come before or after the command and may be shortened while they stay unambiguous,
//! as with getopt(1), which the shell tool used.
//!
//! What follows `nsenter` belongs to the program that is to be run, options included; a `--` in front of it, which
//! the shell tool needed, is dropped.

use std::ffi::{OsStr, OsString};

use clap::ArgMatches;
use setuptool::command;

use crate::purge;
use crate::supervise::Choice;
use crate::swarm;
use doctor::supervisor::Kind;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Verb {
    Check,
    Install,
    Uninstall,
    /// Run a program, by default the shell, in the daemon's namespaces.
    Nsenter(Vec<OsString>),
    /// Keep the daemon running, in the foreground; or run it once, for another supervisor.
    Supervise {
        once: bool,
    },
    /// Print the AppArmor profile for rootlesskit, or as root write and load it; for the rootlesskit that is named.
    Apparmor(Option<OsString>),
    /// Delete directories of the daemon, in the user's namespace; `uninstall --purge` calls it.
    Delete(Vec<OsString>),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Cli {
    pub(crate) verb: Verb,
    pub(crate) force: bool,
    pub(crate) skip_iptables: bool,
    pub(crate) json: bool,
    pub(crate) purge: bool,
    /// systemd listens, and the first connection starts the daemon.
    pub(crate) socket: bool,
    /// Something other than systemd keeps the daemon running.
    pub(crate) supervise: Option<Choice>,
    /// The daemon is to be a node of a swarm, or no longer.
    pub(crate) swarm: Option<swarm::Choice>,
    /// Say what would be written into this file, and change nothing.
    pub(crate) print: Option<OsString>,
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Stop {
    Help(String),
    /// An option is wrong; the message for standard error and the help for standard output.
    Usage(String, String),
    Command(String),
}

/// Understands the arguments, without the program's name.
pub(crate) fn parse(args: &[OsString]) -> Result<Cli, Stop> {
    let (ours, theirs) = split_at_nsenter(args);
    let matches = command()
        .no_binary_name(true)
        .try_get_matches_from(ours)
        .map_err(|_| Stop::Usage(wrong_options(ours), help()))?;
    if matches.get_flag("help") {
        let first = matches.get_many::<OsString>("words").and_then(|mut words| words.next());
        let of_command = first.and_then(|word| setuptool::help_of(word.to_str()?));
        return Err(Stop::Help(of_command.unwrap_or_else(help)));
    }
    let verb = verb(&matches, theirs)?;
    let swarm = matches.get_one::<OsString>("swarm").map(|value| value.to_string_lossy());
    let cli = Cli {
        force: matches.get_flag("force"),
        skip_iptables: matches.get_flag("skip-iptables"),
        json: matches.get_flag("json"),
        purge: matches.get_flag("purge"),
        socket: matches.get_flag("socket"),
        supervise: matches
            .get_one::<String>("supervise")
            .map(|name| Kind::from_name(name).map_or(Choice::Auto, Choice::Named)),
        swarm: swarm
            .map(|value| swarm::Choice::parse(&value))
            .transpose()
            .map_err(Stop::Command)?,
        print: matches.get_one::<OsString>("print").cloned(),
        verb,
    };
    for (given, name, wanted, right) in [
        (cli.json, "--json", "check", cli.verb == Verb::Check),
        (cli.purge, "--purge", "uninstall", cli.verb == Verb::Uninstall),
        (cli.socket, "--socket", "install", cli.verb == Verb::Install),
        (cli.supervise.is_some(), "--supervise", "install", cli.verb == Verb::Install),
        (cli.swarm.is_some(), "--swarm", "install", cli.verb == Verb::Install),
        (
            cli.print.is_some(),
            "--print",
            "install or apparmor",
            matches!(cli.verb, Verb::Install | Verb::Apparmor(_)),
        ),
    ] {
        if given && !right {
            return Err(Stop::Usage(format!("{name} is only valid with {wanted}"), help()));
        }
    }
    Ok(cli)
}

fn verb(matches: &ArgMatches, theirs: Option<&[OsString]>) -> Result<Verb, Stop> {
    if let Some(words) = theirs {
        return Ok(Verb::Nsenter(words.to_vec()));
    }
    let mut words = matches.get_many::<OsString>("words").unwrap_or_default();
    match words.next().map(|word| word.to_string_lossy()).as_deref() {
        Some("check") => Ok(Verb::Check),
        Some("install") => Ok(Verb::Install),
        Some("uninstall") => Ok(Verb::Uninstall),
        Some("nsenter") => Ok(Verb::Nsenter(words.cloned().collect())),
        Some("supervise") => match words.next().map(|word| word.to_string_lossy()).as_deref() {
            None => Ok(Verb::Supervise { once: false }),
            Some("once") => Ok(Verb::Supervise { once: true }),
            Some(word) => Err(Stop::Command(format!("unknown argument `{word}`: supervise accepts only `once`"))),
        },
        Some(purge::VERB) => Ok(Verb::Delete(words.cloned().collect())),
        Some("apparmor") => Ok(Verb::Apparmor(words.next().cloned())),
        Some(other) => Err(Stop::Command(format!(
            "unknown command `{other}`; use check, install, uninstall, nsenter, supervise or apparmor"
        ))),
        None => Err(Stop::Command(
            "no command was given. Run `dockerd-rootless-setuptool.sh install` to install, or `--help` to list all \
             commands"
                .to_owned(),
        )),
    }
}

/// Cuts at the first word if it is `nsenter`. No option takes a value without `=`, so the first word without a dash is a word.
/// `nsenter --help` asks for our help, since no program's name starts with a dash.
fn split_at_nsenter(args: &[OsString]) -> (&[OsString], Option<&[OsString]>) {
    let is_option = |arg: &OsString| arg.as_encoded_bytes().starts_with(b"-");
    let Some(at) = args.iter().position(|arg| !is_option(arg)) else { return (args, None) };
    let rest = &args[at + 1..];
    match rest.first().map(OsString::as_os_str) {
        _ if args[at] != "nsenter" || args[..at].iter().any(|arg| arg == "--") => (args, None),
        Some(first) if first == OsStr::new("--") => (&args[..at], Some(&rest[1..])),
        Some(first) if first.as_encoded_bytes().starts_with(b"-") => (args, None),
        _ => (&args[..at], Some(rest)),
    }
}

fn help() -> String {
    command().render_help().to_string()
}

/// Which options are unknown or ambiguous: those that are refused alone. (clap, built without its error texts to keep
/// the program small, does not tell.)
fn wrong_options(args: &[OsString]) -> String {
    let options = args.iter().take_while(|arg| *arg != "--");
    let refused =
        options.filter(|arg| command().no_binary_name(true).try_get_matches_from([arg]).is_err());
    let names: Vec<_> = refused.map(|arg| format!("`{}`", arg.to_string_lossy())).collect();
    format!("unknown or ambiguous option: {}", names.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> Result<Cli, Stop> {
        let args: Vec<OsString> = line.split_whitespace().map(OsString::from).collect();
        parse(&args)
    }

    #[test]
    fn options_permute_and_may_be_shortened() {
        for line in ["--force install", "install -f", "install --forc extra words", "-f -- install"]
        {
            let cli = parsed(line).unwrap();
            assert!(cli.force && cli.verb == Verb::Install, "{line}");
        }
        assert!(parsed("install --skip").unwrap().skip_iptables);
        assert!(parsed("check --json").unwrap().json);
        assert!(parsed("-f uninstall --purge -f").unwrap().purge);
    }

    #[test]
    fn supervisors_are_named_or_found() {
        assert_eq!(parsed("install").unwrap().supervise, None);
        for (line, choice) in [
            ("install --supervise", Choice::Auto),
            ("--superv install", Choice::Auto),
            ("install --supervise=plain", Choice::Named(Kind::Plain)),
            ("--supervise=s6 install --force", Choice::Named(Kind::S6)),
        ] {
            let cli = parsed(line).unwrap();
            assert_eq!((cli.verb, cli.supervise), (Verb::Install, Some(choice)), "{line}");
        }
        assert!(parsed("install --socket").unwrap().socket);
        assert_eq!(parsed("supervise").unwrap().verb, Verb::Supervise { once: false });
        assert_eq!(parsed("supervise once").unwrap().verb, Verb::Supervise { once: true });
        assert_eq!(parsed("apparmor").unwrap().verb, Verb::Apparmor(None));
        assert_eq!(parsed("apparmor /x").unwrap().verb, Verb::Apparmor(Some("/x".into())));
        for line in [
            "install --supervise=upstart",
            "check --supervise",
            "uninstall --socket",
            "install --su=x",
        ] {
            assert!(matches!(parsed(line), Err(Stop::Usage(..))), "{line}");
        }
    }

    #[test]
    fn a_node_of_a_swarm_has_an_address_and_peers() {
        let Ok(Cli { swarm: Some(swarm::Choice::Node(swarm)), .. }) =
            parsed("install --swarm=192.0.2.10,peers=192.0.2.7/24,data-path-port=5000")
        else {
            panic!()
        };
        assert_eq!(swarm.to_string(), "192.0.2.10,peers=192.0.2.0/24,data-path-port=5000");
        assert_eq!(parsed("install --swarm=").unwrap().swarm, Some(swarm::Choice::None));
        assert_eq!(parsed("install").unwrap().swarm, None);
        let Err(Stop::Command(text)) = parsed("install --swarm=192.0.2.10") else { panic!() };
        for part in ["\"192.0.2.10\"", "no peers=", "hint: use --swarm=ADDRESS,peers="] {
            assert!(text.contains(part), "{text}");
        }
        for line in ["install --swarm", "check --swarm=192.0.2.10,peers=192.0.2.0/24"] {
            assert!(matches!(parsed(line), Err(Stop::Usage(..))), "{line}");
        }
    }

    #[test]
    fn nsenter_takes_everything_behind_it() {
        let words = |line: &str| match parsed(line).unwrap().verb {
            Verb::Nsenter(words) => words.join(OsStr::new(" ")).into_string().unwrap(),
            other => panic!("{line}: {other:?}"),
        };
        assert_eq!(words("nsenter ip -4 a"), "ip -4 a");
        assert_eq!(words("nsenter -- ip -4 a"), "ip -4 a");
        assert_eq!(words("nsenter"), "");
        assert_eq!(words("-f nsenter ls --help -- -f"), "ls --help -- -f");
    }

    #[test]
    fn each_command_has_a_help_of_its_own() {
        let help = |line: &str| match parsed(line) {
            Err(Stop::Help(text)) => text,
            other => panic!("{line}: {other:?}"),
        };
        for (line, usage, has, lacks) in [
            ("--help", " [OPTIONS] COMMAND", "--purge", "--version"),
            ("check -h", " check [OPTIONS]", "--json", "--purge"),
            ("--help install", " install [OPTIONS]", "--socket", "--json"),
            ("uninstall --help", " uninstall [OPTIONS]", "--purge", "--force"),
            ("nsenter -h", " nsenter [PROGRAM", "--help", "--force"),
            ("supervise --help", " supervise [once]", "--help", "--force"),
            ("apparmor --help", " apparmor [OPTIONS] [BINARY]", "--print", "--socket"),
            ("frobnicate --help", " [OPTIONS] COMMAND", "nsenter", "--version"),
        ] {
            let text = help(line);
            for word in [usage, has, "/usr/share/doc/docker*-rootless-extras"] {
                assert!(text.contains(word), "{line}: no {word} in {text}");
            }
            assert!(!text.contains(lacks), "{line}: {text}");
        }
    }

    #[test]
    fn what_is_not_understood_says_so() {
        for line in ["--frobnicate install", "install --json", "check --purge"] {
            let Err(Stop::Usage(message, help)) = parsed(line) else { panic!("{line}") };
            assert!(message.contains('-') && help.contains("nsenter"), "{message}\n{help}");
        }
        let Err(Stop::Command(message)) = parsed("instal") else { panic!() };
        assert!(message.contains("`instal`"));
        let Err(Stop::Command(message)) = parsed("-f") else { panic!() };
        assert!(message.contains("install") && message.contains("--help"));
    }
}
