//! A line of the flow log for people.

use api::flows::{Flow, FlowAddress, FlowDirection, FlowEnd, FlowEvent};

use crate::ctl::stats::view::bytes;
use crate::visible::visible;

/// A column of the text form: its name, how wide it is at least, and whether it is a number. Wide cells push the others to
/// the right.
struct Column(&'static str, usize, bool);

const COLUMNS: [Column; 11] = [
    Column("TIME", 24, false),
    Column("CONTAINER", 20, false),
    Column("ADDRESS", 15, false),
    Column("DIRECTION", 9, false),
    Column("PROTO", 5, false),
    Column("PEER", 21, false),
    Column("OUT", 10, true),
    Column("IN", 10, true),
    Column("DURATION", 8, true),
    Column("END", 15, false),
    Column("NAME", 0, false),
];

/// The names of the columns.
pub(super) fn header() -> String {
    row(&COLUMNS.map(|Column(name, ..)| name.to_owned()))
}

/// An event as a line.
pub(super) fn line(event: &FlowEvent) -> String {
    match event {
        FlowEvent::Flow(flow) => row(&cells(flow)),
        FlowEvent::Missed { count } => format!("{count} flows not shown: too many ended at once\n"),
        FlowEvent::Restarted { time } => {
            format!("{}  the gateway was restarted; its connections are lost\n", visible(time))
        }
        FlowEvent::Unknown => String::new(),
    }
}

fn row(cells: &[String; COLUMNS.len()]) -> String {
    let cells = cells.iter().zip(&COLUMNS).map(|(cell, Column(_, width, number))| {
        if *number { format!("{cell:>width$}") } else { format!("{cell:width$}") }
    });
    cells.collect::<Vec<_>>().join("  ").trim_end().to_owned() + "\n"
}

/// The peer is whoever is outside: the destination, or the client of a published port. The latter has no name; there, the
/// last column is the port.
fn cells(flow: &Flow) -> [String; COLUMNS.len()] {
    let none = || "-".to_owned();
    let published = flow.direction == FlowDirection::Published;
    let (peer, name) = if published {
        (flow.client, Some(format!("port {}", address(flow.destination))))
    } else {
        (flow.destination, flow.name.clone())
    };
    let cells = [
        flow.time.clone(),
        flow.container.clone().unwrap_or_else(none),
        flow.container_ip.map_or_else(none, |ip| ip.to_string()),
        if published { "published" } else { "outbound" }.to_owned(),
        flow.protocol.clone(),
        address(peer),
        bytes(flow.bytes_out.into()),
        bytes(flow.bytes_in.into()),
        duration(flow.duration_ms),
        match (&flow.rule, &flow.dry_run_rule) {
            (Some(rule), _) => format!("{}: {rule}", end(flow.end)),
            (None, Some(rule)) => format!("{} (dry run: {rule})", end(flow.end)),
            (None, None) => end(flow.end).to_owned(),
        },
        name.unwrap_or_else(none),
    ];
    cells.map(|cell| visible(&cell))
}

fn address(address: FlowAddress) -> String {
    match address.port {
        Some(port) => std::net::SocketAddr::new(address.ip, port).to_string(),
        None => address.ip.to_string(),
    }
}

/// The two largest units of a duration.
fn duration(millis: u64) -> String {
    let seconds = millis / 1000;
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    match () {
        () if seconds == 0 => format!("{millis}ms"),
        () if minutes == 0 => format!("{seconds}.{}s", millis % 1000 / 100),
        () if hours == 0 => format!("{minutes}m{}s", seconds % 60),
        () if days == 0 => format!("{hours}h{}m", minutes % 60),
        () => format!("{days}d{}h", hours % 24),
    }
}

fn end(end: FlowEnd) -> &'static str {
    match end {
        FlowEnd::Closed => "closed",
        FlowEnd::ClientReset => "reset by client",
        FlowEnd::ServerReset => "reset by server",
        FlowEnd::TimedOut => "timed out",
        FlowEnd::Idle => "idle",
        FlowEnd::Refused => "refused",
        FlowEnd::Unreachable => "unreachable",
        FlowEnd::Denied => "denied",
        FlowEnd::Evicted => "evicted",
        FlowEnd::Withdrawn => "port removed",
        FlowEnd::Failed => "failed",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flow() -> Flow {
        let address = |ip: &str, port| FlowAddress { ip: ip.parse().unwrap(), port };
        Flow {
            time: "2026-11-30T09:15:07.042Z".to_owned(),
            container_ip: Some("172.17.0.2".parse().unwrap()),
            container: Some("web".to_owned()),
            network: Some("bridge".to_owned()),
            direction: FlowDirection::Outbound,
            protocol: "tcp".to_owned(),
            client: address("10.0.2.100", Some(40000)),
            destination: address("192.0.2.7", Some(443)),
            name: Some("www.example.org".to_owned()),
            bytes_out: 1024,
            bytes_in: 3 << 20,
            duration_ms: 1234,
            end: FlowEnd::ServerReset,
            rule: None,
            dry_run_rule: None,
        }
    }

    fn shown(flow: Flow) -> String {
        line(&FlowEvent::Flow(Box::new(flow)))
    }

    #[test]
    fn rows_stand_below_the_header() {
        let expected = "\
TIME                      CONTAINER             ADDRESS          DIRECTION  PROTO  PEER                          OUT          IN  DURATION  END              NAME
2026-11-30T09:15:07.042Z  web                   172.17.0.2       outbound   tcp    192.0.2.7:443             1.0 KiB     3.0 MiB      1.2s  reset by server  www.example.org
2026-11-30T09:15:07.042Z  -                     -                published  udp    10.0.2.100:40000          1.0 KiB     3.0 MiB      1.2s  denied           port 192.0.2.7:443
2026-11-30T09:15:07.042Z  web                   172.17.0.2       outbound   tcp    192.0.2.7:443             1.0 KiB     3.0 MiB      1.2s  denied: no mail  www.example.org
2026-11-30T09:15:07.042Z  web                   172.17.0.2       outbound   tcp    192.0.2.7:443             1.0 KiB     3.0 MiB      1.2s  reset by server (dry run: no mail)  www.example.org
2026-11-30T09:15:07.042Z  web                   172.17.0.2       outbound   icmp   192.0.2.7                 1.0 KiB     3.0 MiB      1.2s  idle             -
";
        let published = Flow {
            container_ip: None,
            container: None,
            direction: FlowDirection::Published,
            protocol: "udp".to_owned(),
            end: FlowEnd::Denied,
            ..flow()
        };
        let denied = Flow { end: FlowEnd::Denied, rule: Some("no mail".to_owned()), ..flow() };
        let would_be = Flow { dry_run_rule: Some("no mail".to_owned()), ..flow() };
        let destination = FlowAddress { port: None, ..flow().destination };
        let (protocol, name) = ("icmp".to_owned(), None);
        let ping = Flow { protocol, name, destination, end: FlowEnd::Idle, ..flow() };
        assert_eq!(
            header()
                + &shown(flow())
                + &shown(published)
                + &shown(denied)
                + &shown(would_be)
                + &shown(ping),
            expected
        );
        assert_eq!(
            line(&FlowEvent::Missed { count: 7 }),
            "7 flows not shown: too many ended at once\n"
        );
        let restarted = FlowEvent::Restarted { time: "now".to_owned() };
        assert_eq!(line(&restarted), "now  the gateway was restarted; its connections are lost\n");
    }

    #[test]
    fn texts_of_strangers_give_the_terminal_no_orders() {
        let (evil, time) = (Some("\u{1b}[2J\u{202e}x\n".to_owned()), "\u{7}".to_owned());
        let row = shown(Flow { container: evil.clone(), name: evil, time, ..flow() });
        assert_eq!(row.matches("\\u{1b}[2J\\u{202e}x\\n").count(), 2, "{row}");
        assert!(row.trim_end().chars().all(|c| !c.is_control() && c != '\u{202e}'), "{row}");
    }

    #[test]
    fn durations_have_two_units() {
        for (millis, text) in [
            (0, "0ms"),
            (999, "999ms"),
            (59_999, "59.9s"),
            (61_000, "1m1s"),
            (3_720_000, "1h2m"),
            (90_000_000, "1d1h"),
        ] {
            assert_eq!(duration(millis), text);
        }
    }
}
