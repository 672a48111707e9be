//! The arguments that dockerd gives a userland proxy.

use std::ffi::OsString;

use anyhow::Context as _;
use clap::{Arg, Command, value_parser};

/// What to forward. A port that was not given is -1, an address empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Args {
    pub(crate) proto: String,
    pub(crate) host_ip: String,
    pub(crate) host_port: i64,
    pub(crate) container_ip: String,
    pub(crate) container_port: i64,
}

fn definition() -> Command {
    let text = |name: &'static str, default: &'static str, help: &'static str| {
        let arg = Arg::new(name).long(name).value_name("VALUE").help(help);
        arg.default_value(default).hide_default_value(default.is_empty())
    };
    let port = |name, help| {
        text(name, "-1", help).allow_negative_numbers(true).value_parser(value_parser!(i64))
    };
    Command::new("rootlesskit-docker-proxy")
        .about("Publishes a port on the host and starts docker-proxy for it (rootless Docker before version 28). dockerd starts this program; \
             do not run it yourself.")
        .disable_help_flag(true)
        .arg(text("proto", "tcp", "proxy protocol"))
        .arg(text("host-ip", "", "host IP"))
        .arg(port("host-port", "host port"))
        .arg(text("container-ip", "", "container IP"))
        .arg(port("container-port", "container port"))
}

/// The help text, if `-h` or `--help` asks for it. dockerd never does.
pub(crate) fn help(args: impl Iterator<Item = OsString>) -> Option<String> {
    let asked = matches!(goflags::normalize(&definition(), args), Err(goflags::FlagError::Help));
    asked.then(|| definition().render_help().to_string())
}

/// Reads Go-style flags: `-proto tcp`, `--proto=tcp`.
pub(crate) fn parse(args: impl Iterator<Item = OsString>) -> anyhow::Result<Args> {
    let normalized = goflags::normalize(&definition(), args).map_err(|error| match error {
        goflags::FlagError::Undefined(name) if name == "use-listen-fd" => anyhow::anyhow!(
            "{}\nhint: remove userland-proxy-path from the daemon's configuration; dockerd 28 and later must use docker-proxy directly",
            goflags::FlagError::Undefined(name)
        ),
        other => other.into(),
    })?;
    if let Some(extra) = normalized.rest.first() {
        anyhow::bail!("unexpected argument {extra:?}: only flags are accepted, such as -proto tcp");
    }
    let matches =
        definition().try_get_matches_from(normalized.to_clap_args("rootlesskit-docker-proxy"))?;
    let text = |name: &str| matches.get_one::<String>(name).cloned().context("no default");
    let port = |name: &str| matches.get_one::<i64>(name).copied().context("no default");
    Ok(Args {
        proto: text("proto")?,
        host_ip: text("host-ip")?,
        host_port: port("host-port")?,
        container_ip: text("container-ip")?,
        container_port: port("container-port")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(args: &[&str]) -> Result<Args, String> {
        parse(args.iter().map(OsString::from)).map_err(|error| error.to_string())
    }

    #[test]
    fn flags_are_go_flags() {
        let expected = Args {
            proto: "udp".into(),
            host_ip: "::".into(),
            host_port: 8080,
            container_ip: "172.17.0.2".into(),
            container_port: 80,
        };
        let dockerd =
            "-proto udp -host-ip :: -host-port 8080 -container-ip 172.17.0.2 -container-port 80";
        assert_eq!(read(&dockerd.split(' ').collect::<Vec<_>>()), Ok(expected.clone()));
        let other = "--container-port=80 --container-ip=172.17.0.2 -host-port=0x1f90 --host-ip :: -proto=udp";
        assert_eq!(read(&other.split(' ').collect::<Vec<_>>()), Ok(expected));
        let defaults = read(&[]).unwrap();
        assert_eq!(
            (defaults.proto.as_str(), defaults.host_port, defaults.container_port),
            ("tcp", -1, -1)
        );
    }

    #[test]
    fn help_is_given_to_those_who_ask_for_it() {
        let asks = |args: &[&str]| help(args.iter().map(OsString::from));
        for args in [&["--help"][..], &["-h"], &["-proto", "udp", "-help"]] {
            let text = asks(args).unwrap();
            assert!(text.contains("--container-port") && text.contains("dockerd"), "{text}");
        }
        assert_eq!([asks(&[]), asks(&["-proto", "-h"]), asks(&["tcp", "-h"])], [None, None, None]);
    }

    #[test]
    fn bad_flags_are_named() {
        for (args, token) in [
            (["-frob"].as_slice(), "flag provided but not defined: -frob"),
            (&["-proto"], "flag needs an argument: -proto"),
            (&["-host-port", "x"], "invalid value \"x\" for flag -host-port"),
            (&["tcp"], "unexpected argument \"tcp\""),
            (&["-use-listen-fd"], "hint: remove userland-proxy-path"),
        ] {
            let error = read(args).unwrap_err();
            assert!(error.contains(token), "{error}");
        }
    }
}
