//! Ports of the host's loopback that the namespace may reach although the rest is closed.

use std::fmt;
use std::ops::RangeInclusive;
use std::str::FromStr;

/// The most entries of a value.
const MOST: usize = 256;

/// The form of a value, for messages.
pub const FORM: &str = "PROTOCOL:PORT[-PORT][,...]";
/// A value, for messages.
pub const EXAMPLE: &str = "tcp:5432,tcp:8000-8010,udp:53";

/// A value of `--host-loopback-allow`, such as `tcp:5432,tcp:8000-8010,udp:53`: at least one port.
///
/// The ranges of each protocol are in ascending order, and there is at least one port between two of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoopbackPorts {
    /// Ports of TCP.
    pub tcp: Vec<RangeInclusive<u16>>,
    /// Ports of UDP.
    pub udp: Vec<RangeInclusive<u16>>,
}

/// Why a value was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LoopbackPortsError {
    /// An entry has no colon, or is empty.
    #[error("the entry {0:?} has no protocol (the form is {FORM})")]
    NoProtocol(String),
    /// The protocol is another one.
    #[error("the protocol {0:?} is not supported (must be tcp or udp)")]
    Protocol(String),
    /// It is no number, or none of a port.
    #[error("the port {0:?} is not a number from 1 to 65535")]
    Port(String),
    /// A range ends before it begins.
    #[error("the range {0:?} ends before it begins")]
    Range(String),
    /// There are too many entries.
    #[error("it has {0} entries, but at most {MOST} are allowed")]
    TooMany(usize),
}

impl LoopbackPortsError {
    /// What to do about it.
    pub fn hint(&self) -> String {
        match self {
            Self::NoProtocol(_) | Self::Protocol(_) => {
                format!(
                    "use tcp:PORT or udp:PORT, and separate entries with commas, as in {EXAMPLE}"
                )
            }
            Self::Port(_) => {
                "use a port such as tcp:5432, or a range such as tcp:8000-8010".to_owned()
            }
            Self::Range(_) => "write the lower port first".to_owned(),
            Self::TooMany(_) => "combine ports into ranges such as tcp:8000-8010".to_owned(),
        }
    }
}

impl FromStr for LoopbackPorts {
    type Err = LoopbackPortsError;

    fn from_str(text: &str) -> Result<Self, LoopbackPortsError> {
        let (mut tcp, mut udp) = (Vec::new(), Vec::new());
        let entries: Vec<&str> = text.split(',').map(str::trim).collect();
        if entries.len() > MOST {
            return Err(LoopbackPortsError::TooMany(entries.len()));
        }
        for entry in entries {
            let Some((protocol, ports)) = entry.split_once(':') else {
                return Err(LoopbackPortsError::NoProtocol(entry.to_owned()));
            };
            let list = match protocol {
                "tcp" => &mut tcp,
                "udp" => &mut udp,
                other => return Err(LoopbackPortsError::Protocol(other.to_owned())),
            };
            list.push(range(ports)?);
        }
        Ok(Self { tcp: merged(tcp), udp: merged(udp) })
    }
}

fn range(text: &str) -> Result<RangeInclusive<u16>, LoopbackPortsError> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let (first, last) = (port(first)?, port(last)?);
    if first > last {
        return Err(LoopbackPortsError::Range(text.to_owned()));
    }
    Ok(first..=last)
}

fn port(text: &str) -> Result<u16, LoopbackPortsError> {
    // The standard library takes a plus sign as well.
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    let port = text.parse().ok().filter(|port| digits && *port != 0);
    port.ok_or_else(|| LoopbackPortsError::Port(text.to_owned()))
}

/// The same ports in ascending order, as few ranges as possible.
fn merged(mut ranges: Vec<RangeInclusive<u16>>) -> Vec<RangeInclusive<u16>> {
    ranges.sort_by_key(|range| *range.start());
    let mut merged: Vec<RangeInclusive<u16>> = Vec::new();
    for range in ranges {
        match merged.last_mut() {
            Some(last) if *range.start() <= last.end().saturating_add(1) => {
                *last = *last.start()..=*last.end().max(range.end());
            }
            _ => merged.push(range),
        }
    }
    merged
}

