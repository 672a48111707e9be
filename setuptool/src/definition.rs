//! The definition of the set-up tool's command line, a library of its own: the tool parses with it, and packages make the
//! completions of shells from it.

use std::ffi::OsString;

use clap::{Arg, ArgAction, Command, ValueHint};

/// Where the documentation is: packages install it, tarballs do not.
const DOCUMENTATION: &str = "\
Documentation: man dockerd-rootless-setuptool, /usr/share/doc/docker*-rootless-extras,
               https://docs.docker.com/go/rootless/";

/// The definition with which the tool understands its arguments. Commands are words to it, because options may come
/// before and after them.
#[must_use]
pub fn command() -> Command {
    let switch = |name: &'static str, help: &'static str| {
        Arg::new(name).long(name).help(help).action(ArgAction::SetTrue)
    };
    Command::new("dockerd-rootless-setuptool.sh")
        .about("A setup tool for Rootless Docker (`dockerd-rootless.sh`).")
        .override_usage("dockerd-rootless-setuptool.sh [OPTIONS] COMMAND")
        .after_help(format!(
            "Commands:\n  \
             check        Check all prerequisites and print what is missing, why it matters, and how to fix it\n  \
             install      Install and start the systemd unit (on hosts with systemd), and switch the docker CLI to the daemon\n  \
             uninstall    Undo install\n  \
             nsenter      Run a program in the running daemon's namespaces (mostly for debugging)\n  \
             supervise    Run, in the foreground, the daemon that install --supervise set up, and restart it when it exits.\n               \
             \"supervise once\" runs it without restarting it, for service managers\n  \
             apparmor     Print the AppArmor profile that rootlesskit needs; as root, install and load it.\n               \
             apparmor BINARY creates the profile for the rootlesskit at that path\n\n\
             To show the options of one command, run: dockerd-rootless-setuptool.sh COMMAND --help\n\n\
             {DOCUMENTATION}",
        ))
        .disable_help_flag(true)
        .disable_version_flag(true)
        .infer_long_args(true)
        .args_override_self(true)
        .arg(switch("help", "Print this help").short('h'))
        .arg(
            switch(
                "force",
                "Continue even if rootful Docker is running (/var/run/docker.sock) or the RootlessKit trial run \
                 fails; with install, also replace files that you edited or that this tool did not write, and a CLI \
                 context \"rootless\" for another daemon (copies are kept)",
            )
            .short('f'),
        )
        .arg(switch(
            "skip-iptables",
            "Continue even if iptables is missing; the daemon then runs with --iptables=false",
        ))
        .arg(switch("json", "With check: print the findings as JSON"))
        .arg(switch(
            "purge",
            "With uninstall: also remove images, containers, volumes and state",
        ))
        .arg(switch(
            "socket",
            "With install: also create docker.socket, so that the first connection starts the daemon",
        ))
        .arg(
            Arg::new("supervise")
                .long("supervise")
                .value_name("BY")
                .help(
                    "With install, on hosts without systemd: keep the daemon running with openrc, runit, s6 or plain \
                     (this program); without a value, use the first one available",
                )
                .num_args(0..=1)
                .require_equals(true)
                .default_missing_value("auto")
                .value_parser(["auto", "openrc", "runit", "s6", "plain"]),
        )
        .arg(
            Arg::new("swarm")
                .long("swarm")
                .value_name(hostenv::swarm::FORM)
                .help(
                    "With install: prepare the daemon to be a node of a Docker swarm. ADDRESS is the address at which \
                     the other nodes reach this host. Each NETWORK is an address or a network of other nodes. An empty value removes the \
                     setting; without the option, install keeps it",
                )
                .num_args(1)
                .require_equals(true)
                .value_parser(clap::value_parser!(OsString)),
        )
        .arg(
            Arg::new("print")
                .long("print")
                .value_name("FILE")
                .help("With install or apparmor: print the text that the command would write into FILE, and change nothing")
                .num_args(1)
                .require_equals(true)
                .value_hint(ValueHint::FilePath)
                .value_parser(clap::value_parser!(OsString)),
        )
        .arg(
            Arg::new("words")
                .num_args(0..)
                .hide(true)
                .value_parser(clap::value_parser!(OsString)),
        )
}

