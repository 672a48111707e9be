//! What was asked for.

use std::ffi::OsString;
use std::net::IpAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};

use crate::ctl::stats::duration;

/// The largest file unless another size is asked for.
const MAX_SIZE: &str = "100M";
/// The smallest size that can be asked for, so that a packet of any length fits, with what stands around the packets.
const LEAST_SIZE: u64 = 128 << 10;
const SIZES: &str = "at least 128K, such as 500K or 2G, or none";
const TIMES: &str = "a number of seconds, or a duration such as 5m";
/// A limit that is none.
const NONE: &str = "none";

#[derive(Debug, PartialEq, Eq)]
pub(super) struct Options {
    pub(super) container: Option<String>,
    pub(super) hosts: Vec<IpAddr>,
    pub(super) ports: Vec<u16>,
    pub(super) to: To,
    /// Bytes of the file.
    pub(super) max_size: Option<u64>,
    pub(super) max_time: Option<Duration>,
    pub(super) max_packets: Option<u64>,
    /// Bytes of a packet.
    pub(super) snaplen: Option<u32>,
}

/// Where packets are written to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum To {
    /// A file that is made.
    File(PathBuf),
    /// Standard output.
    Output,
}

/// The flags, for help and man page.
pub(in crate::ctl) fn flags(command: Command) -> Command {
    let flag = |name: &'static str, value: &'static str, text: &'static str| {
        Arg::new(name).long(name).value_name(value).help(text)
    };
    command
        .arg(flag(
            "container",
            "NAME",
            "Capture the packets of this container; they show its own address. NAME is a name or ID, or an IP address \
             [default: all packets on the interface that leads out of the namespace]",
        ))
        .arg(
            flag("host", "ADDR", "Capture only packets from or to this IP address (repeatable)")
                .action(ArgAction::Append),
        )
        .arg(
            flag("port", "N", "Capture only packets from or to this port of TCP, UDP or SCTP (repeatable)")
                .action(ArgAction::Append),
        )
        .arg(
            flag("write", "FILE", "Write to this new file, or to standard output if FILE is -")
                .short('w')
                .value_parser(value_parser!(OsString)),
        )
        .arg(flag(
            "max-size",
            "SIZE",
            "Stop before the file becomes larger than SIZE bytes, such as 500K or 2G; \"none\" means no limit [default: 100M; none for \
             standard output]",
        ))
        .arg(flag("max-time", "TIME", "Stop after TIME, a number of seconds or a duration such as 5m"))
        .arg(flag("max-packets", "N", "Stop after N packets").short('c'))
        .arg(flag("snaplen", "BYTES", "Write at most the first BYTES bytes of each packet"))
}

impl Options {
    /// `screen`: whether standard output is a terminal.
    pub(super) fn new(
        matches: &ArgMatches,
        arguments: &[OsString],
        screen: bool,
    ) -> anyhow::Result<Self> {
        if let Some(argument) = arguments.first() {
            bail!(
                "unexpected argument {argument:?}: capture takes no arguments\n\
                 hint: write to a file with -w FILE"
            );
        }
        let to = to(matches.get_one::<OsString>("write"), screen)?;
        let max_size = match (value(matches, "max-size"), &to) {
            (Some(NONE), _) | (None, To::Output) => None,
            (given, _) => Some(read("max-size", given.unwrap_or(MAX_SIZE), SIZES, size)?),
        };
        let container = value(matches, "container").map(str::to_owned);
        ensure!(
            container.as_deref() != Some(""),
            "invalid value \"\" for --container: must be a name"
        );
        Ok(Self {
            container,
            hosts: list(matches, "host", "an IP address", |text| text.parse().ok())?,
            ports: list(matches, "port", "a number from 1 to 65535", positive)?,
            to,
            max_size,
            max_time: optional(matches, "max-time", TIMES, time)?,
            max_packets: optional(matches, "max-packets", "a number from 1 on", positive)?,
            snaplen: optional(matches, "snaplen", "a number from 14 to 262144", snaplen)?,
        })
    }
}

fn to(file: Option<&OsString>, screen: bool) -> anyhow::Result<To> {
    const HINT: &str = "hint: write to a file with -w FILE, or add: -w - | tshark -r -";
    match file {
        Some(file) if file.is_empty() => {
            bail!("invalid value \"\" for --write: must be a file, or -")
        }
        Some(file) if file != "-" => Ok(To::File(file.into())),
        Some(_) if screen => bail!("cannot write packets to a terminal\n{HINT}"),
        None if screen => bail!("no output specified\n{HINT}"),
        Some(_) | None => Ok(To::Output),
    }
}

fn value<'a>(matches: &'a ArgMatches, flag: &str) -> Option<&'a str> {
    matches.get_one::<String>(flag).map(String::as_str)
}

fn optional<T>(
    matches: &ArgMatches,
    flag: &str,
    must: &str,
    parse: impl Fn(&str) -> Option<T>,
) -> anyhow::Result<Option<T>> {
    value(matches, flag).map(|text| read(flag, text, must, parse)).transpose()
}