impl fmt::Display for LoopbackPorts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let tcp = self.tcp.iter().map(|range| ("tcp", range));
        let udp = self.udp.iter().map(|range| ("udp", range));
        for (index, (protocol, range)) in tcp.chain(udp).enumerate() {
            let comma = if index == 0 { "" } else { "," };
            write!(f, "{comma}{protocol}:{}", range.start())?;
            if range.start() != range.end() {
                write!(f, "-{}", range.end())?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parse(text: &str) -> LoopbackPorts {
        text.parse().unwrap()
    }

    #[test]
    fn ports_and_ranges_of_both_protocols_are_read() {
        let ports = parse("tcp:5432, tcp:8000-8010,udp:53");
        assert_eq!(
            (&ports.tcp[..], &ports.udp[..]),
            (&[5432..=5432, 8000..=8010][..], &[53..=53][..])
        );
        assert_eq!(ports.to_string(), EXAMPLE);
        assert_eq!(parse("udp:1-65535").to_string(), "udp:1-65535");
        assert_eq!(parse("tcp:7-7").to_string(), "tcp:7");
    }

    #[test]
    fn ranges_that_touch_become_one() {
        for (text, shown) in [
            ("tcp:20-30,tcp:10,tcp:25-40", "tcp:10,tcp:20-40"),
            ("tcp:11,tcp:10", "tcp:10-11"),
            ("tcp:10,udp:11", "tcp:10,udp:11"),
            ("tcp:1-65535,tcp:65535", "tcp:1-65535"),
            ("tcp:10-30,tcp:15-20,tcp:31", "tcp:10-31"),
            ("udp:9,udp:9", "udp:9"),
        ] {
            assert_eq!(parse(text).to_string(), shown, "{text}");
        }
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (text, part) in [
            ("", "the entry \"\" has no protocol (the form is PROTOCOL:PORT"),
            ("5432", "the entry \"5432\" has no protocol"),
            ("tcp:80,", "the entry \"\" has no protocol"),
            ("sctp:80", "the protocol \"sctp\" is not supported (must be tcp or udp)"),
            ("TCP:80", "the protocol \"TCP\""),
            (":80", "the protocol \"\""),
            ("tcp:", "the port \"\" is not a number from 1 to 65535"),
            ("tcp:0", "the port \"0\""),
            ("tcp:65536", "the port \"65536\""),
            ("tcp:+80", "the port \"+80\""),
            ("tcp:http", "the port \"http\""),
            ("tcp:127.0.0.1:80", "the port \"127.0.0.1:80\""),
            ("tcp:80-", "the port \"\""),
            ("tcp:80-90-95", "the port \"90-95\""),
            ("tcp:90-80", "the range \"90-80\" ends before it begins"),
        ] {
            let error = text.parse::<LoopbackPorts>().unwrap_err().to_string();
            assert!(error.contains(part), "{text}: {error}");
        }
        let many = vec!["tcp:80"; MOST + 1].join(",");
        assert_eq!(many.parse::<LoopbackPorts>(), Err(LoopbackPortsError::TooMany(MOST + 1)));
        assert!(many.strip_suffix(",tcp:80").unwrap().parse::<LoopbackPorts>().is_ok());
    }

    proptest! {
        #[test]
        fn no_text_is_a_panic_and_what_is_read_reads_the_same_again(
            text in "((tcp|udp|x)?:?[0-9]{0,5}(-[0-9]{1,5})?,?){0,8}"
        ) {
            if let Ok(ports) = text.parse::<LoopbackPorts>() {
                prop_assert_eq!(ports.to_string().parse(), Ok(ports));
            }
        }

        #[test]
        fn merging_keeps_the_set_of_ports(
            ranges in proptest::collection::vec((1..60u16, 0..9u16), 1..9),
        ) {
            let ranges: Vec<_> = ranges.into_iter().map(|(first, more)| first..=first + more).collect();
            let merged = merged(ranges.clone());
            let has = |ranges: &[RangeInclusive<u16>], port| ranges.iter().any(|range| range.contains(&port));
            for port in 0..80 {
                prop_assert_eq!(has(&ranges, port), has(&merged, port), "{}", port);
            }
            prop_assert!(merged.windows(2).all(|pair| pair[0].end() + 1 < *pair[1].start()));
        }
    }
}