/// The help of one command, with the options that it obeys; `None` if there is no such command.
#[must_use]
pub fn help_of(name: &str) -> Option<String> {
    let (arguments, about, options): (&str, &str, &[&str]) = match name {
        "check" => (
            "[OPTIONS]",
            "Check all prerequisites of rootless Docker, and print what is missing, why it matters, and how to fix it.\n\
             This changes nothing. The exit status is 1 if a finding is fatal.",
            &["json", "force", "skip-iptables"],
        ),
        "install" => (
            "[OPTIONS]",
            "Check the prerequisites, install and start the systemd unit, and switch the docker CLI to the daemon.\n\
             On hosts without systemd, install prints the command that starts the daemon, and installs no service unless you add --supervise.",
            &["socket", "supervise", "swarm", "print", "force", "skip-iptables"],
        ),
        "uninstall" => (
            "[OPTIONS]",
            "Stop the daemon, and remove the unit and the CLI context. Without --purge, this keeps images, containers \
             and volumes.",
            &["purge"],
        ),
        "nsenter" => (
            "[PROGRAM [ARGUMENT]...]",
            "Run a program in the running daemon's namespaces, mostly for debugging. Default: your shell.",
            &[],
        ),
        "supervise" => (
            "[once]",
            "Run, in the foreground, the daemon that install --supervise set up, and restart it when it exits.\n\
             \"supervise once\" runs it without restarting it, for service managers.",
            &[],
        ),
        "apparmor" => (
            "[OPTIONS] [BINARY]",
            "Print the AppArmor profile that rootlesskit needs; as root, install and load it.\n\
             BINARY is the path of rootlesskit. Default: rootlesskit in the same directory as this program, or in PATH.",
            &["print", "force"],
        ),
        _ => return None,
    };
    let all = own_words(name)
        .iter()
        .fold(command(), |all, (option, help)| all.mut_arg(*option, |arg| arg.help(*help)));
    let shown = |id: &str| id == "help" || options.contains(&id);
    let help = Command::new("dockerd-rootless-setuptool.sh")
        .about(about)
        .override_usage(format!("dockerd-rootless-setuptool.sh {name} {arguments}"))
        .after_help(DOCUMENTATION)
        .disable_help_flag(true)
        .args(all.get_arguments().filter(|arg| shown(arg.get_id().as_str())).cloned())
        .render_help();
    Some(help.to_string())
}

/// What options do with that command alone, where the general help says more.
fn own_words(name: &str) -> &'static [(&'static str, &'static str)] {
    match name {
        "check" => &[
            (
                "force",
                "Report rootful Docker and a failed RootlessKit trial run as warnings, as install --force treats them",
            ),
            (
                "skip-iptables",
                "Report missing iptables as a warning, as install --skip-iptables treats it",
            ),
            ("json", "Print the findings as JSON"),
        ],
        "install" => &[
            (
                "force",
                "Continue even if rootful Docker is running (/var/run/docker.sock) or the RootlessKit trial run fails, \
                 and replace files that you edited or that this tool did not write, and a CLI context \"rootless\" for \
                 another daemon (copies are kept)",
            ),
            ("socket", "Also create docker.socket, so that the first connection starts the daemon"),
            (
                "supervise",
                "On hosts without systemd: keep the daemon running with openrc, runit, s6 or plain (this program); \
                 without a value, use the first one available",
            ),
            (
                "swarm",
                "Prepare the daemon to be a node of a Docker swarm. ADDRESS is the address at which the other \
                 nodes reach this host. Each NETWORK is an address or a network of other nodes. An empty value removes the setting; without the option, install keeps it",
            ),
            ("print", "Print the text that install would write into FILE, and change nothing"),
        ],
        "uninstall" => &[("purge", "Also remove images, containers, volumes and state")],
        "apparmor" => &[
            (
                "force",
                "Install the profile even if this host does not need it, and replace a profile that you edited or that this \
                 tool did not write (a copy is kept)",
            ),
            (
                "print",
                "Print the profile and change nothing, even as root. FILE is the file in /etc/apparmor.d that apparmor \
                 would write",
            ),
        ],
        _ => &[],
    }
}

/// What people type, for completions: each command with the options that go with it.
#[must_use]
pub fn shown() -> Command {
    let all = command();
    let named =
        |name: &str| all.get_arguments().find(|arg| arg.get_id() == name).cloned().into_iter();
    let always = || ["help", "force", "skip-iptables"].into_iter().flat_map(named);
    let verb = |name: &'static str, about: &'static str, options: &[&str]| {
        let options = options.iter().flat_map(|name| named(name));
        Command::new(name).about(about).disable_help_flag(true).args(always()).args(options)
    };
    let word = |name: &'static str| Arg::new(name);
    Command::new("dockerd-rootless-setuptool.sh")
        .about("Set up rootless Docker for the calling user")
        .disable_help_flag(true)
        .disable_help_subcommand(true)
        .disable_version_flag(true)
        .args(always())
        .subcommands([
            verb("check", "Check all prerequisites", &["json"]),
            verb(
                "install",
                "Set up the daemon and start it",
                &["socket", "supervise", "swarm", "print"],
            ),
            verb("uninstall", "Undo install", &["purge"]),
            verb("nsenter", "Run a program in the daemon's namespaces", &[]).arg(
                word("command")
                    .num_args(0..)
                    .trailing_var_arg(true)
                    .value_hint(ValueHint::CommandWithArguments),
            ),
            verb("supervise", "Keep the daemon running, in the foreground", &[])
                .arg(word("once").value_parser(["once"])),
            verb(
                "apparmor",
                "Print the AppArmor profile, or as root install and load it",
                &["print"],
            )
            .arg(word("file").value_hint(ValueHint::FilePath)),
        ])
}