fn list<T>(
    matches: &ArgMatches,
    flag: &str,
    must: &str,
    parse: impl Fn(&str) -> Option<T>,
) -> anyhow::Result<Vec<T>> {
    let all = matches.get_many::<String>(flag).into_iter().flatten();
    all.map(|text| read(flag, text, must, &parse)).collect()
}

fn read<T>(
    flag: &str,
    text: &str,
    must: &str,
    parse: impl Fn(&str) -> Option<T>,
) -> anyhow::Result<T> {
    parse(text).with_context(|| format!("invalid value {text:?} for --{flag}: must be {must}"))
}

fn positive<T: FromStr + Default + PartialOrd>(text: &str) -> Option<T> {
    text.parse().ok().filter(|number| *number > T::default())
}

fn time(text: &str) -> Option<Duration> {
    duration(text).filter(|time| *time >= Duration::from_millis(1))
}

/// The Ethernet header at least, and no more than tcpdump(1) takes.
fn snaplen(text: &str) -> Option<u32> {
    text.parse().ok().filter(|length| (14..=262_144).contains(length))
}

/// Bytes, or powers of 1024 of them with a letter.
fn size(text: &str) -> Option<u64> {
    let (number, shift) = match text.as_bytes().last()?.to_ascii_uppercase() {
        b'K' => (&text[..text.len() - 1], 10),
        b'M' => (&text[..text.len() - 1], 20),
        b'G' => (&text[..text.len() - 1], 30),
        _ => (text, 0),
    };
    let size = number.parse::<u64>().ok()?.checked_mul(1 << shift)?;
    Some(size).filter(|size| *size >= LEAST_SIZE)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(args: &[&str], screen: bool) -> Result<Options, String> {
        let definition = flags(Command::new("capture"));
        let args: Vec<OsString> = args.iter().map(OsString::from).collect();
        let mut normalized = goflags::normalize(&definition, args).unwrap();
        let rest = std::mem::take(&mut normalized.rest);
        let matches = definition.try_get_matches_from(normalized.to_clap_args("capture")).unwrap();
        Options::new(&matches, &rest, screen).map_err(|error| format!("{error:#}"))
    }

    #[test]
    fn everything_can_be_asked_for() {
        let all = "--container web --host 192.0.2.1 --host fd00::1 --port 80 --port=443 -w x.pcapng \
                   --max-size 2G --max-time 1m30s -c 7 --snaplen 96";
        let found = options(&all.split_whitespace().collect::<Vec<_>>(), true).unwrap();
        let expected = Options {
            container: Some("web".into()),
            hosts: vec!["192.0.2.1".parse().unwrap(), "fd00::1".parse().unwrap()],
            ports: vec![80, 443],
            to: To::File("x.pcapng".into()),
            max_size: Some(2 << 30),
            max_time: Some(Duration::from_secs(90)),
            max_packets: Some(7),
            snaplen: Some(96),
        };
        assert_eq!(found, expected);
    }

    #[test]
    fn files_have_a_limit_and_standard_output_has_none() {
        let size = |args: &[&str]| options(args, false).unwrap().max_size;
        assert_eq!(size(&["-w", "x"]), Some(100 << 20));
        assert_eq!(size(&["-w", "x", "--max-size=none"]), None);
        assert_eq!(size(&["-w", "x", "--max-size=131072"]), Some(131_072));
        assert_eq!(size(&["-w", "-"]), None);
        assert_eq!(size(&["-w", "-", "--max-size", "500k"]), Some(500 << 10));
    }

    #[test]
    fn packets_go_to_standard_output_unless_that_is_a_terminal() {
        assert_eq!(options(&[], false).unwrap().to, To::Output);
        assert_eq!(options(&["-w", "-"], false).unwrap().to, To::Output);
        for (args, text) in [(&[][..], "no output"), (&["-w", "-"], "to a terminal")] {
            let error = options(args, true).unwrap_err();
            assert!(error.contains(text) && error.contains("| tshark -r -"), "{error}");
        }
    }

    #[test]
    fn bad_values_are_named_with_what_they_must_be() {
        for args in [
            &["--port", "0"][..],
            &["--port", "65536"],
            &["--port", "80-90"],
            &["--host", "example.com"],
            &["--max-size", "127K"],
            &["--max-size", "17179869184G"],
            &["--max-size", ""],
            &["--max-time", "soon"],
            &["--max-time", "0"],
            &["-c", "0"],
            &["--snaplen", "13"],
            &["--container", ""],
            &["--write", ""],
        ] {
            let error = options(args, false).unwrap_err();
            let value = format!("invalid value {:?} for --", args[1]);
            assert!(error.contains(&value) && error.contains("must be "), "{args:?}: {error}");
        }
        let error = options(&["x.pcapng"], false).unwrap_err();
        assert!(error.contains("\"x.pcapng\"") && error.contains("-w FILE"), "{error}");
    }
}
