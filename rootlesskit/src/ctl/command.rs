//! The definition of `rootlessctl`'s command line.

use std::ffi::OsString;

use clap::{Arg, ArgAction, Command, value_parser};

/// The command line as clap knows it; help, man page and completions come from it.
pub fn definition() -> Command {
    Command::new(super::NAME)
        .about("Control a running RootlessKit")
        .version(api::ROOTLESSKIT_VERSION)
        .disable_help_flag(true)
        .disable_version_flag(true)
        .disable_help_subcommand(true)
        .args_conflicts_with_subcommands(false)
        .arg(switch("debug", "No effect; accepted for compatibility"))
        .arg(
            Arg::new("socket")
                .long("socket")
                .value_name("PATH")
                .value_parser(value_parser!(OsString))
                .help("The API socket [default: $ROOTLESSKIT_STATE_DIR/api.sock]"),
        )
        .arg(help())
        .arg(switch("version", "Print the version").short('v'))
        .subcommand(
            command("list-ports", "List the published ports")
                .arg(json("Print a JSON object per port")),
        )
        .subcommand(
            command("add-ports", "Publish ports and print their IDs")
                .arg(json("Print a JSON object per port instead of its ID"))
                .arg(arguments("SPEC").help(
                    "PARENTIP:PARENTPORT[:CHILDIP]:CHILDPORT/PROTO[@CLIENTS], such as 0.0.0.0:8080:80/tcp. CLIENTS restricts the port to clients with these addresses, such as 10.9.0.0/24+192.0.2.7",
                )),
        )
        .subcommand(
            command("remove-ports", "Remove published ports and print their IDs")
                .arg(arguments("ID").help("IDs as printed by add-ports and list-ports")),
        )
        .subcommand(command("info", "Show the version, state directory and drivers of the running RootlessKit").arg(json("Print JSON")))
        .subcommand(flows())
        .subcommand(policy())
        .subcommand(
            command("stats", "Show traffic statistics (requires --net=gateway or --net=gvisor-tap-vsock)")
                .arg(json("Print a JSON object"))
                .arg(switch("openmetrics", "Print OpenMetrics text, for monitoring systems"))
                .arg(
                    Arg::new("by")
                        .long("by")
                        .value_name("WHAT")
                        .default_value(super::stats::BY[0])
                        .help(
                            "List traffic by destination, or by container (with the names that Docker reports); most bytes first",
                        ),
                )
                .arg(
                    Arg::new("watch")
                        .long("watch")
                        .value_name("INTERVAL")
                        .num_args(0..=1)
                        .require_equals(true)
                        .default_missing_value(super::stats::EVERY)
                        .help(
                            "Refresh every INTERVAL and show bytes per second; INTERVAL is a number of \
                             seconds, or a duration such as 500ms or 1m30s [default: 2s]",
                        ),
                ),
        )
        .subcommand(super::capture::flags(command(
            "capture",
            "Capture packets of the namespace, or of a container, for Wireshark (pcapng)",
        )))
}

fn flows() -> Command {
    command(
        "flows",
        "Show each connection when it ends (requires --net=gateway or --net=gvisor-tap-vsock)",
    )
    .arg(
        switch("follow", "Print connections as they end, until you press Ctrl-C (required)")
            .short('f'),
    )
    .arg(json("Print a JSON object per line"))
}

fn policy() -> Command {
    let file = "Test this egress policy file instead of the policy in force (repeatable)";
    command("policy", "Check, show or test the egress policy (enforced with --net=gateway or --net=gvisor-tap-vsock)")
        .disable_help_subcommand(true)
        .subcommand(
            command("check", "Check egress policy files, without a running RootlessKit")
                .arg(arguments("FILE").help("The files [default: the files that dockerd-rootless would use]")),
        )
        .subcommand(
            command("show", "Show the egress policy in force, and how often each rule matched")
                .arg(json("Print a JSON object")),
        )
        .subcommand(
            command("test", "Show whether a connection would be allowed, and which rule decides")
                .arg(value("from", "WHO", "The name of a container, an address, or \"daemon\" for traffic that does not come from a container"))
                .arg(value("to", "DESTINATION", "An address or a host name with a port, such as 192.0.2.7:443 or registry.example.org:443; without a port for icmp"))
                .arg(value("protocol", "PROTOCOL", "tcp, udp or icmp").default_value("tcp"))
                .arg(value("file", "FILE", file).action(ArgAction::Append)),
        )
}

fn value(name: &'static str, what: &'static str, text: &'static str) -> Arg {
    Arg::new(name).long(name).value_name(what).help(text)
}

fn command(name: &'static str, about: &'static str) -> Command {
    Command::new(name).about(about).disable_help_flag(true).arg(help())
}

fn help() -> Arg {
    switch("help", "Print this help").short('h')
}

fn json(text: &'static str) -> Arg {
    switch("json", text)
}

fn switch(name: &'static str, text: &'static str) -> Arg {
    Arg::new(name).long(name).action(ArgAction::SetTrue).help(text)
}

/// Only for the help: `goflags` leaves the arguments to the caller, who says what is missing in RootlessKit's words.
fn arguments(name: &'static str) -> Arg {
    Arg::new(name).num_args(0..).value_name(name)
}
